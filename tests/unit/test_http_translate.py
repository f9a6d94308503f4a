"""OpenAI's requests as canonical ones: what is honoured, what is refused, and under which name."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import msgspec
import pytest

from balancer.errors import InvalidRequest
from balancer.http.body import decode_json
from balancer.http.openai.prompts import prompts_of
from balancer.http.openai.schema import EXPECTED, ChatCompletionRequest, CompletionRequest
from balancer.http.openai.translate import chat_request, completion_request
from protocol.chat import (
    MAX_MEDIA,
    MAX_MEDIA_BYTES,
    AudioPart,
    FunctionCall,
    ImagePart,
    Message,
    Part,
    TextPart,
    ToolCall,
)
from protocol.generation import GenerationRequest
from protocol.grammar import Grammar

SEED = 4
HI = [{"role": "user", "content": "hi"}]
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
PART = "messages[0].content[0]"
PNG = b"\x89PNG and so on"
SAMPLERS = ["penalties", "dry", "top_k", "typ_p", "top_p", "min_p", "xtc", "temperature"]
PNG_URL = "data:image/png;base64," + b64encode(PNG).decode()
_CHAT = msgspec.json.Decoder(ChatCompletionRequest)
_COMPLETION = msgspec.json.Decoder(CompletionRequest)


def part(kind: str, value: Any) -> dict[str, Any]:
    """A request whose one message is one part."""
    return {"messages": [{"role": "user", "content": [{"type": kind, kind: value}]}]}


def _chat(**fields: Any) -> GenerationRequest:
    data = msgspec.json.encode({"messages": HI, **fields})
    body = decode_json(data, _CHAT, max_depth=64, expected=EXPECTED)
    return chat_request(body, drawn_seed=SEED)


def _completion(**fields: Any) -> GenerationRequest:
    data = msgspec.json.encode({"prompt": "Once", **fields})
    body = decode_json(data, _COMPLETION, max_depth=64, expected=EXPECTED)
    return completion_request(body, prompts_of(body), drawn_seed=SEED)


def _refusal(**fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as refused:
        _chat(**fields)
    return refused.value


def test_the_least_request_has_neutral_sampling_and_the_drawn_seed() -> None:
    assert _chat() == GenerationRequest(messages=(Message(role="user", content="hi"),), seed=SEED)


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        ({"model": "org/m:7b"}, {"model": "org/m:7b"}),
        ({"temperature": 0}, {"temperature": 0.0}),
        ({"top_p": 0.5}, {"top_p": 0.5}),
        ({"top_k": 40}, {"top_k": 40}),
        ({"top_k": -1}, {"top_k": 0}),
        ({"min_p": 0.05}, {"min_p": 0.05}),
        ({"typical_p": 0.9}, {"typical_p": 0.9}),
        ({"presence_penalty": -2}, {"presence_penalty": -2.0}),
        ({"frequency_penalty": 2}, {"frequency_penalty": 2.0}),
        ({"repeat_penalty": 1.1}, {"repeat_penalty": 1.1}),
        ({"repeat_last_n": 8}, {"penalty_last_n": 8}),
        (
            {"dry_multiplier": 0.8, "dry_base": 2, "dry_allowed_length": 3},
            {"dry_multiplier": 0.8, "dry_base": 2.0, "dry_allowed_length": 3},
        ),
        (
            {"dry_penalty_last_n": 9, "dry_sequence_breakers": ["x"]},
            {"dry_penalty_last_n": 9, "dry_sequence_breakers": ("x",)},
        ),
        (
            {"xtc_probability": 0.5, "xtc_threshold": 0.2},
            {"xtc_probability": 0.5, "xtc_threshold": 0.2},
        ),
        (
            {"mirostat": 2, "mirostat_tau": 4, "mirostat_eta": 0.3},
            {"mirostat": 2, "mirostat_tau": 4.0, "mirostat_eta": 0.3},
        ),
        ({"seed": 7}, {"seed": 7}),
        ({"seed": -1}, {"seed": 2**63 - 1}),
        ({"stop": "x"}, {"stop": ("x",)}),
        ({"stop": ["x", "y"]}, {"stop": ("x", "y")}),
        ({"stop": []}, {"stop": ()}),
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"max_tokens": 5, "max_completion_tokens": 6}, {"max_tokens": 6}),
        ({"n_predict": 5}, {"max_tokens": 5}),
        ({"n_predict": -1}, {"max_tokens": None}),
        ({"max_tokens": 5, "n_predict": 6}, {"max_tokens": 5}),
        ({"min_tokens": 2}, {"min_tokens": 2}),
        ({"context_shift": True}, {"context_shift": True}),
        ({"priority": -1000}, {"priority": -1000}),
        ({"logprobs": True}, {"top_logprobs": 0}),
        ({"logprobs": True, "top_logprobs": 20}, {"top_logprobs": 20}),
        ({"logit_bias": {"5": -100}}, {"logit_bias": ((5, -100.0),)}),
        ({"ignore_eos": True}, {"ignore_eos": True}),
        (
            {"reasoning_effort": "minimal"},
            {"enable_thinking": False, "template_arguments": {"reasoning_effort": "minimal"}},
        ),
        (
            {"reasoning_effort": "high"},
            {"enable_thinking": True, "template_arguments": {"reasoning_effort": "high"}},
        ),
        (
            {"reasoning_effort": "low", "chat_template_kwargs": {"reasoning_effort": "some"}},
            {"enable_thinking": True, "template_arguments": {"reasoning_effort": "some"}},
        ),
        ({"chat_template_kwargs": {"enable_thinking": True}}, {"enable_thinking": True}),
        (
            {"reasoning_effort": "none", "chat_template_kwargs": {"date": "today"}},
            {
                "enable_thinking": False,
                "template_arguments": {"reasoning_effort": "none", "date": "today"},
            },
        ),
        ({"tools": [WEATHER], "tool_choice": "none"}, {"tools": ()}),
    ],
)
def test_a_parameter_is_honoured(given: dict[str, Any], canonical: dict[str, Any]) -> None:
    assert _chat(**given) == msgspec.structs.replace(_chat(), **canonical)


def test_a_tool_is_offered_with_its_schema_untouched() -> None:
    (tool,) = _chat(tools=[WEATHER], tool_choice="auto", parallel_tool_calls=True).tools
    assert tool.function.name == "weather"
    assert tool.function.parameters == {"type": "object"}


@pytest.mark.parametrize(
    "nothing",
    [
        {"n": 1},
        {"n": 128},
        {"store": False},
        {"service_tier": "auto"},
        {"response_format": {"type": "text"}},
        {"modalities": ["text"]},
        {"parallel_tool_calls": False},
        {"stream_options": {"include_obfuscation": True}},
        {"user": "u", "metadata": {"a": "b"}, "safety_identifier": "s"},
        {"prompt_cache_key": "k", "prompt_cache_retention": "24h"},
        {"prompt_cache_options": {"mode": "implicit", "ttl": "30m"}},
        {"id_slot": -1, "cache_prompt": True, "n_probs": 0, "n_keep": 0, "min_keep": 0},
        {"top_n_sigma": -1.0, "dynatemp_range": 0, "t_max_predict_ms": 0, "lora": []},
        {"return_tokens": False, "post_sampling_probs": False, "timings_per_token": False},
        {"samplers": SAMPLERS},
        {"samplers": [*SAMPLERS[:2], "top_n_sigma", *SAMPLERS[2:]]},
        {"function_call": "none", "functions": [], "verbosity": "medium"},
        {"nobody_knows_this": {"deep": [1]}},
        {name: None for name in ChatCompletionRequest.__struct_fields__ if name != "messages"},
    ],
)
def test_what_asks_for_nothing_is_accepted(nothing: dict[str, Any]) -> None:
    assert _chat(**nothing) == _chat()


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"tools": [{"type": "custom"}]}, "tools[0].type"),
        ({"audio": {"voice": "x"}}, "audio"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"store": True}, "store"),
        ({"store": 0}, "store"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"functions": [{}]}, "functions"),
        ({"id_slot": 0}, "id_slot"),
        ({"cache_prompt": False}, "cache_prompt"),
        ({"n_probs": 3}, "n_probs"),
        ({"samplers": ["temperature", "top_k"]}, "samplers"),
        ({"n_keep": -1}, "n_keep"),
        ({"min_keep": 2}, "min_keep"),
        ({"top_n_sigma": 1.0}, "top_n_sigma"),
        ({"dynatemp_range": 0.5}, "dynatemp_range"),
        ({"t_max_predict_ms": 500}, "t_max_predict_ms"),
        ({"return_tokens": True}, "return_tokens"),
        ({"post_sampling_probs": True}, "post_sampling_probs"),
        ({"timings_per_token": True}, "timings_per_token"),
        ({"lora": [{"id": 0, "scale": 1.0}]}, "lora"),
        ({"prediction": {"type": "content", "content": "x"}}, "prediction"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"verbosity": "low"}, "verbosity"),
        ({"moderation": {"model": "omni"}}, "moderation"),
        ({"prompt_cache_options": {"mode": "explicit"}}, "prompt_cache_options"),
        ({"function_call": {"name": "f"}}, "function_call"),
        ({"messages": [{"role": "user", "content": [{"type": "file"}]}]}, f"{PART}.type"),
        (part("image_url", {"url": PNG_URL, "detail": "low"}), f"{PART}.image_url.detail"),
        (part("input_audio", {"data": "UklGRg==", "format": "mp3"}), f"{PART}.input_audio.format"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(given: dict[str, Any], param: str) -> None:
    error = _refusal(**given)
    assert (error.code, error.param) == ("unsupported_parameter", param)
    assert error.details["parameter"] == param


def test_too_many_stop_strings_are_told_with_both_numbers() -> None:
    message = _refusal(stop=["x"] * 17).message
    assert "1 to 16 strings" in message
    assert message.endswith("got an array of 17.")


def test_a_long_value_is_told_by_its_beginning_and_its_length() -> None:
    message = _refusal(stop="x" * 1025).message
    assert f"got {'x' * 200 + '…'!r} of 1025 characters." in message


@pytest.mark.parametrize(
    ("given", "code", "param"),
    [
        ({"temperature": 2.01}, "invalid_value", "temperature"),
        ({"temperature": True}, "invalid_type", "temperature"),
        ({"top_p": -0.1}, "invalid_value", "top_p"),
        ({"max_tokens": 0}, "invalid_value", "max_tokens"),
        ({"max_tokens": "5"}, "invalid_type", "max_tokens"),
        ({"stop": [""]}, "invalid_value", "stop[0]"),
        ({"stop": ["x"] * 17}, "invalid_value", "stop"),
        ({"n": 129}, "invalid_value", "n"),
        ({"n_predict": 0}, "invalid_value", "n_predict"),
        ({"n_predict": -2}, "invalid_value", "n_predict"),
        ({"priority": 1001}, "invalid_value", "priority"),
        ({"logit_bias": {"a": 1}}, "invalid_value", "logit_bias"),
        ({"logit_bias": {"²": 1}}, "invalid_value", "logit_bias"),
        ({"top_logprobs": 21, "logprobs": True}, "invalid_value", "top_logprobs"),
        ({"reasoning_effort": "heroic"}, "invalid_value", "reasoning_effort"),
        ({"model": "a b"}, "invalid_value", "model"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "invalid_value", "messages[0].role"),
        (
            {"messages": [{"role": "user"}]},
            "missing_required_parameter",
            "messages[0].content",
        ),
        (
            {"messages": [{"role": "tool", "content": "x"}]},
            "missing_required_parameter",
            "messages[0].tool_call_id",
        ),
        ({"messages": [{"content": "x"}]}, "missing_required_parameter", "messages[0].role"),
        (part("text", None), "missing_required_parameter", f"{PART}.text"),
        (part("image_url", None), "missing_required_parameter", f"{PART}.image_url"),
        (part("input_audio", None), "missing_required_parameter", f"{PART}.input_audio"),
        (
            part("image_url", {"url": "data:image/png;base64,??"}),
            "invalid_value",
            f"{PART}.image_url.url",
        ),
        (part("image_url", "data:image/png;base64,"), "invalid_value", f"{PART}.image_url"),
        (part("image_url", "data:image/png,abc"), "invalid_value", f"{PART}.image_url"),
        (
            part("input_audio", {"data": "UklGRg=", "format": "wav"}),
            "invalid_value",
            f"{PART}.input_audio.data",
        ),
    ],
)
def test_a_wrong_value_is_refused_by_name(given: dict[str, Any], code: str, param: str) -> None:
    error = _refusal(**given)
    assert (error.code, error.param) == (code, param)


def test_every_kind_of_message_is_understood() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    request = _chat(
        messages=[
            {"role": "developer", "content": "be kind"},
            {"role": "user", "content": [{"type": "text", "text": "a"}], "name": "ann"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": "1", "tool_call_id": "c1"},
            {"role": "assistant", "content": "b", "reasoning_content": "so"},
        ]
    )
    assert request.messages == (
        Message(role="developer", content="be kind"),
        Message(role="user", content=(TextPart(text="a"),), name="ann"),
        Message(
            role="assistant",
            tool_calls=(ToolCall(id="c1", function=FunctionCall(name="f", arguments="{}")),),
        ),
        Message(role="tool", content="1", tool_call_id="c1"),
        Message(role="assistant", content="b", reasoning_content="so"),
    )


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        (part("image_url", {"url": PNG_URL}), ImagePart(data=PNG)),
        (part("image_url", {"url": PNG_URL, "detail": "high"}), ImagePart(data=PNG)),
        (part("image_url", PNG_URL.replace("data", "DATA")), ImagePart(data=PNG)),
        (part("input_audio", {"data": "UklGRg==", "format": "wav"}), AudioPart(data=b"RIFF")),
    ],
)
def test_images_and_sounds_come_with_the_request(given: dict[str, Any], canonical: Part) -> None:
    assert _chat(**given).messages == (Message(role="user", content=(canonical,)),)


@pytest.mark.parametrize(
    "url", ["https://example.org/cat.png", "file:///etc/passwd", "cat.png", ""]
)
def test_an_image_that_lies_elsewhere_is_not_fetched(url: str) -> None:
    error = _refusal(**part("image_url", {"url": url}))
    assert error.param == f"{PART}.image_url.url"
    assert "nothing is fetched from elsewhere" in str(error)


@pytest.mark.parametrize(
    ("count", "size", "is_taken"),
    [
        (MAX_MEDIA, 1, True),
        (MAX_MEDIA + 1, 1, False),
        (2, MAX_MEDIA_BYTES // 2, True),
        (2, MAX_MEDIA_BYTES // 2 + 1, False),
    ],
)
def test_what_all_images_take_together_is_bounded(count: int, size: int, *, is_taken: bool) -> None:
    url = "data:;base64," + b64encode(bytes(size)).decode()
    parts = [{"type": "image_url", "image_url": {"url": url}}] * count
    messages = [{"role": "user", "content": [part]} for part in parts]
    if is_taken:
        assert len(_chat(messages=messages).messages or ()) == count
    else:
        assert _refusal(messages=messages).param == "messages"


@pytest.mark.parametrize(
    ("prompt", "canonical"),
    [("Once", "Once"), (["Once"], "Once"), ([1, 2], (1, 2)), ([[1, 2]], (1, 2)), ("", "")],
)
def test_a_prompt_is_text_or_token_ids(prompt: Any, canonical: Any) -> None:
    assert _completion(prompt=prompt).prompt == canonical


@pytest.mark.parametrize(
    ("given", "code", "param"),
    [
        ({"prompt": None}, "missing_required_parameter", "prompt"),
        ({"prompt": []}, "invalid_type", "prompt"),
        ({"prompt": [1, "a"]}, "invalid_type", "prompt"),
        ({"prompt": [1] * (2**20 + 1)}, "invalid_value", "prompt"),
        (
            {"prompt": "a", "logit_bias": dict.fromkeys(map(str, range(10_001)), 1)},
            "invalid_value",
            "logit_bias",
        ),
        ({"prompt": [True]}, "invalid_type", "prompt"),
        ({"prompt": [-1]}, "invalid_type", "prompt"),
        ({"logprobs": 21}, "invalid_value", "logprobs"),
    ],
)
def test_a_completion_that_cannot_be_made_is_refused_by_name(
    given: dict[str, Any], code: str, param: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        _completion(**given)
    assert (refused.value.code, refused.value.param) == (code, param)


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": [{"type": "text", "text": ""}] * 5001},
        {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}] * 5001},
    ],
)
def test_more_pieces_than_the_loop_can_take_at_a_stretch_are_refused(message: Any) -> None:
    error = _refusal(messages=[message, message])
    assert (error.code, error.param) == ("invalid_value", "messages[1]")


def test_a_completion_s_empty_suffix_is_none_and_its_logprobs_a_number() -> None:
    request = _completion(suffix="", logprobs=3, max_tokens=2)
    assert (request.top_logprobs, request.max_tokens, request.messages) == (3, 2, None)


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("given", "grammar"),
    [
        ({"response_format": {"type": "text"}}, None),
        ({"grammar": ""}, None),
        ({"response_format": {"type": "json_object"}}, Grammar(kind="json_object")),
        (
            {"response_format": {"type": "json_object", "schema": SCHEMA}},
            Grammar(kind="json_schema", text=json.dumps(SCHEMA, separators=(",", ":"))),
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}},
            Grammar(kind="json_schema", text=json.dumps(SCHEMA, separators=(",", ":"))),
        ),
        (
            {"json_schema": SCHEMA},
            Grammar(kind="json_schema", text=json.dumps(SCHEMA, separators=(",", ":"))),
        ),
        ({"grammar": "root ::= [0-9]+"}, Grammar(kind="gbnf", text="root ::= [0-9]+")),
    ],
)
def test_the_form_of_the_answer_may_be_asked_for(
    given: dict[str, Any], grammar: Grammar | None
) -> None:
    assert _chat(**given).grammar == grammar


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"response_format": {}}, "response_format.type"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {}}},
            "response_format.json_schema.schema",
        ),
        (
            {"response_format": {"type": "json_object", "schema": "x"}},
            "response_format.schema",
        ),
        ({"grammar": "x" * 262_145}, "grammar"),
        ({"grammar": "root ::= x", "json_schema": SCHEMA}, "json_schema"),
    ],
)
def test_a_form_that_is_none_is_named(given: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        _chat(**given)
    assert caught.value.param == param
