"""What an agent is asked beside generating: queries, and states of sequences either way.

Synchronous and without a socket, as the link that it belongs to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from balancer.fleet.exports import Exports, StateHandler
from balancer.fleet.queries import AnswerHandler, Queries, TextQuestion
from protocol.jsonrpc import CallId, ErrorObject
from protocol.streams import Source
from protocol.to_agent import Embed, ExportSequence, ImportSequence
from protocol.transfers import Inbox


class Streams(Protocol):
    """The part of the socket that sequence states go out by. All synchronous."""

    def put_stream(self, call_id: int, source: Source) -> None:
        """Send a source's bytes under a call's id as they come and credit allows, then close it;
        at once if nothing can be sent any more."""

    def drop_stream(self, call_id: int) -> None:
        """Send nothing more of it, and close its source. Unknown: no effect."""

    def wake_streams(self) -> None:
        """A source has more."""


class LinkQueries:
    """Without `streams` nothing can be imported. `on_end` hears of each query that is over, and
    whether it was cancelled."""

    def __init__(
        self,
        send: Callable[[bytes], None],
        call_ids: Iterator[int],
        *,
        inbox: Inbox,
        streams: Streams | None,
        on_end: Callable[[CallId, bool], None],
    ) -> None:
        self._send = send
        self._inbox = inbox
        self._streams = streams
        self._on_end = on_end
        self._queries = Queries(send, call_ids, on_end=self._on_query_ended)
        self._exports = Exports(self._queries, inbox)
        self._importing: set[CallId] = set()
        self._is_lost = False

    def __len__(self) -> int:
        """Those without an answer yet; they claim no slot."""
        return len(self._queries)

    def __contains__(self, call_id: CallId) -> bool:
        return call_id in self._queries

    def embed(self, params: Embed, handler: AnswerHandler) -> int:
        """Ask for vectors; the answer is `Embeddings`. Raises as `AgentLink.call` does."""
        return self._queries.ask(params, handler)

    def ask(self, params: TextQuestion, handler: AnswerHandler) -> int:
        """Ask for scores, a text's ids, ids' text or a chat's prompt; the answer is of that kind.
        Raises as `AgentLink.call` does."""
        return self._queries.ask(params, handler)

    def cancel(self, call_id: int) -> None:
        """Nobody wants the answer any more; the handler hears nothing."""
        self._queries.cancel(call_id)
        self._drop_stream(call_id)

    def export_sequence(self, params: ExportSequence, handler: StateHandler) -> int:
        """Ask for the state of a running call's sequence; `StateHandler` says what follows. Raises
        as `call` does."""
        return self._exports.ask(params, handler)

    def state_passed_on(self, call_id: int, count: int) -> None:
        """The handler of an export does not hold so many bytes any more: as many may come."""
        self._exports.passed_on(call_id, count)
        self.send_replies()

    def cancel_export(self, call_id: int) -> None:
        """Nobody wants the state any more; the handler hears nothing more."""
        self._exports.cancel(call_id)
        self.send_replies()

    def import_sequence(self, params: ImportSequence, state: Source, handler: AnswerHandler) -> int:
        """Have the agent cache a state; the answer is `ImportedSequence`. The source's bytes, as
        many as `params` says, are sent until the query is over. Raises as `AgentLink.call` does."""
        if self._streams is None or state.size_bytes != params.size_bytes:
            raise ValueError(f"{state.size_bytes} bytes of {params.size_bytes} cannot be sent")
        call_id = self._queries.ask(params, handler)
        self._importing.add(call_id)
        self._streams.put_stream(call_id, state)
        return call_id

    def wake_streams(self) -> None:
        """The source of an import has more."""
        if self._streams is not None and not self._is_lost:
            self._streams.wake_streams()

    # --- what the link hears ---

    def send_replies(self) -> None:
        """Grant the credit, and refuse the transfers, that the inbox has collected."""
        while self._inbox.replies and not self._is_lost:
            self._send(self._inbox.replies.popleft())

    def answered(self, call_id: CallId, result: bytes) -> None:
        """As `Queries.answered`."""
        self._queries.answered(call_id, result)

    def take_data(self, call_id: CallId, data: bytes) -> None:
        """As `Queries.take_data`."""
        self._queries.take_data(call_id, data)

    def refused(self, call_id: CallId, error: ErrorObject) -> None:
        """As `Queries.refused`."""
        self._queries.refused(call_id, error)

    def link_lost(self) -> None:
        """Nothing more comes or goes."""
        self._is_lost = True
        self._queries.link_lost()
        self._exports.link_lost()

    def _on_query_ended(self, call_id: CallId, was_cancelled: bool) -> None:
        self._drop_stream(call_id)
        self._on_end(call_id, was_cancelled)

    def _drop_stream(self, call_id: CallId) -> None:
        if isinstance(call_id, int) and call_id in self._importing and self._streams is not None:
            self._importing.remove(call_id)
            self._streams.drop_stream(call_id)
