"""The exports of one agent link: an answer, then the state it announced, passed on as it comes.

Nothing is kept here: what a handler was given and has not passed on is never more than the
transfer's window. Synchronous and without a socket, as the link.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import structlog

from balancer.fleet.queries import UNUSABLE, Answer, AnswerHandler, Queries
from protocol.invariants import instance_of
from protocol.jsonrpc import ErrorObject
from protocol.to_agent import ExportedSequence, ExportSequence
from protocol.transfers import Inbox

log = structlog.get_logger(__name__)


class StateHandler(AnswerHandler, Protocol):
    """What becomes of one export. `on_answer`, with `ExportedSequence`, comes before its state; the
    last to come is one of `on_whole`, `on_refused` and `on_link_lost`."""

    def on_state(self, piece: bytes) -> None:
        """The next bytes; more than the window come only after `LinkQueries.state_passed_on`."""

    def on_whole(self) -> None:
        """That was all of it."""


class Exports:
    """Those whose answer or state is still to come."""

    def __init__(self, queries: Queries, inbox: Inbox) -> None:
        self._queries = queries
        self._inbox = inbox
        self._arriving: dict[int, _Export] = {}

    def ask(self, params: ExportSequence, handler: StateHandler) -> int:
        """Send the question; raises as `Queries.ask` does."""
        export = _Export(handler, self._begin, self._over)
        export.call_id = self._queries.ask(params, export)
        return export.call_id

    def passed_on(self, call_id: int, count: int) -> None:
        """So many bytes of an export are not held here any more."""
        self._inbox.grant(call_id, count)

    def cancel(self, call_id: int) -> None:
        """Nobody wants it any more; its handler hears nothing more."""
        self._queries.cancel(call_id)
        self._arriving.pop(call_id, None)
        self._inbox.drop(call_id)

    def link_lost(self) -> None:
        """What is not here will not come."""
        for export in tuple(self._arriving.values()):
            self._over(export)
            export.tell(export.handler.on_link_lost)

    def _begin(self, export: _Export) -> None:
        self._arriving[export.call_id] = export
        self._inbox.expect(export.call_id, export)

    def _over(self, export: _Export) -> None:
        self._arriving.pop(export.call_id, None)


class _Export:
    """One of them: hears its answer, and is the sink of what follows."""

    def __init__(
        self,
        handler: StateHandler,
        begin: Callable[[_Export], None],
        over: Callable[[_Export], None],
    ) -> None:
        self.handler = handler
        self.call_id = 0
        self.size_bytes = 0
        self._begin = begin
        self._over = over

    def on_answer(self, answer: Answer) -> None:
        """The state follows."""
        self.size_bytes = instance_of(answer, ExportedSequence).size_bytes
        self._begin(self)
        self.handler.on_answer(answer)

    def on_refused(self, error: ErrorObject) -> None:
        """There is none."""
        self.handler.on_refused(error)

    def on_link_lost(self) -> None:
        """There will be none."""
        self.handler.on_link_lost()

    def put(self, piece: bytes) -> int:
        """Pass it on; credit is granted when the handler says that it has."""
        self.tell(lambda: self.handler.on_state(piece))
        return 0

    def whole(self) -> None:
        """It was all there."""
        self._over(self)
        self.tell(self.handler.on_whole)

    def failed(self, reason: str) -> None:
        """What came was not what the answer said; the link counts it as garbage."""
        log.warning("a sequence's state is unusable", call=self.call_id, reason=reason)
        self._over(self)
        self.tell(lambda: self.handler.on_refused(UNUSABLE))

    def tell(self, what: Callable[[], None]) -> None:
        """A handler's fault must not reach the link."""
        try:
            what()
        except Exception:
            log.exception("export handler failed", call=self.call_id)
