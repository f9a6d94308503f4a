"""From the engine's answers to the balancer's: results, and big vectors beside them."""

from __future__ import annotations

from typing import assert_never

from msgspec import Struct

from agent.commands.desk import Desk
from agent.commands.export_sequence import relay_exported
from agent.commands.moves import Move
from agent.commands.queries import Query
from agent.engine.query_frames import (
    Detokenized,
    Embedded,
    Exported,
    Imported,
    QueryAnswer,
    QueryRefused,
    Reranked,
    Tokenized,
)
from protocol.codec import encode_result
from protocol.embeddings import Embeddings, Scores, Text, TokenIds
from protocol.jsonrpc import CallId
from protocol.refusals import RefusalCode
from protocol.rendering import Rendered
from protocol.to_agent import ImportedSequence
from protocol.transfers import MAX_DATA_CALL, MAX_TRANSFER_BYTES

MAX_INLINE_BYTES = 128 * 1024
"""Vectors up to this size stand in the result, as base64; it then fits a text frame with ease."""

_Result = Embedded | Reranked | Tokenized | Detokenized


def relay_answer(desk: Desk, answer: QueryAnswer) -> None:
    """Answer the query; nothing is said of one that was cancelled or whose link broke."""
    query = desk.queries.close(answer.call)
    move = desk.moves.numbered(answer.call)
    if move is not None and (query is None or not isinstance(answer, Exported)):
        desk.moves.end(move)
    if query is None:
        return
    if isinstance(answer, QueryRefused):
        desk.refuse(query.id, answer.code, answer.message, facts=answer.facts)
    elif isinstance(answer, Exported | Imported):
        if move is not None:
            _relay_moved(desk, move, answer)
    else:
        _relay_result(desk, query, answer)


def _relay_moved(desk: Desk, move: Move, answer: Exported | Imported) -> None:
    if isinstance(answer, Exported):
        relay_exported(desk, move, answer)
    else:
        desk.send(encode_result(move.call_id, ImportedSequence(tokens=move.tokens)))


def _relay_result(desk: Desk, query: Query, answer: _Result) -> None:
    apart = isinstance(answer, Embedded) and _travels_apart(answer, query.id)
    message = encode_result(query.id, _rendered(query, answer) or _result(answer, apart=apart))
    if len(message) > MAX_TRANSFER_BYTES:
        words = f"the answer has {len(message)} bytes, at most {MAX_TRANSFER_BYTES} can be sent"
        desk.refuse(query.id, RefusalCode.UNSUPPORTED, f"{words}: ask for less at a time")
        return
    desk.send(message)
    if isinstance(answer, Embedded) and isinstance(query.id, int) and apart:
        desk.send_data(query.id, answer.vectors)


def _rendered(query: Query, answer: _Result) -> Rendered | None:
    """The answer to a `render`, whose prompt has been counted; None: the query is another."""
    if query.prompt is None or not isinstance(answer, Tokenized):
        return None
    return Rendered(prompt=query.prompt, prompt_tokens=len(answer.token_ids))


def _travels_apart(answer: Embedded, call_id: CallId) -> bool:
    """Ids that are no numbers have no place in a piece's header."""
    fits_header = isinstance(call_id, int) and 1 <= call_id <= MAX_DATA_CALL
    return fits_header and len(answer.vectors) > MAX_INLINE_BYTES


def _result(answer: _Result, *, apart: bool) -> Struct:
    match answer:
        case Embedded():
            return Embeddings(
                pooling=answer.pooling,
                dimensions=answer.dimensions,
                rows=answer.rows,
                tokens=answer.tokens,
                errors=answer.errors,
                vectors=b"" if apart else answer.vectors,
                vectors_follow=len(answer.vectors) if apart else 0,
            )
        case Reranked(scores=scores, tokens=tokens, errors=errors):
            return Scores(scores=scores, tokens=tokens, errors=errors)
        case Tokenized(token_ids=token_ids, pieces=pieces):
            return TokenIds(token_ids=token_ids, pieces=pieces)
        case Detokenized(text=text):
            return Text(text=text)
        case _:
            assert_never(answer)
