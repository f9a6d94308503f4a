"""Anthropic's requests as canonical ones, and a generation's output in Anthropic's shapes."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import msgspec
import pytest
from msgspec import structs

from balancer.dispatch.sink import Outcome
from balancer.errors import InvalidRequest
from balancer.http.anthropic.answer import GatheredMessage, MessageEvents, whole_message
from balancer.http.anthropic.output_form import grammar_param
from balancer.http.anthropic.schema import EXPECTED, MessagesRequest
from balancer.http.anthropic.translate import MAX_BLOCKS, messages_request
from balancer.http.body import decode_json
from balancer.http.call_arguments import MAX_ARGUMENT_DEPTH
from balancer.http.shape import AnswerHead
from protocol.chat import (
    FunctionCall,
    FunctionDefinition,
    ImagePart,
    Message,
    TextPart,
    Tool,
    ToolCall,
)
from protocol.generation import (
    ContentDelta,
    GenerationRequest,
    ReasoningDelta,
    StepDelta,
    Timings,
    ToolCallDelta,
    Usage,
)
from protocol.grammar import Grammar

HI = [{"role": "user", "content": "hi"}]
PNG = b"\x89PNG and so on"
SOURCE = {"type": "base64", "media_type": "image/png", "data": b64encode(PNG).decode()}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
KEEP_ALL = {"type": "clear_thinking_20251015", "keep": "all"}
"""What coding assistants always send: that no thinking be cleared."""
WEATHER = {"name": "weather", "description": "Of a city.", "input_schema": SCHEMA}
TEXT_BLOCK = {"type": "text", "text": "a"}
DOCUMENT = {
    "type": "document",
    "source": {"type": "text", "media_type": "text/plain", "data": "All may."},
}
HEAD = AnswerHead(
    id="msg_1", created=1, model="demo", request_id="req_1", prompt_tokens=7, cached_tokens=2
)
OUTCOME = Outcome(
    finish_reason="stop",
    stop_sequence=None,
    usage=Usage(prompt_tokens=7, completion_tokens=4, cached_tokens=2),
    timings=Timings(),
    agent="one",
    attempts=1,
    queue_ms=0.0,
    ttft_ms=1.0,
    total_ms=2.0,
)
_DECODER = msgspec.json.Decoder(MessagesRequest)


def asked(**fields: Any) -> GenerationRequest:
    return messages_request(decoded(fields), seed=4)


def decoded(fields: dict[str, Any]) -> MessagesRequest:
    data = msgspec.json.encode({"max_tokens": 50, "messages": HI, **fields})
    return decode_json(data, _DECODER, max_depth=64, expected=EXPECTED)


def refused(**fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as refusal:
        asked(**fields)
    return refusal.value


def turn(*blocks: Any, role: str = "user") -> list[dict[str, Any]]:
    return [{"role": role, "content": list(blocks)}]


# --- what is asked ---


def test_the_least_request_has_neutral_sampling_and_does_not_think() -> None:
    assert asked() == GenerationRequest(
        messages=(Message(role="user", content="hi"),),
        max_tokens=50,
        enable_thinking=False,
        seed=4,
    )


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        ({"model": "claude-x"}, {"model": "claude-x"}),
        ({"temperature": 0}, {"temperature": 0.0}),
        ({"top_p": 0.5}, {"top_p": 0.5}),
        ({"top_k": 40}, {"top_k": 40}),
        ({"stop_sequences": ["a", "b"]}, {"stop": ("a", "b")}),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, {"enable_thinking": True}),
        ({"thinking": {"type": "disabled"}}, {"enable_thinking": False}),
        ({"thinking": {"type": "adaptive", "display": "summarized"}}, {"enable_thinking": True}),
        ({"metadata": {"user_id": "me"}, "service_tier": "auto"}, {}),
        ({"cache_control": {"type": "ephemeral"}, "speed": "standard", "fallbacks": []}, {}),
        ({"billing_policy": {"type": "billing_policy", "bill_to": "self"}}, {}),
        ({"context_management": {"edits": []}, "mcp_servers": [], "diagnostics": None}, {}),
        (
            {"context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}},
            {},
        ),
        (
            {"output_format": {"type": "json_schema", "schema": SCHEMA}},
            {"grammar": Grammar(kind="json_schema", text=msgspec.json.encode(SCHEMA).decode())},
        ),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
            {"grammar": Grammar(kind="json_schema", text=msgspec.json.encode(SCHEMA).decode())},
        ),
        ({"output_config": {"effort": "high", "format": None}, "output_format": None}, {}),
        ({"context_management": {"edits": [KEEP_ALL, {**KEEP_ALL, "keep": {"type": "all"}}]}}, {}),
        ({"context_management": {}}, {}),
    ],
)
def test_a_parameter_arrives(given: dict[str, Any], canonical: dict[str, Any]) -> None:
    assert asked(**given) == structs.replace(asked(), **canonical)


def test_a_schema_under_its_old_name_is_not_lost_beside_an_output_config() -> None:
    form = {"type": "json_schema", "schema": SCHEMA}
    expected = asked(output_format=form)
    assert expected.grammar is not None
    for config in ({}, {"effort": "max"}, {"format": None}, {"format": form}):
        assert asked(output_config=config, output_format=form) == expected
    other = {"type": "json_schema", "schema": {"type": "object"}}
    assert refused(output_config={"format": other}, output_format=form).param == "output_format"


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({}, "output_format"),
        ({"output_config": {"effort": "low"}}, "output_format"),
        ({"output_config": {"format": {}}}, "output_config.format"),
    ],
)
def test_a_grammar_s_fault_is_told_where_the_client_put_it(
    given: dict[str, Any], param: str
) -> None:
    assert grammar_param(decoded({"output_format": {}, **given})) == param


def test_a_system_prompt_of_several_texts_is_one_message() -> None:
    texts = [{"type": "text", "text": one, "cache_control": {"type": "ephemeral"}} for one in "ab"]
    first = (asked(system=texts).messages or ())[0]
    assert first == Message(role="system", content="a\n\nb")
    assert (asked(system="a").messages or ())[0] == Message(role="system", content="a")


def test_an_image_stays_where_it_stands() -> None:
    content = turn(
        {"type": "text", "text": "What is"},
        {"type": "image", "source": SOURCE},
        {"type": "text", "text": "this?"},
    )
    parts = (TextPart(text="What is"), ImagePart(data=PNG), TextPart(text="this?"))
    assert asked(messages=content).messages == (Message(role="user", content=parts),)


def test_a_document_of_text_is_shown_with_its_title_and_context() -> None:
    full = {**DOCUMENT, "title": "Law", "context": "Of 1900.", "citations": {"enabled": False}}
    other = {"type": "document", "source": {"type": "content", "content": "Know all."}}
    request = asked(messages=turn(full, DOCUMENT, other, TEXT_BLOCK))
    assert request.messages == (
        Message(role="user", content="Law\nOf 1900.\nAll may.\nAll may.\nKnow all.\na"),
    )


def test_a_loop_with_a_tool_comes_over_whole() -> None:
    history = [
        *HI,
        *turn(
            {"type": "thinking", "thinking": "hm", "signature": "x"},
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Oslo"}},
            role="assistant",
        ),
        *turn(
            {"type": "tool_result", "tool_use_id": "t1", "content": "rain"},
            {"type": "text", "text": "And now?"},
        ),
    ]
    request = asked(messages=history, tools=[WEATHER])
    call = ToolCall(id="t1", function=FunctionCall(name="weather", arguments='{"city":"Oslo"}'))
    assert request.messages == (
        Message(role="user", content="hi"),
        Message(role="assistant", content="I look.", tool_calls=(call,), reasoning_content="hm"),
        Message(role="tool", tool_call_id="t1", content="rain"),
        Message(role="user", content="And now?"),
    )
    function = FunctionDefinition(name="weather", description="Of a city.", parameters=SCHEMA)
    assert request.tools == (Tool(function=function),)


def test_a_tools_failure_and_its_parts_are_told() -> None:
    blocks = [{"type": "text", "text": "no"}, {"type": "text", "text": "such city"}]
    result = {"type": "tool_result", "tool_use_id": "t1", "content": blocks, "is_error": True}
    assert asked(messages=turn(result)).messages == (
        Message(role="tool", tool_call_id="t1", content="Error: no\nsuch city"),
    )


def test_without_choice_no_tools_are_offered() -> None:
    assert asked(tools=[WEATHER], tool_choice={"type": "none"}).tools == ()
    assert len(asked(tools=[WEATHER], tool_choice={"type": "auto"}).tools) == 1


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": 1.5}, "temperature"),
        ({"mcp_servers": [{}]}, "mcp_servers"),
        ({"container": "c1"}, "container"),
        ({"diagnostics": {"previous_message_id": "m1"}}, "diagnostics"),
        ({"inference_geo": "us"}, "inference_geo"),
        ({"service_tier": "priority"}, "service_tier"),
        ({"speed": "fast"}, "speed"),
        ({"compaction": {}}, "compaction"),
        ({"fallbacks": "default"}, "fallbacks"),
        ({"fallback_credit_token": "t"}, "fallback_credit_token"),
        ({"thread": {"type": "create"}}, "thread"),
        ({"billing_policy": {"bill_to": "user_profile"}}, "billing_policy"),
        ({"thinking": {"type": "enabled", "display": "omitted"}}, "thinking.display"),
        ({"messages": turn({"type": "video"})}, "messages[0].content[0].type"),
        ({"messages": turn({"type": "document"})}, "messages[0].content[0].source"),
        (
            {"messages": turn({"type": "document", "source": {"type": "text"}})},
            "messages[0].content[0].source.data",
        ),
        (
            {"messages": turn({"type": "document", "source": {"type": "base64", "data": "a"}})},
            "messages[0].content[0].source.type",
        ),
        (
            {"messages": turn({"type": "document", "source": {"type": "content", "content": []}})},
            "messages[0].content[0].source.content",
        ),
        (
            {"messages": turn({**DOCUMENT, "citations": {"enabled": True}})},
            "messages[0].content[0].citations.enabled",
        ),
        ({"messages": turn({"type": "image"})}, "messages[0].content[0].source"),
        (
            {"messages": turn({"type": "image", "source": {"type": "url", "url": "http://x"}})},
            "messages[0].content[0].source.type",
        ),
        ({"messages": turn({"type": "tool_result"})}, "messages[0].content[0].tool_use_id"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages[0].role"),
        ({"messages": [*HI, {"role": "assistant", "content": "x"}]}, "messages[1].role"),
        ({"tools": [{"type": "web_search_20250305", "name": "w"}]}, "tools[0].type"),
        ({"tools": [{}]}, "tools[0].name"),
        ({"tool_choice": {"type": "sometimes"}}, "tool_choice.type"),
        ({"thinking": {"type": "hard"}}, "thinking.type"),
        ({"thinking": {"type": "enabled", "budget_tokens": 0}}, "thinking.budget_tokens"),
        ({"output_format": {"type": "xml"}}, "output_format"),
        ({"output_config": {"effort": "low"}, "output_format": 7}, "output_format"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
        ({"output_config": "short"}, "output_config"),
        ({"output_config": {"effort": "huge"}}, "output_config.effort"),
        ({"output_config": {"effort": [1]}}, "output_config.effort"),
        ({"context_management": "all"}, "context_management"),
        ({"context_management": {"edits": KEEP_ALL}}, "context_management.edits"),
        ({"context_management": {"edits": [KEEP_ALL, 7]}}, "context_management.edits[1]"),
        (
            {"context_management": {"edits": [{"type": "clear_thinking_20251015"}]}},
            "context_management.edits[0]",
        ),
        (
            {"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}},
            "context_management.edits[0]",
        ),
        (
            {"messages": [*HI, {"role": "system", "content": [{"type": "image"}]}]},
            "messages[1].content[0].type",
        ),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(given: dict[str, Any], param: str) -> None:
    assert refused(**given).param == param


def test_what_the_system_says_in_the_middle_stays_where_it_was() -> None:
    middle = {"role": "system", "content": [{"type": "text", "text": "be brief"}]}
    assert asked(messages=[*HI, middle]).messages == (
        Message(role="user", content="hi"),
        Message(role="system", content="be brief"),
    )
    assert asked(messages=[*HI, {"role": "system", "content": "be brief"}]) == asked(
        messages=[*HI, middle]
    )


def with_result(blocks: int) -> list[dict[str, Any]]:
    """One turn that has one block, in which so many stand."""
    content = [TEXT_BLOCK] * blocks
    return turn({"type": "tool_result", "tool_use_id": "t1", "content": content})


@pytest.mark.parametrize(
    ("most", "too_many", "param"),
    [
        (
            {"messages": turn(*[TEXT_BLOCK] * MAX_BLOCKS)},
            {"messages": turn(*[TEXT_BLOCK] * (MAX_BLOCKS + 1))},
            "messages[0]",
        ),
        ({"system": [TEXT_BLOCK] * 9_999}, {"system": [TEXT_BLOCK] * 10_001}, "system"),
        ({"system": [TEXT_BLOCK] * 9_999}, {"system": [TEXT_BLOCK] * 10_000}, "messages[0]"),
        ({"messages": with_result(9_999)}, {"messages": with_result(10_000)}, "messages[0]"),
    ],
)
def test_blocks_of_the_system_prompt_and_in_results_of_tools_are_counted_too(
    most: dict[str, Any], too_many: dict[str, Any], param: str
) -> None:
    assert asked(**most).messages
    assert refused(**too_many).param == param


# --- what is answered ---

TEXT: list[StepDelta] = ['Hel"lo\n', "", " wörld €"]
TYPED: list[StepDelta] = [
    (ReasoningDelta("hm"), ContentDelta("So:")),
    (ToolCallDelta(0, "c1", "look", '{"a":'),),
    (ToolCallDelta(0, arguments="1}"), ToolCallDelta(1, "c2", "see")),
    "done",
]


def events(deltas: list[StepDelta], outcome: Outcome = OUTCOME) -> list[dict[str, Any]]:
    """The data of each event; its name is that of its type."""
    chunks = MessageEvents(HEAD)
    stream = chunks.opening() + b"".join(chunks.tokens(delta, ()) for delta in deltas)
    stream += chunks.closing(outcome, outcome)
    found = []
    for event in stream.decode().split("\n\n")[:-1]:
        name, data = event.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == "event: " + found[-1]["type"]
    return found


def gathered(deltas: list[StepDelta], outcome: Outcome = OUTCOME) -> Any:
    message = GatheredMessage()
    for delta in deltas:
        message.take(delta, ())
    choice = msgspec.Raw(msgspec.json.encode(message.choice(0, outcome)))
    return json.loads(whole_message(HEAD, [choice], outcome))


def assembled(stream: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The blocks that a client makes of a stream's events."""
    blocks: list[dict[str, Any]] = []
    for event in stream:
        match event["type"]:
            case "content_block_start":
                assert event["index"] == len(blocks)
                blocks.append(dict(event["content_block"]))
            case "content_block_delta":
                assert event["index"] == len(blocks) - 1
                delta = event["delta"]
                name = {"text_delta": "text", "thinking_delta": "thinking"}.get(delta["type"])
                if name is None:
                    blocks[-1]["json"] = blocks[-1].get("json", "") + delta["partial_json"]
                else:
                    blocks[-1][name] += delta[name]
            case "content_block_stop":
                assert event["index"] == len(blocks) - 1
    for block in blocks:
        if block["type"] == "tool_use":
            block["input"] = json.loads(block.pop("json", "{}"))
    return blocks


