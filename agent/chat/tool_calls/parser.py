"""Splits a model's text into content and tool calls while it arrives in pieces.

Streams as OpenAI does: first a delta with index, id and name, then pieces of the arguments, as the
model wrote them. What turns out to be no call of an offered tool comes out as text, unchanged.
What has come out after some text depends on that text alone, never on how it was cut.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from typing import Any, Literal

from agent.chat.markers import (
    MAX_SPACE_CHARS,
    certain_chars,
    chars_before_space,
    first_marker,
    pieces,
    uncertain,
)
from agent.chat.tool_calls.format import Writing
from agent.chat.tool_calls.heads import Found, NamedHead, NoCall, ObjectHead
from agent.chat.tool_calls.objects import ObjectScanner
from agent.chat.tool_calls.tagged import TaggedArguments, TaggedHead
from protocol.generation import ContentDelta, ToolCallDelta, TypedDelta
from protocol.invariants import present

MAX_CALLS = 128
"""Calls of one answer; what looks like more of them is text."""

_State = Literal[
    "start",
    "content",
    "opened",
    "object",
    "head",
    "arguments",
    "tagged",
    "closing",
    "rest",
    "after",
]


class CallParser:
    """One generation's text. `calls` counts those that have come out.

        start -> content <-> opened -> object -> head -> arguments -> closing -> rest -> after
                                                 head -> tagged -> after

    In `object` one must begin; `head` is what its reader has not decided yet; `closing` follows
    the arguments, `rest` is what else the object holds. Behind `after` is the next call or content.
    """

    def __init__(
        self,
        writing: Writing,
        tools: Set[str],
        call_id: Callable[[int], str],
        parameters: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """`call_id` names the call of an index; equal texts elsewhere must get equal names.
        `parameters`, the schemas of tools by name, say what plain text stands for."""
        self._writing = writing
        self._tools = tools
        self._call_id = call_id
        self._parameters = parameters or {}
        self._state: _State = "content" if writing.is_sure else "start"
        self._held = ""
        self._opened = ""
        """What was taken before the call that is being read, in case it turns out to be none."""
        self._in_list = False
        self._follows_call = False
        self._reader: ObjectHead | NamedHead | TaggedHead = ObjectHead(writing, tools)
        self._scanner = ObjectScanner()
        self._tagged: TaggedArguments | None = None
        self._out: list[TypedDelta] = []
        self._uncertain = uncertain(writing.openings)
        self.calls = 0

    def feed(self, text: str) -> list[TypedDelta]:
        """The deltas that `text` makes certain, in order."""
        if self._is_between() and not self._uncertain.search(text):
            return [ContentDelta(text)] if text else []
        for piece in pieces(text):
            self._held += piece
            while _TURNS[self._state](self):
                pass
        return self._taken()

    def finish(self) -> list[TypedDelta]:
        """What was held back at the end of the text."""
        if self._state not in ("arguments", "tagged", "rest"):
            self._emit_content(self._opened + self._held)
        self._opened = self._held = ""
        return self._taken()

    def _is_between(self) -> bool:
        """Whether nothing is held back, within content."""
        return self._state == "content" and not self._held and not self._follows_call

    def _taken(self) -> list[TypedDelta]:
        out, self._out = self._out, []
        return out

    def _start(self) -> bool:
        """An answer may begin with a call that has no opening."""
        text = self._held.lstrip()
        if not text and len(self._held) <= MAX_SPACE_CHARS:
            return False
        self._state = "opened" if self._may_open(text[:1]) else "content"
        return True

    def _content(self) -> bool:
        if self.calls >= MAX_CALLS:
            self._emit_content(self._held)
            self._held = ""
            return False
        at, opening = first_marker(self._held, self._writing.openings)
        if opening:
            content, end = chars_before_space(self._held[:at]), at + len(opening)
            self._opened = self._held[content:end]
            self._emit_content(self._held[:content])
            self._state, self._held = "opened", self._held[end:]
            return True
        certain = certain_chars(self._held, *self._writing.openings)
        self._emit_content(self._held[:certain])
        self._held = self._held[certain:]
        return False

    def _behind_opening(self) -> bool:
        character = self._next_character()
        if character is None:
            return False
        if character == "[" and self._writing.lists:
            return self._list()
        if character == "{" and self._writing.objects:
            self._state = "object"
        elif character and self._writing.tagged is not None:
            self._reader = TaggedHead(self._writing.tagged, self._tools)
            self._state = "head"
        elif character and self._writing.named is not None:
            self._reader = NamedHead(self._writing.named, self._writing, self._tools)
            self._state = "head"
        else:
            self._no_call(0)
        return True

    def _list(self) -> bool:
        """A list of calls begins with an object."""
        rest = self._held[1:].lstrip()
        begun = len(self._held) - len(rest)
        if not rest and begun <= MAX_SPACE_CHARS:
            return False
        if begun > MAX_SPACE_CHARS or rest[0] != "{":
            self._no_call(0)
            return True
        self._opened, self._held = self._opened + self._held[:begun], rest
        self._state, self._in_list = "object", True
        return True

    def _object(self) -> bool:
        character = self._next_character()
        if character is None:
            return False
        if character == "{":
            self._reader = ObjectHead(self._writing, self._tools)
            self._state = "head"
        else:
            self._no_call(0)
        return True

    def _head(self) -> bool:
        match self._reader.read(self._held):
            case None:
                return False
            case NoCall(chars):
                self._no_call(chars)
            case Found(name, end, arguments):
                self._held = self._held[end:]
                self._emit_head(name)
                self._emit_arguments(arguments or "")
                self._state = self._begin_arguments(name) if arguments is None else "after"
        return True

    def _begin_arguments(self, name: str) -> _State:
        """The state in which they are read."""
        tagged = self._writing.tagged
        if tagged is not None and isinstance(self._reader, TaggedHead):
            schema = self._parameters.get(name, {})
            self._tagged = TaggedArguments(tagged, schema, self._writing)
            return "tagged"
        self._scanner = ObjectScanner(stop=self._writing.stop)
        return "arguments"

    def _tagged_arguments(self) -> bool:
        tagged = present(self._tagged)
        taken, arguments = tagged.feed(self._held)
        self._emit_arguments(arguments)
        self._held = self._held[taken:]
        if tagged.has_ended:
            self._state = "after"
        return tagged.has_ended

    def _arguments(self) -> bool:
        taken = self._scanner.feed(self._held)
        self._emit_arguments(self._held[:taken])
        self._held = self._held[taken:]
        if self._scanner.has_ended:
            self._state = "closing" if isinstance(self._reader, ObjectHead) else "after"
        return self._scanner.has_ended

    def _closing(self) -> bool:
        """Behind the arguments an object ends, unless it goes on, or its JSON is broken."""
        self._held = self._held.lstrip()
        if not self._held:
            return False
        self._state = "after"
        if self._held[0] == "}":
            self._held = self._held[1:]
        elif self._held[0] == ",":
            self._scanner = ObjectScanner(depth=1, stop=self._writing.stop)
            self._state = "rest"
        return True

    def _rest(self) -> bool:
        """What an object holds behind the arguments, an id for instance, is left out."""
        self._held = self._held[self._scanner.feed(self._held) :]
        if self._scanner.has_ended:
            self._state = "after"
        return self._scanner.has_ended

    def _after(self) -> bool:
        self._held = self._held.lstrip()
        list_end = "]" if self._in_list else ""
        separators = self._separators()
        marks = [mark for mark in (list_end, *self._writing.endings, *separators) if mark]
        mark = next((mark for mark in marks if self._held.startswith(mark)), "")
        if not mark and any(mark.startswith(self._held) for mark in marks):
            return False
        self._held = self._held[len(mark) :]
        if not mark:
            self._state = "opened" if self._may_open(self._held[:1]) else "content"
            self._in_list = False
        elif mark in separators:
            # a comma of a list is no text, whatever follows it
            self._opened = "" if self._in_list else mark
            self._state = "object"
        elif mark == list_end:
            self._in_list = False
        return True

    def _separators(self) -> tuple[str, ...]:
        if self.calls >= MAX_CALLS:
            return ()
        return (",",) if self._in_list else self._writing.separators

    def _may_open(self, character: str) -> bool:
        """Whether a call may begin with this where no opening stands."""
        if self._writing.is_sure or self._in_list or self.calls >= MAX_CALLS:
            return False
        lists = character == "[" and self._writing.lists
        return lists or (character == "{" and self._writing.objects)

    def _next_character(self) -> str | None:
        """The first that is no white space, which is taken; "": there is too much of that; None:
        it is still to come."""
        text = self._held.lstrip()
        space = len(self._held) - len(text)
        if space > MAX_SPACE_CHARS:
            return ""
        if not text:
            return None
        self._opened, self._held = self._opened + self._held[:space], text
        return text[0]

    def _no_call(self, chars: int) -> None:
        self._emit_content(self._opened + self._held[:chars])
        self._opened, self._held = "", self._held[chars:]
        self._state, self._in_list = "content", False

    def _emit_content(self, text: str) -> None:
        if self._follows_call:
            text = text.lstrip()
        if text:
            self._follows_call = False
            self._out.append(ContentDelta(text))

    def _emit_head(self, name: str) -> None:
        self._opened = ""
        self._out.append(ToolCallDelta(index=self.calls, id=self._call_id(self.calls), name=name))
        self.calls += 1
        self._follows_call = True

    def _emit_arguments(self, text: str) -> None:
        if text:
            self._out.append(ToolCallDelta(index=self.calls - 1, arguments=text))


_TURNS: dict[_State, Callable[[CallParser], bool]] = {
    "start": CallParser._start,
    "content": CallParser._content,
    "opened": CallParser._behind_opening,
    "object": CallParser._object,
    "head": CallParser._head,
    "arguments": CallParser._arguments,
    "tagged": CallParser._tagged_arguments,
    "closing": CallParser._closing,
    "rest": CallParser._rest,
    "after": CallParser._after,
}
"""A turn of each state; False when it takes more text."""
