"""Reads the head of one call, up to its arguments, or all of it where only that is sure.

A reader is asked with the text behind an opening, again and again with more of it, until it knows.
Its answer depends on the shortest beginning of the text that decides, whatever stands behind it.
"""

from __future__ import annotations

import re
from collections.abc import Set
from typing import NamedTuple

import msgspec
from msgspec import Raw, Struct

from agent.chat.tool_calls.format import Writing
from agent.chat.tool_calls.objects import ObjectScanner

MAX_HEAD_CHARS = 1024
"""A name must stand within so much text."""
MAX_HELD_CHARS = 65_536
"""Text of a call that is held back; a call that is still no call then is text."""

_TYPE = r'(?:"type"\s*:\s*"function"\s*,\s*)?'
_NAME = re.compile(r"\{\s*" + _TYPE + r'"name"\s*:\s*("(?:[^"\\]|\\.)*")')
_TO_ARGUMENTS = re.compile(r'\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{\s*["}])')
_KEYS = ("name", "arguments", "parameters", "type", "function", "id")


class Found(NamedTuple):
    """A call of an offered tool, in the first `end` characters of the text."""

    name: str
    end: int
    arguments: str | None
    """None: they are what follows."""


class NoCall(NamedTuple):
    """The first `chars` characters are text, what follows may hold calls again."""

    chars: int


class ObjectHead:
    """Reads a call written as a JSON object; the text begins with its brace."""

    def __init__(self, writing: Writing, tools: Set[str]) -> None:
        self._writing = writing
        self._tools = tools
        self._scanner = ObjectScanner()
        self._scanned = 0

    def read(self, held: str) -> Found | NoCall | None:
        """What the text is; None: it takes more to tell."""
        text = held[:MAX_HELD_CHARS]
        stop = self._stop_in(text)
        early = self._early(text[: min(stop, MAX_HEAD_CHARS)])
        if early is not None:
            return early
        if not self._scanner.has_ended:
            self._scanned += self._scanner.feed(text[self._scanned :])
        if self._scanner.has_ended and self._scanned <= stop:
            return self._whole(text[: self._scanned])
        if stop < len(text):
            return NoCall(stop)
        return NoCall(MAX_HELD_CHARS) if len(text) == MAX_HELD_CHARS else None

    def _stop_in(self, text: str) -> int:
        """Where the stop stands, be it in a string that was never closed; else the text's end."""
        stop = self._writing.stop
        at = text.find(stop, max(0, self._scanned - len(stop))) if stop else -1
        return len(text) if at < 0 else at

    def _early(self, text: str) -> Found | NoCall | None:
        """What the object's first keys tell."""
        if not self._writing.is_sure and not _may_be_call(text):
            return NoCall(0)
        named = _NAME.match(text)
        if named is None:
            return None
        name = _decoded(named[1])
        if name not in self._tools:
            return NoCall(0)
        head = _TO_ARGUMENTS.match(text, named.end())
        return Found(name, head.end(), None) if head and self._writing.is_sure else None

    def _whole(self, text: str) -> Found | NoCall:
        written = _written(text)
        if written is None or written.name not in self._tools:
            return NoCall(len(text))
        arguments = _arguments_text(bytes(written.arguments or written.parameters))
        return NoCall(len(text)) if arguments is None else Found(written.name, len(text), arguments)


class NamedHead:
    """Reads a name with what stands around it, up to the brace of the arguments."""

    def __init__(self, pattern: re.Pattern[str], writing: Writing, tools: Set[str]) -> None:
        self._pattern = pattern
        self._stop = writing.stop
        self._tools = tools

    def read(self, held: str) -> Found | NoCall | None:
        """What the text is; None: it takes more to tell."""
        text = held[:MAX_HEAD_CHARS]
        head, brace, _ = text.partition("{")
        if self._stop and self._stop in head:
            return NoCall(0)
        if brace:
            match = self._pattern.fullmatch(head)
            is_call = match is not None and match["name"] in self._tools
            return Found(match["name"], len(head), None) if match and is_call else NoCall(0)
        return NoCall(0) if len(text) == MAX_HEAD_CHARS else None


class _Written(Struct):
    """A call as an object, also as templates show it, with all of it under `function`."""

    name: str = ""
    arguments: Raw = Raw(b"")
    parameters: Raw = Raw(b"{}")
    function: Raw = Raw(b"")


def _may_be_call(text: str) -> bool:
    """Whether an object that begins like this can have the keys of a call."""
    first = text[1:].lstrip()
    if not first:
        return True
    key, quote, _ = first[1:].partition('"')
    may_be_key = key in _KEYS if quote else any(known.startswith(key) for known in _KEYS)
    return first[0] == '"' and may_be_key


def _decoded(quoted: str) -> str:
    try:
        return msgspec.json.decode(quoted, type=str)
    except (msgspec.MsgspecError, UnicodeError):
        return ""


def _written(text: str) -> _Written | None:
    try:
        written = msgspec.json.decode(text, type=_Written)
        if bytes(written.function).startswith(b"{"):
            written = msgspec.json.decode(bytes(written.function), type=_Written)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    return written


def _arguments_text(raw: bytes) -> str | None:
    """The arguments as JSON text: an object as it stands, or one written as a string."""
    text = raw.decode()
    if text.startswith("{"):
        return text
    try:
        inner = msgspec.json.decode(raw)
        is_object = (
            isinstance(msgspec.json.decode(inner), dict) if isinstance(inner, str) else False
        )
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    return inner if is_object else None
