"""What a body may cost before anybody has looked at it."""

from __future__ import annotations

import msgspec
import pytest

from balancer.errors import InvalidRequest, RequestTooLarge
from balancer.http.body import MAX_BRACKETS, decode_json
from balancer.http.openai.schema import ChatCompletionRequest

DECODER = msgspec.json.Decoder(ChatCompletionRequest)


def _decode(data: bytes) -> ChatCompletionRequest:
    return decode_json(data, DECODER, max_depth=64, expected={})


def test_a_body_of_hundreds_of_thousands_of_tiny_arrays_is_too_large() -> None:
    body = b'{"messages": [], "metadata": {"a": [' + b"[]," * MAX_BRACKETS + b"[]]}}"
    with pytest.raises(RequestTooLarge, match="arrays and objects"):
        _decode(body)


def test_a_body_nested_too_deep_is_no_json_for_us() -> None:
    with pytest.raises(InvalidRequest, match="deeper than 64"):
        _decode(b'{"messages": ' + b"[" * 100 + b"]" * 100 + b"}")


def test_an_ordinary_body_with_brackets_in_its_text_is_taken() -> None:
    text = "f(x) = {[()]} " * 1000
    body = msgspec.json.encode({"messages": [{"role": "user", "content": text}]})
    assert _decode(body).messages[0].content == text
