"""Reads calls whose arguments stand between tags, one pair for each, and gives them as JSON.

What a value is follows from the schema of its tool. A string is given on as it comes, with every
other value it takes all of it to tell. As with JSON, what is cut off stays cut off.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from typing import Any, Literal

from agent.chat.markers import first_marker, partial_marker_chars
from agent.chat.tool_calls.format import Tagged, Writing
from agent.chat.tool_calls.heads import MAX_HEAD_CHARS, MAX_HELD_CHARS, Found, NoCall
from agent.chat.tool_calls.typed_values import as_json, quoted
from agent.grammar.argument_types import STRING, types_of

_State = Literal["between", "key", "string", "value"]


class TaggedHead:
    """Reads a name up to the first argument's tag."""

    def __init__(self, tagged: Tagged, tools: Set[str]) -> None:
        self._tagged = tagged
        self._tools = tools

    def read(self, held: str) -> Found | NoCall | None:
        """What the text is; None: it takes more to tell."""
        text = held[:MAX_HEAD_CHARS]
        end = self._tagged.head_end.search(text)
        if end is None:
            return NoCall(0) if len(text) == MAX_HEAD_CHARS else None
        match = self._tagged.head.fullmatch(text, 0, end.end())
        if match is None or match["name"] not in self._tools:
            return NoCall(0)
        return Found(match["name"], end.end(), None)


class TaggedArguments:
    """The arguments of one call, as one JSON object.

        between -> key -> string | value -> between

    What stands between two arguments and is no tag is left out: it has no place in JSON.
    """

    def __init__(self, tagged: Tagged, parameters: Mapping[str, Any], writing: Writing) -> None:
        self._tagged = tagged
        self._parameters = parameters
        self._stops = (tagged.before_key, tagged.close, *tagged.soft_closes, *writing.openings)
        self._state: _State = "between"
        self._types: frozenset[str] = frozenset()
        self._count = 0
        self._looked_at = 0
        """Of a value that is held, what has no end in it."""
        self._is_begun = False
        """Whether anything of the string is out, or was left out in front of it."""
        self._out = ["{"]
        self.has_ended = False

    def feed(self, text: str) -> tuple[int, str]:
        """How many characters of `text` are taken, and the JSON that they make certain. The others
        are to be fed again, with more; or, once it `has_ended`, they follow the call."""
        taken = 0
        while not self.has_ended:
            used, goes_on = _TURNS[self._state](self, text[taken:])
            taken += used
            if not goes_on:
                break
        out, self._out = "".join(self._out), []
        return taken, out

    def _between(self, text: str) -> tuple[int, bool]:
        at, mark = first_marker(text, self._stops)
        if not mark:
            return len(text) - max(partial_marker_chars(text, stop) for stop in self._stops), False
        if mark == self._tagged.before_key:
            self._state = "key"
            return at + len(mark), True
        self._out.append("}")
        self.has_ended = True
        return at + (len(mark) if mark == self._tagged.close else 0), True

    def _key(self, text: str) -> tuple[int, bool]:
        end = self._tagged.key_end.search(text[:MAX_HEAD_CHARS])
        if end is None:
            if len(text) < MAX_HEAD_CHARS:
                return 0, False
            self._state = "between"
            return MAX_HEAD_CHARS, True
        key = text[: end.start()].strip()
        self._types = types_of(self._parameters, key)
        self._out.append(f"{', ' if self._count else ''}{quoted(key)}: ")
        self._count += 1
        self._looked_at, self._is_begun = 0, False
        self._state = "value"
        if self._types == STRING:
            self._out.append('"')
            self._state = "string"
        return end.end(), True

    def _string(self, text: str) -> tuple[int, bool]:
        """A string, but for the line breaks that belong to its tags."""
        if not self._is_begun:
            if not text:
                return 0, False
            self._is_begun = True
            if self._tagged.has_lines and text[0] == "\n":
                return 1, True
        mark = self._tagged.after_value
        at = text.find(mark)
        if at < 0:
            certain = len(text) - partial_marker_chars(text, mark)
            if self._tagged.has_lines and text[:certain].endswith("\n"):
                certain -= 1
            self._out.append(quoted(text[:certain])[1:-1])
            return certain, False
        self._out.append(quoted(self._without_last_break(text[:at]))[1:])
        self._state = "between"
        return at + len(mark), True

    def _value(self, text: str) -> tuple[int, bool]:
        """Anything else; what is too long to hold goes on as a string."""
        mark = self._tagged.after_value
        at = text.find(mark, max(0, self._looked_at - len(mark)), MAX_HELD_CHARS)
        if at < 0:
            self._looked_at = len(text)
            if len(text) < MAX_HELD_CHARS:
                return 0, False
            self._out.append('"')
            self._state = "string"
            return 0, True
        value = text[:at]
        if self._tagged.has_lines:
            value = self._without_last_break(value.removeprefix("\n"))
        self._out.append(as_json(value, self._types))
        self._state = "between"
        return at + len(mark), True

    def _without_last_break(self, value: str) -> str:
        return value.removesuffix("\n") if self._tagged.has_lines else value


_TURNS: dict[_State, Callable[[TaggedArguments, str], tuple[int, bool]]] = {
    "between": TaggedArguments._between,
    "key": TaggedArguments._key,
    "string": TaggedArguments._string,
    "value": TaggedArguments._value,
}
"""A turn of each state: what was taken, and whether there is another."""
