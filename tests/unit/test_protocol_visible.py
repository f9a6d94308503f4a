"""Texts of others command no terminal and begin no lines."""

from __future__ import annotations

import pytest

from agent.engine.stderr_lines import say
from protocol.visible import harmless, line_of_facts, one_line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("größe 模型 👩‍💻", "größe 模型 👩‍💻"),
        ("a\nb\tc\rd", "a\\nb\\tc\\rd"),
        ("\x1b[2J\x1b]0;mine\x07", "\\x1b[2J\\x1b]0;mine\\x07"),
        ("\x9b31m\x7f\x00", "\\x9b31m\\x7f\\x00"),
        ("a\u2028b\u2029c\x85d", "a\\u2028b\\u2029c\\x85d"),
        ("user\u202egnp.exe\u2066x", "user\\u202egnp.exe\\u2066x"),
    ],
)
def test_whatever_commands_is_shown_as_python_writes_it(text: str, shown: str) -> None:
    assert one_line(text) == shown


def test_an_answer_keeps_its_lines_and_tabs_and_nothing_else_that_commands() -> None:
    assert harmless("plain") == "plain"
    assert harmless("a\n\tb\x1b[31m\r\u202e") == "a\n\tb\\x1b[31m\\r\\u202e"


def test_the_facts_of_an_event_are_lines_and_what_is_no_text_stays_as_it_is() -> None:
    event = {"event": "a\nb", "count": 3, "names": ["a\nb"]}
    assert line_of_facts(None, "info", event) == {
        "event": "a\\nb",
        "count": 3,
        "names": ["a\nb"],
    }


def test_what_the_engine_says_of_a_model_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    say("llama.cpp: unknown architecture '\x1b[2Jx\n2026-01-01 [info] all is well'\n")
    (line,) = capfd.readouterr().err.splitlines()
    assert line == "llama.cpp: unknown architecture '\\x1b[2Jx\\n2026-01-01 [info] all is well'"
