"""Texts of others, written down such that they command nothing: no terminal, no reader of lines.

A model file, an agent or a library may put escape sequences, line ends and marks that turn the
writing direction into what is logged or shown. Standard library only.
"""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping
from typing import Any

_TURNING = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
"""Marks by which a text is shown in another order (Unicode, UAX #9)."""
_COMMANDS = (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *_TURNING)


def _escapes(codes: Iterable[int]) -> dict[int, str]:
    return {code: chr(code).encode("unicode_escape").decode() for code in codes}


_OF_LINES = _escapes(_COMMANDS)
_OF_TEXTS = _escapes(code for code in _COMMANDS if chr(code) not in "\n\t")


def one_line(text: str) -> str:
    """The text on one line: whatever commands stands as it would in Python, as `\\x1b`."""
    return text if text.isprintable() else text.translate(_OF_LINES)


def harmless(text: str) -> str:
    """The text with its lines and tabs, and nothing else that commands."""
    return text if text.isprintable() else text.translate(_OF_TEXTS)


def line_of_facts(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """A step of structlog's, before a line for people is rendered: each text on one line. What is
    no text is rendered by its `repr`, which escapes by itself."""
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = one_line(value)
    return event
