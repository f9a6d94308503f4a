"""Requests of /inference as canonical ones, and its answers."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from balancer.dispatch.sink import Outcome
from balancer.errors import InvalidRequest
from balancer.http.body import decode_json
from balancer.http.inference.answer import GatheredText, inference_body
from balancer.http.inference.schema import EXPECTED, InferenceBody
from balancer.http.inference.translate import inference_request, place_of
from balancer.http.openai.schema import CompletionRequest, SamplingFields
from balancer.http.openai.translate import completion_request
from protocol.generation import ContentDelta, GenerationRequest, Timings, Usage

OUTCOME = Outcome(
    finish_reason="stop",
    stop_sequence=None,
    usage=Usage(prompt_tokens=7, completion_tokens=4),
    timings=Timings(),
    agent="one",
    attempts=1,
    queue_ms=10.0,
    ttft_ms=12.0,
    total_ms=40.5,
)
HONOURED: dict[str, Any] = {
    "temperature": 0.5, "top_p": 0.5, "top_k": 4, "min_p": 0.1, "typical_p": 0.5,
    "presence_penalty": 1, "frequency_penalty": 1, "repeat_penalty": 2, "repeat_last_n": 8,
    "dry_multiplier": 1, "dry_base": 2, "dry_allowed_length": 3, "dry_penalty_last_n": 9,
    "dry_sequence_breakers": ["x"], "xtc_probability": 0.5, "xtc_threshold": 0.2, "mirostat": 2,
    "mirostat_tau": 4, "mirostat_eta": 0.3, "seed": 9, "stop": ["x"], "max_tokens": 3,
    "n_predict": 3, "min_tokens": 2, "logit_bias": {"5": 1}, "ignore_eos": True,
    "context_shift": True, "priority": -1, "response_format": {"type": "json_object"},
    "grammar": "root ::= [0-9]+", "json_schema": {"type": "object"},
}  # fmt: skip
WITHOUT_EFFECT: dict[str, Any] = {
    "user": "me", "metadata": {"a": "b"}, "prompt_cache_key": "k", "safety_identifier": "s",
    "prompt_cache_retention": "24h", "stream_options": {"include_usage": True},
}  # fmt: skip
REFUSED: dict[str, Any] = {
    "store": True, "service_tier": "flex", "samplers": ["top_k"], "cache_prompt": False,
    "id_slot": 1, "n_probs": 1, "n_keep": 1, "min_keep": 1, "top_n_sigma": 1.0,
    "dynatemp_range": 0.5, "t_max_predict_ms": 5, "return_tokens": True,
    "post_sampling_probs": True, "timings_per_token": True, "lora": [{"id": 0}],
}  # fmt: skip


def test_no_parameter_is_left_out_here() -> None:
    """All that a text completion samples with is in one of the three, or the answer's form."""
    known = HONOURED.keys() | WITHOUT_EFFECT.keys() | REFUSED.keys()
    assert set(SamplingFields.__struct_fields__) - known == {"model", "n", "stream", "timeout"}


def asked(**fields: Any) -> GenerationRequest:
    data = msgspec.json.encode({"model_id": "demo", "inputs": {"text": "Hi"}, **fields})
    decoder = msgspec.json.Decoder(InferenceBody)
    body = decode_json(data, decoder, max_depth=64, expected=EXPECTED)
    return inference_request(body, drawn_seed=5)


@pytest.mark.parametrize(
    ("fields", "request_"),
    [
        ({}, GenerationRequest(model="demo", prompt="Hi", seed=5)),
        ({"model_version": "2"}, GenerationRequest(model="demo@2", prompt="Hi", seed=5)),
        (
            {"parameters": {"max_tokens": 3, "temperature": 0, "stop": "x", "seed": 9, "new": 1}},
            GenerationRequest(
                model="demo", prompt="Hi", seed=9, max_tokens=3, temperature=0.0, stop=("x",)
            ),
        ),
        (
            {"parameters": {"stream": False, "n": 1, "echo": None}},
            GenerationRequest(model="demo", prompt="Hi", seed=5),
        ),
    ],
)
def test_a_text_goes_on_as_a_completion_s_prompt_does(
    fields: dict[str, Any], request_: GenerationRequest
) -> None:
    assert asked(**fields) == request_


def test_every_parameter_does_what_it_does_for_a_completion() -> None:
    plain = asked()
    for name, value in HONOURED.items():
        fields = {"prompt": "Hi", "model": "demo", name: value}
        body = msgspec.convert(fields, CompletionRequest)
        request = asked(parameters={name: value})
        assert request == completion_request(body, ("Hi",), drawn_seed=5), name
        assert request != plain, name


def test_what_has_no_effect_on_a_completion_has_none_here() -> None:
    assert asked(parameters=WITHOUT_EFFECT) == asked()


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"model_id": None}, "invalid_type", "model_id"),
        ({"model_id": "a b"}, "invalid_value", "model_id"),
        ({"inputs": {}}, "missing_required_parameter", "inputs.text"),
        ({"inputs": "Hi"}, "invalid_type", "inputs"),
        ({"parameters": {"temperature": 3}}, "invalid_value", "parameters.temperature"),
    ],
)
def test_a_body_of_another_shape_is_refused_by_name(
    fields: dict[str, Any], code: str, param: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        asked(**fields)
    assert (refused.value.code, refused.value.param) == (code, param)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("stream", True),
        ("n", 2),
        ("echo", True),
        ("suffix", "x"),
        ("best_of", 2),
        ("logprobs", 1),
        ("model", "other"),
        *REFUSED.items(),
    ],
)
def test_a_parameter_that_has_no_place_in_the_answer_is_refused_by_name(
    name: str, value: Any
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        asked(parameters={name: value})
    assert (refused.value.param or "").removeprefix("parameters.") == name


def test_a_model_among_the_parameters_is_refused_there() -> None:
    with pytest.raises(InvalidRequest) as refused:
        asked(parameters={"model": "other"})
    assert place_of(refused.value.param) == "parameters.model"


@pytest.mark.parametrize(
    ("param", "place"),
    [
        (None, None),
        ("model", "model_id"),
        ("prompt", "inputs.text"),
        ("messages", "inputs.text"),
        ("stop", "parameters.stop"),
    ],
)
def test_a_parameter_is_named_where_it_is_in_the_body(param: str | None, place: str | None) -> None:
    assert place_of(param) == place


def test_the_answer_is_one_text_with_its_tokens_and_the_time_it_took() -> None:
    gathered = GatheredText()
    gathered.take("Hello, ", ())
    gathered.take((ContentDelta("world"),), ())
    text = msgspec.Raw(msgspec.json.encode(gathered.choice(0, OUTCOME)))
    body = inference_body([text], OUTCOME, model_id="demo", model_version="1")
    assert json.loads(body) == {
        "model_id": "demo",
        "model_version": "1",
        "outputs": {
            "generated_text": "Hello, world",
            "token_count": 4,
            "processing_time_ms": 30.5,
        },
    }
