"""What a request may take, before anybody has counted it."""

from __future__ import annotations

from balancer.policy.limits.estimate import most_tokens, prompt_estimate, text_estimate
from protocol.chat import (
    FunctionCall,
    FunctionDefinition,
    ImagePart,
    Message,
    TextPart,
    Tool,
    ToolCall,
)
from protocol.generation import GenerationRequest


def of(*messages: Message, tools: tuple[Tool, ...] = ()) -> int:
    return prompt_estimate(GenerationRequest(messages=messages, tools=tools))


def test_tokens_that_are_given_are_counted_and_texts_estimated() -> None:
    assert prompt_estimate(GenerationRequest(prompt=(1, 2, 3))) == 3
    assert prompt_estimate(GenerationRequest(prompt="x" * 30, suffix="y" * 6)) == 12
    assert text_estimate("\ud800") == 1  # half a character, as JSON may hold


def test_everything_that_a_turn_holds_counts() -> None:
    plain = of(Message(role="user", content="x" * 300))
    assert 100 < plain < 130
    assert of(Message(role="assistant", reasoning_content="x" * 300)) >= plain
    call = ToolCall(function=FunctionCall(name="f", arguments="x" * 300))
    assert of(Message(role="assistant", tool_calls=(call,))) >= plain
    parts = (TextPart(text="x" * 300), ImagePart(data=b"i"))
    assert of(Message(role="user", content=parts)) >= plain + 1000
    tool = Tool(function=FunctionDefinition(name="f", description="x" * 300))
    assert of(Message(role="user", content="x" * 300), tools=(tool,)) > plain + 100


def test_no_text_has_more_tokens_than_the_most() -> None:
    assert most_tokens(["héllo", (1, 2)]) == (6 + 2) + (2 + 2)
