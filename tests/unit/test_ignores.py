"""No check is switched off without saying why."""

from __future__ import annotations

import re
from pathlib import Path

PROJECT = Path(__file__).parents[2]
FOLDERS = ("protocol", "balancer", "agent", "deploy", "tests")
_SWITCHED_OFF = re.compile(r"#\s*(?:noqa|nosec|type:\s*ignore)(?P<rest>.*)$")
_WITH_REASON = re.compile(r"^(?::\s*|\[|(?= B\d))[A-Za-z0-9, -]+\]?\s+(?:#\s*\w|\(\w).+")


def test_every_ignore_names_its_rule_and_its_reason() -> None:
    files = [PROJECT / "paddler_py.py"]
    files += [path for folder in FOLDERS for path in (PROJECT / folder).rglob("*.py")]
    bare = [
        f"{path.relative_to(PROJECT)}:{number}"
        for path in files
        if path != Path(__file__)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if (found := _SWITCHED_OFF.search(line)) and not _WITH_REASON.match(found["rest"])
    ]
    assert bare == []
