"""From engine text to typed deltas; above all: what comes out depends on the text alone."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.chat.output import OutputFormat, OutputParser, joined, parser_for, tool_call_id
from protocol.generation import (
    ContentDelta,
    ReasoningDelta,
    StepDelta,
    ToolCallDelta,
    TypedDelta,
    emitted_chars,
)

BOTH = OutputFormat(reasoning="think", tool_calls="hermes")
TOOLS = frozenset({"f", "g", "get_port", "write"})
CALL = '<tool_call>\n{"name": "get_port", "arguments": {"of": "api"}}\n</tool_call>'


def parser(
    output_format: OutputFormat = BOTH, *, prompt: str = "", with_tools: bool = True
) -> OutputParser:
    tools = TOOLS if with_tools else frozenset[str]()
    return parser_for(output_format, prompt, tools=tools, seed=7, trace_id="req_1")


def parsed(text: str, cuts: tuple[int, ...] = (), **kind: Any) -> tuple[TypedDelta, ...]:
    """Everything that comes out of a text, cut as told, its end included."""
    target = parser(**kind)
    borders = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    whole: StepDelta = ""
    for start, end in pairwise(borders):
        whole = joined(whole, target.feed(text[start:end], tokens=1))
    whole = joined(whole, target.finish())
    if isinstance(whole, str):
        return (ContentDelta(whole),) if whole else ()
    return whole


def call(index: int, name: str, arguments: str) -> list[TypedDelta]:
    return [
        ToolCallDelta(index=index, id=tool_call_id("req_1", 7, index), name=name),
        ToolCallDelta(index=index, arguments=arguments),
    ]


def test_text_without_blocks_is_content_as_it_stands() -> None:
    assert parsed("  Hello,\n <b>you</b> \n") == (ContentDelta("  Hello,\n <b>you</b> \n"),)


def test_a_thought_is_told_from_the_answer_and_both_lose_the_space_around_the_block() -> None:
    text = "\n<think>\nTwo and two.\n</think>\n\nFour. "
    assert parsed(text) == (ReasoningDelta("Two and two."), ContentDelta("Four. "))


def test_the_block_may_have_been_opened_by_the_template() -> None:
    deltas = parsed("hm\n</think>\n\nFour.", prompt="<|im_start|>assistant\n<think>\n")
    assert deltas == (ReasoningDelta("hm"), ContentDelta("Four."))


def test_a_block_that_the_template_closed_again_is_not_open() -> None:
    deltas = parsed("Four.", prompt="<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert deltas == (ContentDelta("Four."),)


def test_a_thought_that_never_ends_is_all_reasoning() -> None:
    assert parsed("<think> a </thin \n") == (ReasoningDelta("a </thin"),)


def test_think_later_than_the_start_is_content() -> None:
    assert parsed("Write <think> first.") == (ContentDelta("Write <think> first."),)


def test_an_empty_thought_leaves_no_trace() -> None:
    assert parsed("<think>\n\n</think>\n\nFour.") == (ContentDelta("Four."),)


def test_a_tool_call_is_streamed_head_first() -> None:
    assert list(parsed(CALL)) == call(0, "get_port", '{"of": "api"}')


def test_nothing_comes_out_around_and_between_tool_calls() -> None:
    text = f"I will look.\n{CALL}\n{CALL}\n"
    deltas = [ContentDelta("I will look."), *call(0, "get_port", '{"of": "api"}')]
    assert list(parsed(text)) == [*deltas, *call(1, "get_port", '{"of": "api"}')]


def test_the_arguments_come_out_while_they_are_written() -> None:
    target = parser()
    target.feed('<tool_call>{"name": "write", "arguments": {"te', tokens=1)
    assert target.feed('xt": "ab', tokens=1) == (ToolCallDelta(index=0, arguments='xt": "ab'),)


@pytest.mark.parametrize(
    "arguments",
    ['{"a": "}</tool_call>{"}', '{"a": {"b": [1, {"c": "\\"]"}]}}', "{}", '{"a":"\\\\"}'],
)
def test_arguments_may_hold_anything_that_json_may(arguments: str) -> None:
    text = '<tool_call>{"name": "f", "arguments": ' + arguments + "}</tool_call>"
    assert list(parsed(text)) == call(0, "f", arguments)


@pytest.mark.parametrize(
    ("body", "arguments"),
    [
        ('{"arguments": {"a": 1}, "name": "f"}', '{"a": 1}'),
        ('{"name": "f", "parameters": {"a": 1}}', '{"a": 1}'),
        ('{"name": "f"}', "{}"),
        ('{"name": "f", "arguments": "{\\"a\\": 1}"}', '{"a": 1}'),
        ('{"name": "f", "arguments": {"a": 1}, "id": 3}', '{"a": 1}'),
        ('{"name": "f", "arguments": {"a": 1}', '{"a": 1}'),
    ],
)
def test_a_call_may_be_written_in_other_ways(body: str, arguments: str) -> None:
    assert list(parsed(f"<tool_call>\n{body}\n</tool_call>")) == call(0, "f", arguments)


@pytest.mark.parametrize(
    "block",
    [
        "<tool_call>\nget_port(api)\n</tool_call>",
        '<tool_call>{"name": "f", "arguments": {broken}}</tool_call>',
        '<tool_call>{"name": "", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "f", "arguments": 5}</tool_call>',
        '<tool_call>{"name": "\\ud800", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "f", "argu',
        "<tool_call>",
        "<tool_ca",
    ],
)
def test_a_call_that_does_not_parse_comes_out_as_text(block: str) -> None:
    assert parsed(f"Well:\n{block}") == (ContentDelta(f"Well:\n{block}"),)


def test_text_after_a_call_is_content() -> None:
    assert list(parsed(f"{CALL}\nDone. ")) == [
        *call(0, "get_port", '{"of": "api"}'),
        ContentDelta("Done. "),
    ]


def test_a_call_the_model_forgot_to_close_is_a_call() -> None:
    text = CALL.removesuffix("</tool_call>") * 2
    assert list(parsed(text)) == [
        *call(0, "get_port", '{"of": "api"}'),
        *call(1, "get_port", '{"of": "api"}'),
    ]


def test_without_tools_on_offer_a_call_is_text() -> None:
    assert parsed(CALL, with_tools=False) == (ContentDelta(CALL),)


def test_a_thought_may_speak_of_calls() -> None:
    deltas = parsed(f"<think>{CALL}</think>{CALL}")
    assert list(deltas) == [ReasoningDelta(CALL), *call(0, "get_port", '{"of": "api"}')]


def test_a_stop_with_a_call_is_tool_calls_and_other_ends_stay_what_they_are() -> None:
    with_call, without = parser(), parser()
    with_call.feed(CALL, tokens=1)
    without.feed("Hello", tokens=1)
    assert with_call.finish_reason("stop") == "tool_calls"
    assert with_call.finish_reason("length") == "length"
    assert without.finish_reason("stop") == "stop"


def test_call_ids_are_the_same_wherever_the_generation_goes_on_and_differ_otherwise() -> None:
    assert tool_call_id("t", 1, 0) == tool_call_id("t", 1, 0)
    others = {tool_call_id("t", 1, 1), tool_call_id("t", 2, 0), tool_call_id("u", 1, 0)}
    assert tool_call_id("t", 1, 0) not in others
    assert len(others) == 3


def test_the_tokens_of_the_block_are_counted_as_reasoning() -> None:
    target = parser()
    for token in ("<think>", "\n", "hm", "</think>", "\n\n", "Four", "."):
        target.feed(token, tokens=1)
    assert target.reasoning_tokens == 4


def test_emitted_characters_are_those_of_every_text_but_the_call_ids() -> None:
    assert emitted_chars("abc") == 3
    delta = (ReasoningDelta("ab"), *call(0, "f", "{}"), ContentDelta("c"))
    assert emitted_chars(delta) == 6


def test_the_format_follows_from_the_template() -> None:
    assert OutputFormat.of_template("{{ '<think>' }}") == OutputFormat(reasoning="think")
    assert OutputFormat.of_template("<tool_call>").revision == "calls:hermes-2"
    assert OutputFormat.of_template("plain").revision == "plain"
    assert BOTH.revision == "reasoning:think-2+calls:hermes-2"


_PIECES = st.sampled_from(
    [
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        '{"name": "f", "arguments": ',
        '{"a": 1}',
        '{"b": "<',
        '"}',
        "}",
        "{",
        "\\",
        '"',
        "\n",
        " ",
        "<",
        "</",
        "tool_call>",
        "text",
        "ä",
        "[",
        "]",
        '{"arguments": {}, "name": "g"}',
    ]
)
_TEXTS = st.lists(_PIECES, max_size=24).map("".join)
_PROMPTS = st.sampled_from(["", "<think>\n"])


@given(text=_TEXTS, cuts=st.lists(st.integers(0, 500), max_size=30).map(tuple), prompt=_PROMPTS)
@example(text=CALL, cuts=tuple(range(len(CALL))), prompt="")
def test_what_comes_out_never_depends_on_how_the_text_was_cut(
    text: str, cuts: tuple[int, ...], prompt: str
) -> None:
    assert parsed(text, cuts, prompt=prompt) == parsed(text, prompt=prompt)


@given(text=_TEXTS, cuts=st.lists(st.integers(0, 500), max_size=30).map(tuple), prompt=_PROMPTS)
def test_what_has_come_out_after_some_text_depends_on_that_text_alone(
    text: str, cuts: tuple[int, ...], prompt: str
) -> None:
    in_pieces = parser(prompt=prompt)
    borders = sorted({0, *(cut % (len(text) + 1) for cut in cuts), len(text)})
    emitted: StepDelta = ""
    for start, end in pairwise(borders):
        emitted = joined(emitted, in_pieces.feed(text[start:end], tokens=1))
        assert emitted == parser(prompt=prompt).feed(text[:end], tokens=1)


@given(text=_TEXTS)
def test_the_arguments_of_whole_calls_are_json_or_what_the_model_wrote(text: str) -> None:
    whole = f'<tool_call>{{"name": "f", "arguments": {json.dumps({"a": text})}}}</tool_call>'
    assert list(parsed(whole)) == call(0, "f", json.dumps({"a": text}))
