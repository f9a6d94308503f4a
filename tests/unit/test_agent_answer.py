"""An agent puts together the message that its client will send back."""

from __future__ import annotations

from agent.chat.answer import answer_of
from protocol.chat import FunctionCall, Message, ToolCall
from protocol.generation import ContentDelta, ReasoningDelta, StepDelta, ToolCallDelta


def test_plain_pieces_are_the_content() -> None:
    assert answer_of(["Hel", "", "lo"]) == Message(role="assistant", content="Hello")


def test_nothing_is_an_empty_message() -> None:
    assert answer_of([]) == Message(role="assistant")


def test_reasoning_content_and_calls_are_gathered_each_for_itself() -> None:
    deltas: list[StepDelta] = [
        (ReasoningDelta("h"),),
        (ReasoningDelta("m"), ContentDelta("So")),
        ":",
        (ToolCallDelta(index=0, id="c0", name="port", arguments='{"a"'),),
        (
            ToolCallDelta(index=0, arguments=":1}"),
            ToolCallDelta(index=1, id="c1", name="host", arguments="{}"),
        ),
    ]
    assert answer_of(deltas) == Message(
        role="assistant",
        content="So:",
        reasoning_content="hm",
        tool_calls=(
            ToolCall(id="c0", function=FunctionCall(name="port", arguments='{"a":1}')),
            ToolCall(id="c1", function=FunctionCall(name="host", arguments="{}")),
        ),
    )
