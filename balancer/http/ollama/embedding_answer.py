"""Vectors in Ollama's shapes. Pure; those of a batch in pieces: many take a while."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from balancer.dispatch.embedding_batch import Embedded
from balancer.http.ollama.answer import nanoseconds
from balancer.http.vectors import numbers, vector_pieces

_encode = msgspec.json.encode


def embed_pieces(embedded: Embedded, *, model: str | None) -> Iterator[bytes]:
    """The bytes of /api/embed's body, in order; `model` is the name that the client used. Whoever
    takes them may do other things between two of them."""

    def show(index: int, vector: bytes) -> bytes:
        del index
        return _encode(numbers(vector))

    ending = {
        "total_duration": nanoseconds(embedded.total_ms),
        "load_duration": nanoseconds(embedded.queue_ms),
        "prompt_eval_count": embedded.prompt_tokens,
    }
    opening = b'{"model":' + _encode(model or embedded.model) + b',"embeddings":['
    return vector_pieces(embedded, opening, show, b"]," + _encode(ending)[1:])


def one_vector(embedded: Embedded) -> bytes:
    """The body of /api/embeddings for one prompt."""
    (vector,) = embedded.vectors
    return _encode({"embedding": numbers(vector)})