def test_a_stream_of_text_is_one_block_between_a_beginning_and_an_end() -> None:
    first, *between, last_but_one, last = events(TEXT)
    message = first["message"]
    assert (message["id"], message["model"], message["content"]) == ("msg_1", "demo", [])
    assert [event["type"] for event in between] == [
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
    ]
    assert last_but_one["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert last_but_one["usage"]["output_tokens"] == 4
    assert last == {"type": "message_stop"}


def test_a_stream_counts_cached_tokens_alike_at_its_beginning_and_its_end() -> None:
    stream = events(TEXT)
    for usage in (stream[0]["message"]["usage"], stream[-2]["usage"]):
        assert (usage["input_tokens"], usage["cache_read_input_tokens"]) == (5, 2)


@pytest.mark.parametrize("deltas", [TEXT, TYPED, []])
def test_a_stream_holds_the_blocks_of_the_same_message_in_one_piece(
    deltas: list[StepDelta],
) -> None:
    assert assembled(events(deltas)) == gathered(deltas)["content"]


def test_thoughts_text_and_calls_are_blocks_in_their_order() -> None:
    assert gathered(TYPED)["content"] == [
        {"type": "thinking", "thinking": "hm", "signature": ""},
        {"type": "text", "text": "So:"},
        {"type": "tool_use", "id": "c1", "name": "look", "input": {"a": 1}},
        {"type": "tool_use", "id": "c2", "name": "see", "input": {}},
        {"type": "text", "text": "done"},
    ]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, "end_turn"),
        ({"stop_sequence": "x"}, "stop_sequence"),
        ({"finish_reason": "length"}, "max_tokens"),
        ({"finish_reason": "tool_calls"}, "tool_use"),
    ],
)
def test_why_it_stopped_is_said_in_their_words(changes: dict[str, Any], reason: str) -> None:
    outcome = structs.replace(OUTCOME, **changes)
    assert gathered(TEXT, outcome)["stop_reason"] == reason
    assert events(TEXT, outcome)[-2]["delta"]["stop_reason"] == reason


def test_a_call_that_was_cut_short_keeps_its_text() -> None:
    deltas: list[StepDelta] = [(ToolCallDelta(0, "c1", "look", '{"a":'),)]
    (block,) = gathered(deltas)["content"]
    assert block["input"] == {"partial_json": '{"a":'}


@pytest.mark.parametrize(
    "text",
    [
        "[1]",
        "7",
        "null",
        '{"a":' * 20_000,
        '{"a":' + "[" * MAX_ARGUMENT_DEPTH + "]" * MAX_ARGUMENT_DEPTH + "}",
        '{"a":"\\ud800"}',
    ],
)
def test_arguments_that_are_too_deep_or_no_object_are_an_answer_all_the_same(text: str) -> None:
    (block,) = gathered([(ToolCallDelta(0, "c1", "look", text),)])["content"]
    assert block["input"] == {"partial_json": text}
