"""From the bytes that a terminal sends to the names of keys. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

_NAMED = {
    "\x1b[A": "up",
    "\x1bOA": "up",
    "\x1b[B": "down",
    "\x1bOB": "down",
    "\x1b[C": "right",
    "\x1bOC": "right",
    "\x1b[D": "left",
    "\x1bOD": "left",
    "\x1b[H": "home",
    "\x1bOH": "home",
    "\x1b[1~": "home",
    "\x1b[F": "end",
    "\x1bOF": "end",
    "\x1b[4~": "end",
    "\x1b[5~": "page up",
    "\x1b[6~": "page down",
    "\x1b[Z": "back tab",
    "\x1b": "escape",
    "\r": "enter",
    "\n": "enter",
    "\t": "tab",
    "\x7f": "backspace",
    "\b": "backspace",
    "\x03": "q",
}
_ONE = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1bO.|\x1b|.", re.DOTALL)


def keys(data: bytes) -> Iterator[str]:
    """Named keys by name, others by their character; what is neither is left out."""
    for sent in _ONE.findall(data.decode("utf-8", "ignore")):
        name = _NAMED.get(sent, sent)
        if name in _NAMED.values() or name.isprintable():
            yield name
