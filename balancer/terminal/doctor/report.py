"""The findings as lines for people, and as one object for programs."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from balancer.terminal.doctor.findings import Finding, Verdict

_NARROWEST = 40
_WORDS: dict[Verdict, str] = {
    "ok": "ok", "warning": "warning", "problem": "problem", "not_checked": "not checked",
}  # fmt: skip
_COLORS: dict[Verdict, str] = {"ok": "green", "warning": "yellow", "problem": "red"}
_MARK_WIDTH = max(map(len, _WORDS.values())) + 2


class Section(Struct, frozen=True):
    """What one check found."""

    name: str
    findings: tuple[Finding, ...]


class Line(Struct, frozen=True):
    """One of the report; the mark is the part that has a colour."""

    mark: str
    text: str
    color: str = ""


def lines(sections: Sequence[Section], *, width: int) -> Iterator[Line]:
    """The report, no line wider than `width`; what a colour says, a word says too."""
    for section in sections:
        yield Line("", section.name)
        for finding in section.findings:
            yield from _lines_of(finding, max(width, _NARROWEST))
    yield Line("", "")
    yield Line("", summary(sections))


def _lines_of(finding: Finding, width: int) -> Iterator[Line]:
    mark = f"  {_WORDS[finding.verdict]:<{_MARK_WIDTH}}"
    blank = " " * len(mark)
    texts = _wrapped(printable(finding.what), width - len(mark))
    if finding.remedy:
        texts += _wrapped(f"-> {printable(finding.remedy)}", width - len(mark))
    for number, text in enumerate(texts):
        yield Line(blank if number else mark, text, _COLORS.get(finding.verdict, ""))


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_on_hyphens=False) or [""]


def printable(text: str) -> str:
    """Without what a terminal would obey: others wrote parts of it."""
    return "".join(char if char.isprintable() else " " for char in text)


def summary(sections: Sequence[Section]) -> str:
    """In a few words."""
    counts = {
        verdict: sum(one.verdict == verdict for part in sections for one in part.findings)
        for verdict in _WORDS
    }
    if not counts["problem"]:
        head = "nothing wrong was found" if not counts["warning"] else "it works"
    else:
        head = "it is not well"
    told = [f"{counts[one]} {_WORDS[one]}" for one in _WORDS if counts[one]]
    return f"{head}: {', '.join(told)}"


def as_json(url: str, sections: Sequence[Section]) -> dict[str, Any]:
    """For programs."""
    return {
        "url": url,
        "well": is_well(sections),
        "checks": [
            {"name": part.name, "findings": msgspec.to_builtins(part.findings)} for part in sections
        ],
    }


def is_well(sections: Sequence[Section]) -> bool:
    """Whether nothing is a problem."""
    return not any(one.verdict == "problem" for part in sections for one in part.findings)
