"""OpenAI's embedding requests as canonical ones, and vectors in OpenAI's shape."""

from __future__ import annotations

import json
import struct
from base64 import b64decode
from typing import Any

import msgspec
import pytest

from balancer.dispatch.embedding_batch import Embedded
from balancer.errors import InvalidRequest
from balancer.http.body import decode_json
from balancer.http.openai.embedding_answer import embedding_pieces
from balancer.http.openai.schema import EXPECTED, EmbeddingsRequest
from balancer.http.openai.translate_embeddings import MAX_INPUT_TOKENS, embedding_request
from balancer.http.vectors import PIECE_FLOATS
from protocol.embeddings import MAX_INPUTS, EmbeddingRequest

_DECODER = msgspec.json.Decoder(EmbeddingsRequest)


def translated(**fields: Any) -> EmbeddingRequest:
    data = msgspec.json.encode(fields)
    body = decode_json(data, _DECODER, max_depth=64, expected=EXPECTED)
    return embedding_request(body)


def refusal(**fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as refused:
        translated(**fields)
    return refused.value


@pytest.mark.parametrize(
    ("given", "inputs"),
    [
        ("a", ("a",)),
        (["a", "b"], ("a", "b")),
        ([1, 2], ((1, 2),)),
        ([[1, 2], [3]], ((1, 2), (3,))),
        (["a"] * MAX_INPUTS, ("a",) * MAX_INPUTS),
    ],
)
def test_inputs_are_texts_or_token_ids_one_or_many(given: Any, inputs: Any) -> None:
    assert translated(input=given) == EmbeddingRequest(inputs=inputs)


def test_model_and_dimensions_are_passed_on_and_what_has_no_effect_is_taken() -> None:
    request = translated(
        input="a", model="org/e:1", dimensions=8, user="u", encoding_format=None, new_field=1
    )
    assert request == EmbeddingRequest(inputs=("a",), model="org/e:1", dimensions=8)


@pytest.mark.parametrize(
    ("given", "code", "param"),
    [
        ({}, "missing_required_parameter", "input"),
        ({"input": None}, "missing_required_parameter", "input"),
        ({"input": []}, "invalid_type", "input"),
        ({"input": ""}, "invalid_value", "input"),
        ({"input": ["a", ""]}, "invalid_value", "input[1]"),
        ({"input": ["a", 1]}, "invalid_value", "input[1]"),
        ({"input": [1, "a"]}, "invalid_value", "input"),
        ({"input": [[1], []]}, "invalid_value", "input[1]"),
        ({"input": [[1], [-1]]}, "invalid_value", "input[1]"),
        ({"input": [[1], "a"]}, "invalid_value", "input[1]"),
        ({"input": [True]}, "invalid_type", "input"),
        ({"input": [1.5]}, "invalid_type", "input"),
        ({"input": {"a": 1}}, "invalid_type", "input"),
        ({"input": ["a"] * (MAX_INPUTS + 1)}, "invalid_value", "input"),
        ({"input": [1] * (MAX_INPUT_TOKENS + 1)}, "invalid_value", "input"),
        ({"input": [[1] * MAX_INPUT_TOKENS, [1]]}, "invalid_value", "input"),
        ({"input": "a", "dimensions": 0}, "invalid_value", "dimensions"),
        ({"input": "a", "encoding_format": "hex"}, "invalid_value", "encoding_format"),
        ({"input": "a", "model": "a b"}, "invalid_value", "model"),
    ],
)
def test_what_cannot_be_embedded_is_refused_by_name(
    given: dict[str, Any], code: str, param: str
) -> None:
    error = refusal(**given)
    assert (error.code, error.param) == (code, param)


def embedded(*vectors: tuple[float, ...]) -> Embedded:
    return Embedded(
        model='a "model"',
        vectors=tuple(struct.pack(f"<{len(vector)}f", *vector) for vector in vectors),
        prompt_tokens=5,
        agents=("one",),
        attempts=1,
        queue_ms=0.0,
        total_ms=1.0,
    )


@pytest.mark.parametrize("as_base64", [False, True])
def test_an_answer_has_openai_s_shape(as_base64: bool) -> None:
    pieces = embedding_pieces(embedded((1.0, -0.5), (0.25, 2.0)), as_base64=as_base64)
    body = json.loads(b"".join(pieces))
    found = [row.pop("embedding") for row in body["data"]]
    if as_base64:
        found = [list(struct.unpack("<2f", b64decode(each))) for each in found]
    assert found == [[1.0, -0.5], [0.25, 2.0]]
    assert body == {
        "object": "list",
        "data": [{"object": "embedding", "index": 0}, {"object": "embedding", "index": 1}],
        "model": 'a "model"',
        "usage": {"prompt_tokens": 5, "total_tokens": 5},
    }


def test_many_vectors_are_written_in_pieces() -> None:
    half = (0.5,) * (PIECE_FLOATS // 2)
    pieces = list(embedding_pieces(embedded(*[half] * 7), as_base64=False))
    assert len(pieces) == 4
    assert len(json.loads(b"".join(pieces))["data"]) == 7
