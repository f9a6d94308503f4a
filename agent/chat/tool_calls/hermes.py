"""Tool calls as Hermes and Qwen models write them, JSON between `<tool_call>` and `</tool_call>`.

Streams as OpenAI does: first a delta with index, id and name, then pieces of the arguments, as the
model wrote them. A block that turns out to be no call before its arguments begin comes out as
text. As in `agent.chat.reasoning`, output depends on the text alone, never on how it was cut.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

import msgspec
from msgspec import Raw, Struct

from agent.chat.markers import certain_chars
from protocol.generation import ContentDelta, ToolCallDelta, TypedDelta

REVISION = "hermes-1"
OPEN = "<tool_call>"
CLOSE = "</tool_call>"

# The head in the usual order of keys, up to the first characters of the arguments. It must stand
# in the first characters of a block, so that looking for it again and again stays cheap.
_HEAD_CHARS = 1024
_HEAD = re.compile(
    r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)+")\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=(\{\s*["}]))'
)
_OUTSIDE_STRING = re.compile(r'["{}\[\]<]')
_INSIDE_STRING = re.compile(r'["\\]')


class _WrittenCall(Struct):
    name: str
    arguments: Raw = Raw(b"")
    parameters: Raw = Raw(b"{}")


def knows_tool_calls(template: str) -> bool:
    """Whether a chat template is for a model that writes this format."""
    return OPEN in template


class HermesParser:
    """One generation's text, split into content and tool calls."""

    def __init__(self, call_id: Callable[[int], str]) -> None:
        """`call_id` names the call of an index; equal texts elsewhere must get equal names."""
        self._call_id = call_id
        self._state: Literal["content", "block", "arguments", "after"] = "content"
        self._held = ""
        self._space = ""
        self._follows_call = False
        self._scanner = _ObjectScanner()
        self._out: list[TypedDelta] = []
        self.calls = 0

    def feed(self, text: str) -> list[TypedDelta]:
        """The deltas that `text` makes certain, in order."""
        self._held += text
        while self._advance():
            pass
        return self._taken()

    def finish(self) -> list[TypedDelta]:
        """What was held back at the end of the text."""
        if self._state == "content":
            self._emit_content(self._held)
        elif self._state == "block" and not self._emit_written_call(self._held):
            self._emit_content(self._space + OPEN + self._held)
        self._held = ""
        return self._taken()

    def _taken(self) -> list[TypedDelta]:
        out, self._out = self._out, []
        return out

    def _advance(self) -> bool:
        """Take one turn of the state's; False when more text is needed."""
        match self._state:
            case "content":
                return self._content()
            case "block":
                return self._block()
            case "arguments":
                return self._arguments()
            case "after":
                return self._after()

    def _content(self) -> bool:
        if self._follows_call:
            self._held = self._held.lstrip()
        before, marker, rest = self._held.partition(OPEN)
        if marker:
            content = before.rstrip()
            self._space = before[len(content) :]
            self._emit_content(content)
            self._state, self._held = "block", rest
            return True
        certain = certain_chars(self._held, OPEN)
        self._emit_content(self._held[:certain])
        self._held = self._held[certain:]
        return False

    def _block(self) -> bool:
        end = self._held.find(CLOSE)
        head = _HEAD.match(self._held[:_HEAD_CHARS])
        if head and (end < 0 or head.end(2) <= end):
            name = _decoded_name(head[1])
            if name:
                self._emit_head(name)
                self._scanner = _ObjectScanner()
                self._state, self._held = "arguments", self._held[head.end() :]
                return True
        if end < 0:
            return False
        body, self._held = self._held[:end], self._held[end + len(CLOSE) :]
        if not self._emit_written_call(body):
            self._emit_content(self._space + OPEN + body + CLOSE)
        self._state = "content"
        return True

    def _arguments(self) -> bool:
        arguments, self._held = self._scanner.feed(self._held)
        if arguments:
            self._out.append(ToolCallDelta(index=self.calls - 1, arguments=arguments))
        if self._scanner.done:
            self._state = "after"
        return self._scanner.done

    def _after(self) -> bool:
        self._held = self._held.lstrip()
        if CLOSE.startswith(self._held) and self._held != CLOSE:
            return False
        self._held = self._held.removeprefix(CLOSE)
        self._state = "content"
        return True

    def _emit_content(self, text: str) -> None:
        if text:
            self._follows_call = False
            self._out.append(ContentDelta(text))

    def _emit_head(self, name: str) -> None:
        self._out.append(ToolCallDelta(index=self.calls, id=self._call_id(self.calls), name=name))
        self.calls += 1
        self._follows_call = True

    def _emit_written_call(self, body: str) -> bool:
        """Emit a whole block's call, whatever the order of its keys; False: it is none."""
        try:
            written = msgspec.json.decode(body, type=_WrittenCall)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return False
        arguments = _arguments_text(bytes(written.arguments or written.parameters))
        if not written.name or arguments is None:
            return False
        self._emit_head(written.name)
        self._out.append(ToolCallDelta(index=self.calls - 1, arguments=arguments))
        return True


class _ObjectScanner:
    """Follows the arguments object to its end, and the call's object around it to its end."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._past_arguments = False
        self.done = False

    def feed(self, text: str) -> tuple[str, str]:
        """The arguments' text in `text`, and what of it is to be fed again (or is left over)."""
        at = 0
        end = -1 if not self._past_arguments else 0
        while not self.done:
            found = (_INSIDE_STRING if self._in_string else _OUTSIDE_STRING).search(text, at)
            if found is None:
                at = len(text)
                break
            at = found.start()
            step = self._step(text, at)
            if step == 0:
                break
            at += step
            if self._past_arguments and end < 0:
                end = at
        return text[: at if end < 0 else end], text[at:]

    def _step(self, text: str, at: int) -> int:
        """Take the character at `at`; how many were consumed, 0 if more text must come first."""
        character = text[at]
        if character == "\\":
            return 2 if at + 1 < len(text) else 0
        if character == '"':
            self._in_string = not self._in_string
        elif character in "{[":
            self._depth += 1
        elif character == "<":
            return self._mark(text[at : at + len(CLOSE)])
        else:
            self._depth -= 1
            self._past_arguments = self._past_arguments or self._depth <= 0
            self.done = self._depth < 0
        return 1

    def _mark(self, text: str) -> int:
        """A `<` outside strings: the end of a block whose JSON is broken, or just a character."""
        if text == CLOSE:
            self.done = True
            return 0
        return 0 if CLOSE.startswith(text) else 1


def _decoded_name(quoted: str) -> str:
    try:
        return msgspec.json.decode(quoted, type=str)
    except (msgspec.MsgspecError, UnicodeError):
        return ""


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
