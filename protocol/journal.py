"""Log lines for systemd's journal: each says how important it is (sd-daemon(3), `<N>` in front).
Standard library only."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

_STANDARD_ERROR = 2
_LEVELS = {"critical": 2, "error": 3, "exception": 3, "warning": 4, "info": 6, "debug": 7}
"""By the names of our log levels: syslog's numbers (RFC 5424, section 6.2.1)."""
_UNKNOWN = 6

Event = MutableMapping[str, Any]
Renderer = Callable[[Any, str, Event], Any]
"""structlog's last step: from a logger, a method's name and the facts to a line."""


def is_journal(environment: Mapping[str, str], descriptor: int = _STANDARD_ERROR) -> bool:
    """Whether what is written to the descriptor goes to the journal: `JOURNAL_STREAM` names its
    device and inode, so that a service whose output was sent elsewhere is not taken in."""
    try:
        facts = os.fstat(descriptor)
    except OSError:
        return False
    return environment.get("JOURNAL_STREAM") == f"{facts.st_dev}:{facts.st_ino}"


def for_journal(render: Renderer) -> Renderer:
    """The same renderer, with the event's level in front of each line of its text: the journal
    makes an entry of each line."""

    def rendered(logger: Any, method: str, event: Event) -> str:
        mark = f"<{_LEVELS.get(event.get('level', ''), _UNKNOWN)}>"  # rendering may take it out
        lines = str(render(logger, method, event)).split("\n")
        return "\n".join(mark + line for line in lines)

    return rendered
