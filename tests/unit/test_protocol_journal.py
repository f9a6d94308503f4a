"""Lines for the journal."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from protocol.journal import for_journal, is_journal


def stream_of(descriptor: int) -> str:
    facts = os.fstat(descriptor)
    return f"{facts.st_dev}:{facts.st_ino}"


def test_only_the_very_stream_that_systemd_opened_is_the_journal(tmp_path: Path) -> None:
    with (tmp_path / "stream").open("w") as stream:
        descriptor = stream.fileno()
        assert is_journal({"JOURNAL_STREAM": stream_of(descriptor)}, descriptor)
        assert not is_journal({"JOURNAL_STREAM": "1:2"}, descriptor)
        assert not is_journal({}, descriptor)
    assert not is_journal({"JOURNAL_STREAM": "1:2"}, descriptor)


@pytest.mark.parametrize(
    ("facts", "mark"),
    [
        ({"level": "critical"}, "<2>"),
        ({"level": "error"}, "<3>"),
        ({"level": "warning"}, "<4>"),
        ({"level": "info"}, "<6>"),
        ({"level": "debug"}, "<7>"),
        ({"level": "none of ours"}, "<6>"),
        ({}, "<6>"),
    ],
)
def test_each_line_says_how_important_it_is(facts: dict[str, Any], mark: str) -> None:
    def render(_logger: object, _method: str, event: Any) -> str:
        event.pop("level", None)
        return "one\n  two"

    assert for_journal(render)(None, "info", facts) == f"{mark}one\n{mark}  two"
