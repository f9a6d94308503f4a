"""What a model can make an agent hold back, or give out, is bounded in every format."""

from __future__ import annotations

import pytest

from agent.chat.markers import MAX_SPACE_CHARS
from agent.chat.output import OutputFormat, OutputParser, joined, parser_for
from agent.chat.tool_calls.heads import MAX_HEAD_CHARS, MAX_HELD_CHARS
from agent.chat.tool_calls.parser import MAX_CALLS
from agent.chat.tool_calls.table import TOOL_FORMATS
from protocol.generation import StepDelta, ToolCallDelta, emitted_chars

LONG = "x" * MAX_HELD_CHARS
PIECES = (1, 997)
"""Sizes of the pieces that texts come in, in characters."""


def parser(tool_calls: str = "", reasoning: str = "") -> OutputParser:
    output_format = OutputFormat(reasoning=reasoning, tool_calls=tool_calls)
    return parser_for(output_format, "", tools={"ping"}, seed=0, trace_id="t")


def fed(target: OutputParser, text: str, size: int) -> StepDelta:
    whole: list[StepDelta] = [
        target.feed(text[start : start + size], tokens=1) for start in range(0, len(text), size)
    ]
    return _joined(whole)


def _joined(deltas: list[StepDelta]) -> StepDelta:
    if all(isinstance(delta, str) for delta in deltas):
        return "".join(map(str, deltas))
    whole: StepDelta = ""
    for delta in deltas:
        whole = joined(whole, delta)
    return whole


@pytest.mark.parametrize("size", [997, 2 * MAX_HELD_CHARS])
@pytest.mark.parametrize(
    ("name", "before"),
    [
        ("hermes", '<tool_call>{"arguments": {"a": "'),
        ("mistral", '[TOOL_CALLS][{"arguments": {"a": "'),
        ("granite", '<|tool_call|>[{"arguments": {"a": "'),
        ("llama", '{"name": "ping", "parameters": {"a": "'),
        ("generic", '[{"name": "ping", "arguments": {"a": "'),
    ],
)
def test_a_call_held_back_for_too_long_is_text_and_so_is_the_rest_of_it(
    name: str, before: str, size: int
) -> None:
    target = parser(name)
    text = before + LONG
    held = fed(target, text[: MAX_HELD_CHARS - 1], size)
    assert held == ""
    assert fed(target, text[MAX_HELD_CHARS - 1 :] + '"}, "name": "ping"}]', size) != ""
    whole = parser(name)
    text += '"}, "name": "ping"}'
    assert joined(fed(whole, text, size), whole.finish()) == text


def test_streamed_arguments_are_not_held_back_however_long() -> None:
    target = parser("hermes")
    target.feed('<tool_call>{"name": "ping", "arguments": {"a": "', tokens=1)
    assert target.feed(LONG, tokens=1) == (ToolCallDelta(index=0, arguments=LONG),)


@pytest.mark.parametrize("size", PIECES)
@pytest.mark.parametrize(
    ("name", "opening"),
    [
        ("hermes", "<tool_call>"),
        ("mistral", "[TOOL_CALLS]"),
        ("mistral", "[TOOL_CALLS]["),
        ("granite", "<tool_call>"),
        ("deepseek", "<｜tool▁calls▁begin｜>"),
        ("harmony", "<|channel|>commentary to=functions."),
        ("llama", "<|python_tag|>"),
        ("generic", "```json"),
    ],
)
@pytest.mark.parametrize("filling", ["x", " "])
def test_a_call_whose_name_does_not_come_is_text_soon(
    name: str, opening: str, filling: str, size: int
) -> None:
    target = parser(name)
    text = opening + filling * (2 * MAX_HEAD_CHARS)
    emitted = fed(target, text, size)
    assert emitted_chars(emitted) >= MAX_HEAD_CHARS
    assert joined(emitted, target.finish()) == text


@pytest.mark.parametrize("size", PIECES)
@pytest.mark.parametrize(
    ("name", "call", "between"),
    [
        ("hermes", '<tool_call>{"name": "ping", "arguments": {}}</tool_call>', ""),
        ("llama", '{"name": "ping", "parameters": {}}', "; "),
        ("mistral-named", "[TOOL_CALLS]ping{}", ""),
        ("deepseek", "<｜tool▁call▁begin｜>ping<｜tool▁sep｜>{}<｜tool▁call▁end｜>", ""),
        ("harmony", "<|channel|>commentary to=functions.ping<|message|>{}<|call|>", ""),
    ],
)
def test_calls_past_the_limit_are_text(name: str, call: str, between: str, size: int) -> None:
    target = parser(name)
    text = between.join([call] * (MAX_CALLS + 2))
    whole = joined(fed(target, text, size), target.finish())
    assert not isinstance(whole, str)
    heads = [delta for delta in whole if isinstance(delta, ToolCallDelta) and delta.id]
    assert len(heads) == MAX_CALLS
    assert getattr(whole[-1], "text", "").count(call) == 2


def test_a_list_past_the_limit_is_text() -> None:
    item = '{"name": "ping", "arguments": {}}'
    target = parser("mistral")
    whole = target.feed("[TOOL_CALLS][" + ", ".join([item] * (MAX_CALLS + 1)) + "]", tokens=1)
    assert getattr(whole[-1], "text", "") == f", {item}]"


@pytest.mark.parametrize("size", PIECES)
@pytest.mark.parametrize(
    ("name", "reasoning"),
    [*((name, "") for name in TOOL_FORMATS), ("", "think"), ("harmony", "harmony")],
)
def test_a_model_that_writes_white_space_only_is_not_collected(
    name: str, reasoning: str, size: int
) -> None:
    text = "\n" * (4 * MAX_SPACE_CHARS)
    target = parser(name, reasoning)
    emitted = fed(target, text, size)
    assert emitted_chars(emitted) >= len(text) - MAX_SPACE_CHARS - 1
    assert joined(emitted, target.finish()) == text


@pytest.mark.parametrize("size", PIECES)
def test_white_space_in_a_thought_is_not_collected(size: int) -> None:
    target = parser(reasoning="think")
    emitted = fed(target, "<think>a" + " " * 4 * MAX_SPACE_CHARS, size)
    assert emitted_chars(emitted) == 1 + 3 * MAX_SPACE_CHARS


@pytest.mark.parametrize("size", PIECES)
def test_a_header_that_does_not_end_is_text(size: int) -> None:
    target = parser("harmony", "harmony")
    text = "<|channel|>" + "final " * 400
    emitted = fed(target, text, size)
    assert emitted_chars(emitted) >= MAX_HEAD_CHARS
    assert joined(emitted, target.finish()) == text
