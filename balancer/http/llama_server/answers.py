"""Ids in llama-server's shape. Pure; in pieces: many take a while."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from protocol.embeddings import TokenIds

PIECE_IDS = 8 * 1024
"""Written at a stretch, where each has its text: about 5 ms."""

_encode = msgspec.json.encode


def token_pieces(answer: TokenIds, *, with_pieces: bool) -> Iterator[bytes]:
    """The body's bytes, in order. Whoever takes them may do other things between two of them."""
    if not with_pieces:
        yield _encode({"tokens": answer.token_ids})
        return
    yield b'{"tokens":['
    for start in range(0, len(answer.token_ids), PIECE_IDS):
        end = start + PIECE_IDS
        rows = [
            {"id": token, "piece": _shown(piece)}
            for token, piece in zip(
                answer.token_ids[start:end], answer.pieces[start:end], strict=True
            )
        ]
        yield (b"," if start else b"") + _encode(rows)[1:-1]
    yield b"]}"


def _shown(piece: str) -> Any:
    """A token's text; its bytes as numbers where they are no text by themselves. On the link each
    byte is a character."""
    data = piece.encode("latin-1", "replace")
    try:
        return data.decode()
    except UnicodeDecodeError:
        return list(data)
