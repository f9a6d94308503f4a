"""The queries of one agent link: calls that take no slot and end with their answer.

Vectors may come apart from the answer that they belong to, before or after it; the handler hears
of both together. Synchronous and without a socket, as the link.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import structlog
from msgspec import Struct, structs

from protocol.codec import decode_result, encode_notification, encode_request
from protocol.descriptions import ModelDescription
from protocol.embeddings import Embeddings, Scores, Text, TokenIds
from protocol.errors import InvalidParams
from protocol.jsonrpc import CallId, ErrorObject, RpcCode
from protocol.rendering import Rendered
from protocol.to_agent import (
    Cancel,
    DescribeModel,
    Detokenize,
    Embed,
    ExportedSequence,
    ExportSequence,
    ImportedSequence,
    ImportSequence,
    Render,
    Rerank,
    Tokenize,
)

log = structlog.get_logger(__name__)

TextQuestion = Rerank | Tokenize | Detokenize | Render | DescribeModel
"""What is answered by one message."""
TextAnswer = Scores | TokenIds | Text | Rendered | ModelDescription
Question = Embed | TextQuestion | ExportSequence | ImportSequence
Answer = Embeddings | TextAnswer | ExportedSequence | ImportedSequence

_ANSWERS: dict[type[Struct], type[Answer]] = {
    Embed: Embeddings,
    Rerank: Scores,
    Tokenize: TokenIds,
    Detokenize: Text,
    Render: Rendered,
    DescribeModel: ModelDescription,
    ExportSequence: ExportedSequence,
    ImportSequence: ImportedSequence,
}
UNUSABLE = ErrorObject(code=int(RpcCode.INTERNAL_ERROR), message="the agent's answer is unusable")


class AnswerHandler(Protocol):
    """What becomes of one query. All synchronous; exactly one of them comes, once."""

    def on_answer(self, answer: Answer) -> None:
        """The answer that belongs to the question; `Embeddings` have all their vectors."""

    def on_refused(self, error: ErrorObject) -> None: ...

    def on_link_lost(self) -> None: ...


@dataclass(slots=True)
class _Query:
    question: type[Struct]
    parts: int
    """Of how many inputs or documents it asks."""
    handler: AnswerHandler | None
    """None: it was cancelled, nobody wants the answer."""
    answer: Embeddings | None = None
    data: bytes | None = None


class Queries:
    """From question to answer. `send` and `call_ids` are the link's; `on_end` hears of each query
    that is over, after its handler did, and whether it was cancelled."""

    def __init__(
        self,
        send: Callable[[bytes], None],
        call_ids: Iterator[int],
        *,
        on_end: Callable[[CallId, bool], None],
    ) -> None:
        self._send = send
        self._call_ids = call_ids
        self._on_end = on_end
        self._open: dict[CallId, _Query] = {}

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, call_id: CallId) -> bool:
        return call_id in self._open

    def ask(self, question: Question, handler: AnswerHandler) -> int:
        """Send the question; raises what `send` does about its size, and `UnicodeEncodeError` for
        text that is none; then nothing is asked."""
        call_id = next(self._call_ids)
        self._send(encode_request(call_id, question))
        self._open[call_id] = _Query(type(question), _parts_of(question), handler)
        return call_id

    def cancel(self, call_id: CallId) -> None:
        """Nobody wants the answer any more: its handler hears nothing."""
        query = self._open.get(call_id)
        if query is not None and query.handler is not None:
            query.handler = query.answer = query.data = None
            self._send(encode_notification(Cancel(call=call_id)))

    def answered(self, call_id: CallId, result: bytes) -> None:
        """The agent's result; raises `InvalidParams` if it is none, its handler hears so before."""
        query = self._open[call_id]
        try:
            answer = decode_result(result, _ANSWERS[query.question])
            _check(answer, query.parts)
        except InvalidParams:
            self._end(call_id, lambda handler: handler.on_refused(UNUSABLE))
            raise
        if isinstance(answer, Embeddings) and answer.vectors_follow and query.handler:
            query.answer = answer
            self._join(call_id, query)
        elif isinstance(answer, Embeddings) and query.handler:
            self._end_embedded(call_id, answer)
        else:
            self._end(call_id, lambda handler: handler.on_answer(answer))

    def take_data(self, call_id: CallId, data: bytes) -> None:
        """Vectors of the query's answer; raises `InvalidParams` if they are not what it said."""
        query = self._open[call_id]
        if query.question is not Embed:
            raise InvalidParams(f"{len(data)} bytes for a query whose answer has none")
        if query.handler is not None:
            query.data = data
            self._join(call_id, query)

    def refused(self, call_id: CallId, error: ErrorObject) -> None:
        """The agent's error."""
        self._end(call_id, lambda handler: handler.on_refused(error))

    def link_lost(self) -> None:
        """No answer will come."""
        for call_id in tuple(self._open):
            self._end(call_id, lambda handler: handler.on_link_lost())

    def _join(self, call_id: CallId, query: _Query) -> None:
        """Both are needed, the answer and its vectors."""
        if query.answer is None or query.data is None:
            return
        answer = structs.replace(query.answer, vectors=query.data, vectors_follow=0)
        if len(query.data) != query.answer.vectors_follow:
            self._end(call_id, lambda handler: handler.on_refused(UNUSABLE))
            raise InvalidParams(f"{len(query.data)} bytes of vectors, other than announced")
        self._end_embedded(call_id, answer)

    def _end_embedded(self, call_id: CallId, answer: Embeddings) -> None:
        expected = 4 * answer.dimensions * sum(answer.rows)
        if len(answer.vectors) != expected:
            self._end(call_id, lambda handler: handler.on_refused(UNUSABLE))
            raise InvalidParams(f"{len(answer.vectors)} bytes of vectors, {expected} expected")
        self._end(call_id, lambda handler: handler.on_answer(answer))

    def _end(self, call_id: CallId, tell: Callable[[AnswerHandler], None]) -> None:
        handler = self._open.pop(call_id).handler
        try:
            if handler is not None:
                tell(handler)
        except Exception:
            log.exception("query handler failed", call=call_id)
        self._on_end(call_id, handler is None)


def _parts_of(question: Question) -> int:
    match question:
        case Embed(inputs=parts) | Rerank(documents=parts):
            return len(parts)
        case _:
            return 0


def _check(answer: Answer, parts: int) -> None:
    """What is parallel must be: who takes the answer apart relies on it. Raises `InvalidParams`."""
    match answer:
        case Embeddings(rows=each, tokens=tokens, errors=errors):
            fits = len(each) == len(tokens) == parts
        case Scores(scores=each, tokens=tokens, errors=errors):
            fits = len(each) == len(tokens) == parts
        case TokenIds(token_ids=ids, pieces=pieces):
            fits, errors = not pieces or len(pieces) == len(ids), ()
        case _:
            return
    if not (fits and all(0 <= error.index < parts for error in errors)):
        raise InvalidParams(f"an answer to other than the {parts} parts of its question")
