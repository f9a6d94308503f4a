"""OpenAI's requests for responses as canonical ones, and what answers repeat of them."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from openai.types.responses import ResponseItem
from pydantic import TypeAdapter

from balancer.errors import InvalidRequest
from balancer.http.body import decode_json
from balancer.http.responses.items import MAX_PARTS, items_in, kept_items, messages_of
from balancer.http.responses.schema import EXPECTED, InputTokensRequest, ItemIn, ResponseRequest
from balancer.http.responses.translate import count_question, repeated_fields, response_request
from protocol.chat import (
    FunctionCall,
    FunctionDefinition,
    ImagePart,
    Message,
    NamedTool,
    TextPart,
    Tool,
    ToolCall,
)
from protocol.generation import MAX_MESSAGES, GenerationRequest
from protocol.grammar import Grammar

PNG = b"\x89PNG and so on"
DATA_URL = "data:image/png;base64," + b64encode(PNG).decode()
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
SCHEMA_FORMAT = {"type": "json_schema", "name": "place", "schema": SCHEMA, "strict": True}
WEATHER = {"type": "function", "name": "weather", "description": "Here.", "parameters": SCHEMA}
CALL = {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"}
RESULT = {"type": "function_call_output", "call_id": "c1", "output": "rain"}
THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": [], "content": [
    {"type": "reasoning_text", "text": "hm"}
]}  # fmt: skip
CALLED = ToolCall(id="c1", function=FunctionCall(name="weather", arguments="{}"))
_LISTED: TypeAdapter[Any] = TypeAdapter(ResponseItem)
_DECODER = msgspec.json.Decoder(ResponseRequest)


def decoded(**fields: Any) -> ResponseRequest:
    data = msgspec.json.encode({"input": "hi", **fields})
    return decode_json(data, _DECODER, max_depth=64, expected=EXPECTED)


def asked(history: tuple[ItemIn, ...] = (), **fields: Any) -> GenerationRequest:
    return response_request(decoded(**fields), history, seed=4)


def refused(**fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as refusal:
        asked(**fields)
    return refusal.value


def messages(*items: Any) -> list[Message]:
    return list(asked(input=list(items)).messages or ())


def said(text: str) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": []}
    return {"type": "message", "role": "assistant", "content": [part], "status": "completed"}


# --- what is asked ---


def test_a_text_is_a_message_of_the_user() -> None:
    assert asked() == GenerationRequest(messages=(Message(role="user", content="hi"),), seed=4)


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        ({"model": "gpt-x"}, {"model": "gpt-x"}),
        ({"temperature": 0}, {"temperature": 0.0}),
        ({"top_p": 0.5}, {"top_p": 0.5}),
        ({"max_output_tokens": 9}, {"max_tokens": 9}),
        ({"top_logprobs": 3}, {"top_logprobs": 3}),
        ({"include": ["message.output_text.logprobs"]}, {"top_logprobs": 0}),
        ({"include": ["reasoning.encrypted_content"]}, {}),
        (
            {"reasoning": {"effort": "none"}},
            {"enable_thinking": False, "template_arguments": {"reasoning_effort": "none"}},
        ),
        (
            {"reasoning": {"effort": "high", "summary": "auto"}},
            {"enable_thinking": True, "template_arguments": {"reasoning_effort": "high"}},
        ),
        ({"reasoning": {}}, {}),
        ({"text": {"format": {"type": "text"}, "verbosity": "medium"}}, {}),
        ({"text": {"format": {"type": "json_object"}}}, {"grammar": Grammar(kind="json_object")}),
        (
            {"text": {"format": SCHEMA_FORMAT}},
            {"grammar": Grammar(kind="json_schema", text=msgspec.json.encode(SCHEMA).decode())},
        ),
        ({"tools": [WEATHER], "tool_choice": "none"}, {}),
        (
            {
                "metadata": {"a": "b"}, "user": "me", "safety_identifier": "s", "store": False,
                "prompt_cache_key": "k", "prompt_cache_retention": "24h", "background": False,
                "truncation": "disabled", "service_tier": "auto", "max_tool_calls": None,
                "parallel_tool_calls": True, "stream_options": {"include_obfuscation": False},
            },
            {},
        ),
    ],
)  # fmt: skip
def test_a_parameter_arrives(given: dict[str, Any], canonical: dict[str, Any]) -> None:
    assert asked(**given) == structs.replace(asked(), **canonical)


def test_instructions_come_first() -> None:
    first, second = asked(instructions="Be brief.").messages or ()
    assert (first, second.role) == (Message(role="system", content="Be brief."), "user")


def test_a_tool_is_offered() -> None:
    function = FunctionDefinition(name="weather", description="Here.", parameters=SCHEMA)
    assert asked(tools=[WEATHER], tool_choice="auto").tools == (Tool(function=function),)


@pytest.mark.parametrize(
    ("given", "choice"),
    [
        ("auto", "auto"),
        (None, "auto"),
        ("required", "required"),
        ({"type": "function", "name": "weather"}, NamedTool(name="weather")),
    ],
)
def test_which_tool_is_called_can_be_said_and_is_repeated(given: Any, choice: Any) -> None:
    fields = {"tools": [WEATHER], "tool_choice": given, "parallel_tool_calls": False}
    request = asked(**fields)
    assert (request.tool_choice, request.parallel_tool_calls) == (choice, False)
    repeated = repeated_fields(decoded(**fields))
    assert (repeated["tool_choice"], repeated["parallel_tool_calls"]) == (given or "auto", False)


def test_easy_messages_and_full_ones_say_the_same() -> None:
    easy = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "hi"}]
    full = [
        {"type": "message", "role": one["role"], "content": [
            {"type": "input_text", "text": one["content"]}
        ]}
        for one in easy
    ]  # fmt: skip
    assert messages(*easy) == messages(*full)
    assert [one.role for one in messages(*easy)] == ["developer", "user"]


def test_an_image_stays_where_it_stands() -> None:
    parts = [
        {"type": "input_text", "text": "What is"},
        {"type": "input_image", "image_url": DATA_URL, "detail": "auto"},
        {"type": "input_text", "text": "this?"},
    ]
    content = (TextPart(text="What is"), ImagePart(data=PNG), TextPart(text="this?"))
    assert messages({"role": "user", "content": parts}) == [Message(role="user", content=content)]


def test_what_is_thought_said_and_called_until_an_answer_is_one_turn() -> None:
    second = {**CALL, "call_id": "c2"}
    assert messages(THOUGHT, said("I look."), CALL, second, RESULT, said("Rain.")) == [
        Message(
            role="assistant",
            content="I look.",
            tool_calls=(CALLED, structs.replace(CALLED, id="c2")),
            reasoning_content="hm",
        ),
        Message(role="tool", tool_call_id="c1", content="rain"),
        Message(role="assistant", content="Rain."),
    ]


def test_a_call_alone_has_no_content_and_words_behind_it_are_of_its_turn() -> None:
    assert messages(CALL, RESULT)[0] == Message(role="assistant", tool_calls=(CALLED,))
    (turn, _) = messages(CALL, said("Wait."), RESULT)
    assert turn == Message(role="assistant", content="Wait.", tool_calls=(CALLED,))


def test_two_messages_in_a_row_are_two_turns() -> None:
    assert [one.content for one in messages(said("a"), said("b"), THOUGHT)] == ["a", "b", ""]
    assert messages(said("a"), THOUGHT, said("b"))[1].reasoning_content == "hm"


def test_a_summary_serves_where_thoughts_are_not_told_and_encrypted_ones_are_passed_over() -> None:
    summary = {"type": "summary_text", "text": "in short"}
    shut = {"type": "reasoning", "summary": [summary], "encrypted_content": "x"}
    assert messages(shut, said("a"))[0].reasoning_content == "in short"
    assert messages({**shut, "summary": []}, said("a")) == [Message(role="assistant", content="a")]


def test_a_tools_answer_may_have_parts_and_a_refusal_is_what_was_said() -> None:
    image = {"type": "input_image", "image_url": DATA_URL}
    result = {**RESULT, "output": [{"type": "input_text", "text": "see"}, image]}
    content = (TextPart(text="see"), ImagePart(data=PNG))
    assert messages(result) == [Message(role="tool", tool_call_id="c1", content=content)]
    no = {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}
    assert messages(no) == [Message(role="assistant", content="No.")]


def test_what_was_said_before_comes_between_instructions_and_input() -> None:
    history = (ItemIn(role="user", content="one"), ItemIn(role="assistant", content="two"))
    found = asked(history, input="three", instructions="zero").messages or ()
    assert [one.content for one in found] == ["zero", "one", "two", "three"]


ONE_USER = {"role": "user", "content": "x"}


def content(*parts: Any, role: str = "user") -> dict[str, Any]:
    return {"input": [ONE_USER, {"role": role, "content": list(parts)}]}


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": 5}, "input"),
        ({"input": [{"id": "msg_1", "type": "item_reference"}]}, "input[0].type"),
        ({"input": [{"id": "msg_1"}]}, "input[0].role"),
        ({"input": [{"type": "web_search_call", "id": "w"}]}, "input[0].type"),
        ({"input": [{"type": "computer_call_output", "output": {"a": 1}}]}, "input[0].type"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{**CALL, "call_id": None}]}, "input[0].call_id"),
        ({"input": [{**CALL, "name": ""}]}, "input[0].name"),
        ({"input": [{**CALL, "arguments": None}]}, "input[0].arguments"),
        ({"input": [{**RESULT, "call_id": None}]}, "input[0].call_id"),
        ({"input": [{**RESULT, "output": None}]}, "input[0].output"),
        ({"input": [{**RESULT, "output": {"a": 1}}]}, "input[0].output"),
        (content({"type": "input_file", "file_id": "f"}), "input[1].content[0].type"),
        (content({"type": "input_text"}), "input[1].content[0].text"),
        (content({"type": "input_image", "file_id": "f"}), "input[1].content[0].file_id"),
        (content({"type": "input_image"}), "input[1].content[0].image_url"),
        (
            content({"type": "input_image", "image_url": "http://x/y.png"}),
            "input[1].content[0].image_url",
        ),
        (
            content({"type": "input_image", "image_url": DATA_URL, "detail": "low"}),
            "input[1].content[0].detail",
        ),
        (content({"type": "output_text"}, role="assistant"), "input[1].content[0].text"),
        (content({"type": "refusal"}, role="assistant"), "input[1].content[0].refusal"),
        (content({"type": "input_image"}, role="assistant"), "input[1].content[0].type"),
        ({"input": [ONE_USER] * MAX_MESSAGES}, "input"),
        (content(*[{"type": "input_text", "text": "x"}] * (MAX_PARTS + 1)), "input"),
        ({"input": [content({"type": "input_image", "image_url": DATA_URL})["input"][1]] * 33},
         "input"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"temperature": 2.5}, "temperature"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"include": ["file_search_call.results"]}, "include[0]"),
        ({"metadata": {"a": "b" * 513}}, "metadata"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [WEATHER, WEATHER]}, "tools[1].name"),
        ({"tools": [{**WEATHER, "parameters": {"type": "array"}}]}, "tools[0].parameters.type"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": "sometimes"}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function"}}, "tool_choice.name"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "name": "x"}},
         "tool_choice.name"),
        ({"tools": [WEATHER], "tool_choice": {"type": "allowed_tools"}}, "tool_choice.type"),
        ({"reasoning": {"effort": "hard"}}, "reasoning.effort"),
        ({"reasoning": {"summary": "detailed"}}, "reasoning.summary"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "schema": SCHEMA}}}, "text.format.name"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
        ({"truncation": "auto"}, "truncation"),
        ({"background": True}, "background"),
        ({"max_tool_calls": 3}, "max_tool_calls"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"service_tier": "flex"}, "service_tier"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_by_name(given: dict[str, Any], param: str) -> None:
    assert refused(**given).param == param


def test_whatever_counts_for_a_prompt_is_the_same_when_it_is_counted() -> None:
    fields = {
        "model": "demo", "input": "hi", "instructions": "Be brief.", "tools": [WEATHER],
        "tool_choice": "required", "parallel_tool_calls": False, "truncation": "disabled",
        "reasoning": {"effort": "high"}, "text": {"format": SCHEMA_FORMAT},
    }  # fmt: skip
    body = msgspec.convert(fields, InputTokensRequest)
    question = count_question(body, [], created=3)
    request = response_request(decoded(**fields), [], seed=0)
    for name in ("model", "messages", "tools", "enable_thinking", "template_arguments"):
        assert getattr(question, name) == getattr(request, name)
    assert (question.with_count, question.with_prompt, question.created) == (True, False, 3)


@pytest.mark.parametrize("given", [{"personality": "friendly"}, {"truncation": "auto"}])
def test_what_cannot_be_counted_is_refused_by_name(given: dict[str, Any]) -> None:
    body = msgspec.convert({"input": "hi", **given}, InputTokensRequest)
    with pytest.raises(InvalidRequest) as refusal:
        count_question(body, [], created=3)
    assert refusal.value.param == next(iter(given))


# --- what is kept and repeated ---


def test_kept_items_mean_the_same_and_have_ids() -> None:
    given = [
        {"role": "user", "content": "hi"},
        {"role": "user", "content": [
            {"type": "input_text", "text": "see"},
            {"type": "input_image", "image_url": DATA_URL},
        ]},
        THOUGHT,
        said("I look."),
        CALL,
        {**RESULT, "output": [{"type": "input_text", "text": "rain"}]},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
    ]  # fmt: skip
    items = items_in(decoded(input=given).input)
    kept = kept_items(items, suffix="1")
    again = msgspec.convert(kept, list[ItemIn])
    assert messages_of((), again) == messages_of((), items)
    assert [one["id"] for one in kept] == [
        "msg_1_in0", "msg_1_in1", "rs_1", "msg_1_in3", "fc_1_in4", "fco_1_in5", "msg_1_in6",
    ]  # fmt: skip
    assert kept_items(again, suffix="2") == kept


_TEXTS = st.sampled_from(["", "a", "wörld"])
_TEXT_PARTS = st.builds(lambda text: {"type": "input_text", "text": text}, _TEXTS)
_IMAGES = st.just({"type": "input_image", "image_url": DATA_URL})
_PARTS = st.lists(st.one_of(_TEXT_PARTS, _IMAGES), max_size=3)
_SAID = st.lists(
    st.one_of(
        st.builds(lambda text: {"type": "output_text", "text": text}, _TEXTS),
        st.builds(lambda text: {"type": "refusal", "refusal": text}, _TEXTS),
    ),
    max_size=3,
)
_THOUGHTS = st.lists(st.builds(lambda text: {"type": "t", "text": text}, _TEXTS), max_size=2)
_ROLE = st.sampled_from(["user", "system", "developer"])
_ITEMS = st.one_of(
    st.fixed_dictionaries({"role": _ROLE, "content": st.one_of(_TEXTS, _PARTS)}),
    st.fixed_dictionaries({"role": st.just("assistant"), "content": st.one_of(_TEXTS, _SAID)}),
    st.fixed_dictionaries(
        {"type": st.just("reasoning"), "summary": _THOUGHTS},
        optional={"content": st.one_of(_TEXTS, _THOUGHTS), "encrypted_content": _TEXTS},
    ),
    st.just(CALL),
    st.builds(lambda output: {**RESULT, "output": output}, st.one_of(_TEXTS, _PARTS)),
)


@given(st.lists(_ITEMS, min_size=1, max_size=6))
@settings(deadline=None, max_examples=100)
def test_whatever_is_taken_is_kept_as_what_it_means_as_openai_lists_it(
    asked_items: Any,
) -> None:
    items = items_in(decoded(input=asked_items).input)
    kept = msgspec.json.encode(kept_items(items, suffix="1"))
    again = msgspec.json.decode(kept, type=list[ItemIn])
    assert messages_of((), again) == messages_of((), items)
    for one in msgspec.json.decode(kept):
        _LISTED.validate_python(one, strict=True)


def test_an_answer_repeats_what_was_asked_and_what_holds_where_nothing_was() -> None:
    least = repeated_fields(decoded())
    assert (least["temperature"], least["top_p"], least["tool_choice"]) == (1.0, 1.0, "auto")
    assert (least["text"]["format"], least["store"]) == ({"type": "text"}, True)
    whole = repeated_fields(
        decoded(
            instructions="i",
            tools=[WEATHER],
            temperature=0.5,
            text={"format": SCHEMA_FORMAT},
            metadata={"a": "b"},
            reasoning={"effort": "low"},
            store=False,
        )
    )
    assert whole["text"]["format"] == SCHEMA_FORMAT
    assert whole["tools"] == [{**WEATHER, "strict": None}]
    assert whole["reasoning"] == {"effort": "low", "summary": None}
    assert (whole["metadata"], whole["store"], whole["temperature"]) == ({"a": "b"}, False, 0.5)
