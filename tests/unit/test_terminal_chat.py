"""What `paddler-py chat` writes of an answer."""

from __future__ import annotations

import sys

import pytest

from balancer.terminal.chat import _show
from balancer.terminal.events import Piece

ANSWER = "two\nlines \x1b]52;c;cm0gLXJm\x07"


@pytest.mark.parametrize(
    ("is_terminal", "shown"),
    [(True, "two\nlines \\x1b]52;c;cm0gLXJm\\x07"), (False, ANSWER)],
)
def test_an_answer_commands_no_terminal_and_reaches_a_file_as_it_is(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    is_terminal: bool,
    shown: str,
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)
    _show(Piece(content=ANSWER, reasoning="\x1b[2Jhm"))
    written = capsys.readouterr()
    assert written.out == shown
    assert "\x1b[2J" not in written.err
