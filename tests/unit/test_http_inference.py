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
        ("store", True),
    ],
)
def test_a_parameter_that_has_no_place_in_the_answer_is_refused_by_name(
    name: str, value: Any
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        asked(parameters={name: value})
    assert refused.value.param == name


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
