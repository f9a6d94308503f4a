"""Ollama's requests as canonical ones."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import msgspec
import pytest
from msgspec import structs

from balancer.errors import InvalidRequest
from balancer.http.body import decode_json
from balancer.http.ollama.schema import EXPECTED, ChatRequest, EmbedRequest, GenerateRequest
from balancer.http.ollama.translate import (
    MAX_PIECES,
    WHOLE_CONTEXT,
    asks_to_load,
    chat_request,
    embed_request,
    generate_request,
)
from protocol.chat import (
    MAX_MEDIA,
    FunctionCall,
    FunctionDefinition,
    ImagePart,
    Message,
    TextPart,
    Tool,
    ToolCall,
)
from protocol.embeddings import EmbeddingRequest
from protocol.generation import MAX_STOP_CHARS, MAX_TEMPERATURE, GenerationRequest
from protocol.grammar import MAX_GRAMMAR_CHARS, Grammar

HI = [{"role": "user", "content": "hi"}]
PNG = b"\x89PNG and so on"
IMAGE = b64encode(PNG).decode()
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "description": "Of a city.", "parameters": SCHEMA},
}
WITHOUT_EFFECT = (
    "num_ctx", "num_keep", "num_batch", "num_gpu", "main_gpu", "num_thread", "numa", "low_vram",
    "f16_kv", "logits_all", "vocab_only", "embedding_only", "use_mmap", "use_mlock",
)  # fmt: skip
_CHAT = msgspec.json.Decoder(ChatRequest)
_GENERATE = msgspec.json.Decoder(GenerateRequest)
_EMBED = msgspec.json.Decoder(EmbedRequest)


def chat_body(**fields: Any) -> ChatRequest:
    data = msgspec.json.encode({"messages": HI, **fields})
    return decode_json(data, _CHAT, max_depth=64, expected=EXPECTED)


def chat(**fields: Any) -> GenerationRequest:
    return chat_request(chat_body(**fields), model="demo", drawn_seed=4)


def prompt_body(**fields: Any) -> GenerateRequest:
    data = msgspec.json.encode(fields)
    return decode_json(data, _GENERATE, max_depth=64, expected=EXPECTED)


def prompt(*, has_template: bool = True, **fields: Any) -> GenerationRequest:
    body = prompt_body(**{"prompt": "hi", **fields})
    return generate_request(body, model="demo", has_template=has_template, drawn_seed=4)


def refusal_of(ask: Any, **fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as refused:
        ask(**fields)
    return refused.value


def test_the_least_chat_has_ollama_s_own_sampling() -> None:
    assert chat() == GenerationRequest(
        model="demo",
        messages=(Message(role="user", content="hi"),),
        temperature=0.8,
        top_k=40,
        top_p=0.9,
        repeat_penalty=1.1,
        seed=4,
    )


@pytest.mark.parametrize(
    ("options", "canonical"),
    [
        ({"temperature": 0}, {"temperature": 0.0}),
        ({"temperature": 3.5}, {"temperature": 3.5}),
        ({"top_k": 5}, {"top_k": 5}),
        ({"top_k": -1}, {"top_k": 0}),
        ({"top_p": 0.5}, {"top_p": 0.5}),
        ({"min_p": 0.1}, {"min_p": 0.1}),
        ({"typical_p": 0.7}, {"typical_p": 0.7}),
        ({"seed": 9}, {"seed": 9}),
        ({"seed": 0}, {"seed": 0}),
        ({"seed": -1}, {"seed": 4}),
        ({"num_predict": 12}, {"max_tokens": 12}),
        ({"num_predict": -1}, {"max_tokens": None}),
        ({"num_predict": 0}, {"max_tokens": None}),
        ({"stop": ["a", "b"]}, {"stop": ("a", "b")}),
        ({"stop": "a"}, {"stop": ("a",)}),
        ({"stop": ["", "a", ""]}, {"stop": ("a",)}),
        ({"stop": ""}, {"stop": ()}),
        (
            {"num_predict": 5.0, "seed": 9.0, "top_k": 5.0, "repeat_last_n": 3.0, "mirostat": 1.0},
            {"max_tokens": 5, "seed": 9, "top_k": 5, "penalty_last_n": 3, "mirostat": 1},
        ),
        ({"repeat_penalty": 1}, {"repeat_penalty": 1.0}),
        ({"repeat_last_n": 0}, {"penalty_last_n": 0}),
        ({"repeat_last_n": -1}, {"penalty_last_n": WHOLE_CONTEXT}),
        ({"presence_penalty": 1}, {"presence_penalty": 1.0}),
        ({"frequency_penalty": 1}, {"frequency_penalty": 1.0}),
        (
            {"mirostat": 2, "mirostat_tau": 3, "mirostat_eta": 0.2},
            {"mirostat": 2, "mirostat_tau": 3.0, "mirostat_eta": 0.2},
        ),
        ({"tfs_z": 1, "penalize_newline": True}, {}),
        (dict.fromkeys(WITHOUT_EFFECT, 5) | {"unheard_of": 1}, {}),
        (None, {}),
    ],
)
def test_an_option_arrives(options: Any, canonical: dict[str, Any]) -> None:
    assert chat(options=options) == structs.replace(chat(), **canonical)
    assert prompt(options=options) == structs.replace(prompt(), **canonical)


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        ({"think": True}, {"enable_thinking": True}),
        ({"think": ""}, {}),
        (
            {"think": "high"},
            {"enable_thinking": True, "template_arguments": {"reasoning_effort": "high"}},
        ),
        ({"think": False}, {"enable_thinking": False}),
        ({"format": "json"}, {"grammar": Grammar(kind="json_object")}),
        ({"format": ""}, {}),
        (
            {"format": SCHEMA},
            {"grammar": Grammar(kind="json_schema", text=msgspec.json.encode(SCHEMA).decode())},
        ),
        ({"shift": True}, {"context_shift": True}),
        ({"logprobs": True}, {"top_logprobs": 0}),
        ({"logprobs": True, "top_logprobs": 3}, {"top_logprobs": 3}),
        ({"truncate": True}, {}),
        ({"keep_alive": "5m", "truncate": False, "logprobs": False, "top_logprobs": 0}, {}),
    ],
)
def test_a_parameter_arrives(given: dict[str, Any], canonical: dict[str, Any]) -> None:
    assert chat(**given) == structs.replace(chat(), **canonical)
    assert prompt(**given) == structs.replace(prompt(), **canonical)


def test_what_ollama_s_client_in_go_sends_empty_is_absent() -> None:
    """It has all fields of its own, set or not."""
    empty: dict[str, Any] = {"options": None, "keep_alive": None, "think": "", "format": ""}
    assert chat(**empty) == chat()
    assert chat_body(model="").model == ""
    assert prompt(**empty, suffix="", system="", template="", images=None) == prompt()
    turn = {"role": "tool", "content": "rain", "tool_name": "", "tool_call_id": ""}
    assert chat(messages=[turn]).messages == (
        Message(role="tool", tool_call_id="call00001", content="rain"),
    )
    assert len(chat(tools=[{**WEATHER, "type": ""}]).tools) == 1


def test_images_come_before_their_message_s_text() -> None:
    turn = {"role": "user", "content": "What is this?", "images": [IMAGE]}
    parts = (ImagePart(data=PNG), TextPart(text="What is this?"))
    assert chat(messages=[turn]).messages == (Message(role="user", content=parts),)
    wordless = {"role": "user", "images": [IMAGE]}
    assert chat(messages=[wordless]).messages == (
        Message(role="user", content=(ImagePart(data=PNG),)),
    )


def call(name: str, **more: Any) -> dict[str, Any]:
    return {"function": {"name": name, "arguments": {"city": "Oslo"}}, **more}


def test_a_loop_with_tools_comes_over_whole_and_results_find_their_calls() -> None:
    request = chat(
        messages=[
            {"role": "system", "content": "Be brief."},
            *HI,
            {
                "role": "assistant",
                "content": "",
                "thinking": "hm",
                "tool_calls": [call("weather"), call("time"), call("weather")],
            },
            {"role": "tool", "tool_name": "time", "content": "noon"},
            {"role": "tool", "content": "rain"},
            {"role": "tool", "tool_name": "weather", "content": "snow"},
        ],
        tools=[WEATHER],
    )
    made = FunctionCall(name="weather", arguments='{"city":"Oslo"}')
    calls = (
        ToolCall(id="call00001", function=made),
        ToolCall(id="call00002", function=structs.replace(made, name="time")),
        ToolCall(id="call00003", function=made),
    )
    assert request.messages == (
        Message(role="system", content="Be brief."),
        Message(role="user", content="hi"),
        Message(role="assistant", tool_calls=calls, reasoning_content="hm"),
        Message(role="tool", name="time", tool_call_id="call00002", content="noon"),
        Message(role="tool", tool_call_id="call00001", content="rain"),
        Message(role="tool", name="weather", tool_call_id="call00003", content="snow"),
    )
    function = FunctionDefinition(name="weather", description="Of a city.", parameters=SCHEMA)
    assert request.tools == (Tool(function=function),)


def test_ids_that_a_client_gives_are_kept_and_a_result_without_a_call_has_one() -> None:
    history = [
        {"role": "assistant", "content": "I look.", "tool_calls": [call("look", id="mine")]},
        {"role": "tool", "tool_call_id": "mine", "content": "a"},
        {"role": "tool", "tool_name": "look", "content": "b"},
    ]
    first, *results = chat(messages=history).messages or ()
    assert (first.content, first.tool_calls[0].id) == ("I look.", "mine")
    assert [result.tool_call_id for result in results] == ["mine", "call00001"]


def test_a_prompt_is_a_chat_of_one_turn() -> None:
    request = prompt(system="Be brief.", images=[IMAGE])
    assert request.prompt is None
    assert request.messages == (
        Message(role="system", content="Be brief."),
        Message(role="user", content=(ImagePart(data=PNG), TextPart(text="hi"))),
    )


@pytest.mark.parametrize(
    ("given", "suffix"),
    [({"raw": True}, None), ({"suffix": "end"}, "end"), ({"has_template": False}, None)],
)
def test_a_prompt_that_goes_to_the_model_as_it_is_takes_nothing_beside_it(
    given: dict[str, Any], suffix: str | None
) -> None:
    request = prompt(**given)
    assert (request.prompt, request.suffix, request.messages) == ("hi", suffix, None)
    for beside in ({"system": "Be brief."}, {"images": [IMAGE]}, {"think": True}):
        assert refusal_of(prompt, **given, **beside).param == next(iter(beside))
    assert prompt(**given, system="", images=[], think=False).prompt == "hi"


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"options": {"temperature": MAX_TEMPERATURE + 1}}, "options.temperature"),
        ({"options": {"temperature": -0.5}}, "options.temperature"),
        ({"options": {"temperature": "hot"}}, "options.temperature"),
        ({"options": {"num_predict": -3}}, "options.num_predict"),
        ({"options": {"num_predict": 5.5}}, "options.num_predict"),
        ({"options": {"num_predict": -3.0}}, "options.num_predict"),
        ({"options": {"num_predict": 1e300}}, "options.num_predict"),
        ({"options": {"seed": 0.5}}, "options.seed"),
        ({"options": {"stop": ["x" * (MAX_STOP_CHARS + 1)]}}, "options.stop[0]"),
        ({"options": {"tfs_z": 0.5}}, "options.tfs_z"),
        ({"options": {"penalize_newline": False}}, "options.penalize_newline"),
        ({"options": []}, "options"),
        ({"think": "hard"}, "think"),
        ({"think": 1}, "think"),
        ({"format": "xml"}, "format"),
        ({"format": 1}, "format"),
        ({"format": {"description": "x" * MAX_GRAMMAR_CHARS}}, "format"),
        ({"truncate": "end"}, "truncate"),
        ({"logprobs": 1}, "logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"model": "a b"}, "model"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(given: dict[str, Any], param: str) -> None:
    assert refusal_of(chat, **given).param == param
    assert refusal_of(prompt, **given).param == param


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"messages": [{"role": "developer", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "images": ["#"]}]}, "messages[0].images[0]"),
        ({"messages": [{"role": "user", "images": [IMAGE] * (MAX_MEDIA + 1)}]}, "messages"),
        ({"messages": [{"role": "user", "images": [""] * (MAX_PIECES + 1)}]}, "messages[0]"),
        ({"messages": [{"role": "user", "tool_calls": [call("a")]}]}, "messages[0].tool_calls"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [call("")]}]},
            "messages[0].tool_calls[0].function.name",
        ),
        ({"tools": [{"type": "web_search", "function": {"name": "w"}}]}, "tools[0].type"),
        ({"tools": [WEATHER, WEATHER]}, "tools[1].function.name"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
    ],
)
def test_a_chat_s_own_faults_are_named(given: dict[str, Any], param: str) -> None:
    assert refusal_of(chat, **given).param == param


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"template": "{{ .Prompt }}"}, "template"),
        ({"context": [1, 2]}, "context"),
        ({"width": 64}, "width"),
        ({"height": 64}, "height"),
        ({"steps": 4}, "steps"),
        ({"images": ["#"]}, "images[0]"),
        ({"images": [IMAGE] * (MAX_MEDIA + 1)}, "images"),
    ],
)
def test_a_prompt_s_own_faults_are_named(given: dict[str, Any], param: str) -> None:
    assert refusal_of(prompt, **given).param == param
    assert prompt(template="", context=[]) == prompt()


def test_what_was_expected_of_an_option_is_said() -> None:
    error = refusal_of(chat, options={"temperature": -1})
    assert error.details["expected"] == f"0..{MAX_TEMPERATURE}"


def test_a_request_without_a_prompt_only_loads_the_model() -> None:
    assert asks_to_load(prompt_body())
    assert asks_to_load(prompt_body(prompt="", options={"temperature": 0}))
    assert asks_to_load(chat_body(messages=[]))
    assert asks_to_load(chat_body(messages=None))
    assert not asks_to_load(chat_body())
    assert not asks_to_load(prompt_body(prompt="hi"))
    assert not asks_to_load(prompt_body(suffix="end"))
    assert not asks_to_load(prompt_body(images=[IMAGE]))


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        ({"input": "a"}, {"inputs": ("a",)}),
        ({"input": ["a", "b"]}, {"inputs": ("a", "b")}),
        ({"input": "a", "dimensions": 8}, {"inputs": ("a",), "dimensions": 8}),
        ({"input": "a", "truncate": True}, {"inputs": ("a",)}),
        ({"input": "a", "truncate": False}, {"inputs": ("a",), "truncate": False}),
        ({"input": "a", "options": {"num_ctx": 1}, "keep_alive": -1}, {"inputs": ("a",)}),
    ],
)
def test_inputs_are_cut_unless_the_client_wants_to_know(
    given: dict[str, Any], canonical: dict[str, Any]
) -> None:
    body = decode_json(msgspec.json.encode(given), _EMBED, max_depth=64, expected=EXPECTED)
    expected = EmbeddingRequest(**{"model": "demo", "truncate": True, **canonical})
    assert embed_request(body, model="demo") == expected


def test_an_input_that_is_none_is_refused_by_its_place() -> None:
    def embed(**given: Any) -> EmbeddingRequest:
        body = decode_json(msgspec.json.encode(given), _EMBED, max_depth=64, expected=EXPECTED)
        return embed_request(body, model="demo")

    assert refusal_of(embed, input=["a", ""]).param == "input[1]"
    assert refusal_of(embed, input="a", dimensions=0).param == "dimensions"
