"""Vectors in OpenAI's shape, as numbers or as base64. Pure; in pieces: many take a while."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator

import msgspec

from balancer.dispatch.embedding_batch import Embedded
from balancer.http.vectors import numbers, vector_pieces

_encode = msgspec.json.encode


def embedding_pieces(embedded: Embedded, *, as_base64: bool) -> Iterator[bytes]:
    """The body's bytes, in order. Whoever takes them may do other things between two of them."""

    def show(index: int, vector: bytes) -> bytes:
        shown = _encode(b64encode(vector).decode() if as_base64 else numbers(vector))
        return b'{"object":"embedding","index":%d,"embedding":' % index + shown + b"}"

    tokens = embedded.prompt_tokens
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    closing = b'],"model":' + _encode(embedded.model) + b',"usage":' + _encode(usage) + b"}"
    return vector_pieces(embedded, b'{"object":"list","data":[', show, closing)
