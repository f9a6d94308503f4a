"""An answer as its client has it, put together from deltas."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from protocol.chat import FunctionCall, Message, ToolCall
from protocol.generation import ContentDelta, ReasoningDelta, StepDelta, ToolCallDelta


@dataclass(slots=True)
class _GatheredCall:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


def answer_of(deltas: Iterable[StepDelta]) -> Message:
    """The assistant's message that these deltas make, tool calls in the order of their indexes."""
    content: list[str] = []
    reasoning: list[str] = []
    calls: dict[int, _GatheredCall] = {}
    for delta in deltas:
        for part in (ContentDelta(delta),) if isinstance(delta, str) else delta:
            match part:
                case ContentDelta(text):
                    content.append(text)
                case ReasoningDelta(text):
                    reasoning.append(text)
                case ToolCallDelta(index, call_id, name, arguments):
                    call = calls.setdefault(index, _GatheredCall())
                    call.id, call.name = call.id or call_id, call.name or name
                    call.arguments.append(arguments)
    return Message(
        role="assistant",
        content="".join(content) or None,
        reasoning_content="".join(reasoning) or None,
        tool_calls=tuple(_tool_call(call) for _, call in sorted(calls.items())),
    )


def _tool_call(call: _GatheredCall) -> ToolCall:
    function = FunctionCall(name=call.name, arguments="".join(call.arguments))
    return ToolCall(id=call.id, function=function)
