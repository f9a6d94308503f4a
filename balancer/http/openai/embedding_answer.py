"""Vectors in OpenAI's shape, as numbers or as base64. Pure; in pieces: many take a while."""

from __future__ import annotations

import struct
from base64 import b64encode
from collections.abc import Iterator

import msgspec

from balancer.dispatch.embedding_batch import Embedded
from protocol.embeddings import FLOAT_BYTES

PIECE_FLOATS = 16 * 1024
"""Written as text at a stretch, or a few more: about 2 ms."""

_encode = msgspec.json.encode


def embedding_pieces(embedded: Embedded, *, as_base64: bool) -> Iterator[bytes]:
    """The body's bytes, in order. Whoever takes them may do other things between two of them."""
    piece = bytearray(b'{"object":"list","data":[')
    floats = 0
    for index, vector in enumerate(embedded.vectors):
        shown = _encode(b64encode(vector).decode() if as_base64 else _numbers(vector))
        comma = b"," if index else b""
        piece += comma + b'{"object":"embedding","index":%d,"embedding":' % index + shown + b"}"
        floats += len(vector) // FLOAT_BYTES
        if floats >= PIECE_FLOATS:
            yield bytes(piece)
            piece.clear()
            floats = 0
    tokens = embedded.prompt_tokens
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    piece += b'],"model":' + _encode(embedded.model) + b',"usage":' + _encode(usage) + b"}"
    yield bytes(piece)


def _numbers(vector: bytes) -> tuple[float, ...]:
    return struct.unpack(f"<{len(vector) // FLOAT_BYTES}f", vector)
