"""Values that a model writes as plain text, as the JSON that the schema of its tool calls for."""

from __future__ import annotations

import msgspec

from agent.grammar.argument_types import STRING, TYPE_OF

_AS_PYTHON = {"True": "true", "False": "false", "None": "null"}
_NUMBERS = frozenset({"integer", "number"})


def as_json(text: str, types: frozenset[str]) -> str:
    """The value as JSON: what the text says as JSON if that is allowed, else a string. `types` are
    those that the schema names, none if it names none. White space around JSON is left out."""
    if types != STRING:
        written = _AS_PYTHON.get(text.strip(), text.strip())
        if _is_allowed(written, types):
            return written
    return quoted(text)


def quoted(text: str) -> str:
    """The text as a JSON string."""
    return msgspec.json.encode(text).decode()


def _is_allowed(written: str, types: frozenset[str]) -> bool:
    try:
        kind = TYPE_OF[type(msgspec.json.decode(written))]
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return False
    # a number of the wrong kind is not made a string of: the tool can say better what is wrong
    return not types or kind in types or (kind in _NUMBERS and not types.isdisjoint(_NUMBERS))
