"""A sequence's way from one agent to another: exported here, imported there, never held as a whole.

What comes in waits, at most a transfer's window of it, until the other link has room; credit is
granted as it leaves. When to move, and what becomes of the call, is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable

from balancer.fleet.agent_link import AgentLink
from balancer.fleet.queries import Answer
from protocol.invariants import instance_of
from protocol.jsonrpc import CallId, ErrorObject
from protocol.refusals import RefusalCode
from protocol.to_agent import (
    ExportedSequence,
    ExportSequence,
    ImportedSequence,
    ImportSequence,
)

OnEnd = Callable[[ExportedSequence | None, ErrorObject | None], None]


class Move:
    """One move, begun at once. `on_end` hears once of its end: what was exported, if anything was,
    and what went wrong, if anything did. `cancel` ends it without a word.
    """

    def __init__(
        self,
        call: CallId,
        source: AgentLink,
        target: AgentLink,
        *,
        release: bool,
        cache_scope: str,
        on_end: OnEnd,
    ) -> None:
        self._source = source
        self._target = target
        self._cache_scope = cache_scope
        self._on_end = on_end
        self._exported: ExportedSequence | None = None
        self._waiting = bytearray()
        self._is_whole = False
        self._import_id: int | None = None
        self._is_over = False
        self._export_id = source.queries.export_sequence(
            ExportSequence(call=call, release=release), self
        )

    @property
    def waiting_bytes(self) -> int:
        """What is held here now."""
        return len(self._waiting)

    def cancel(self) -> None:
        """End it; the released call stays ended."""
        if not self._is_over:
            self._give_up()

    # --- what the source says ---

    def on_answer(self, answer: Answer) -> None:
        """The export's answer: have the target expect its state."""
        self._exported = exported = instance_of(answer, ExportedSequence)
        params = ImportSequence(
            tokens=exported.tokens,
            size_bytes=exported.size_bytes,
            kv_key=exported.kv_key,
            cache_scope=self._cache_scope,
        )
        if self._target.is_closed:
            self._fail(_lost("to"))
            return
        self._import_id = self._target.queries.import_sequence(params, self, _Import(self))

    def on_state(self, piece: bytes) -> None:
        """Send it on when there is room."""
        if not self._is_over:
            self._waiting += piece
            self._target.queries.wake_streams()

    def on_whole(self) -> None:
        """The rest is the target's business."""
        self._is_whole = True

    def on_refused(self, error: ErrorObject) -> None:
        """There is no state, or what came is none."""
        self._fail(error)

    def on_link_lost(self) -> None:
        """The rest of the state will not come."""
        self._fail(_lost("from"))

    # --- what the target's link takes ---

    @property
    def size_bytes(self) -> int:
        """What was exported."""
        return self._exported.size_bytes if self._exported is not None else 0

    def take(self, most_bytes: int) -> bytes:
        """The next bytes that are here; the source may send as many more."""
        piece = bytes(self._waiting[:most_bytes])
        del self._waiting[:most_bytes]
        self._source.queries.state_passed_on(self._export_id, len(piece))
        return piece

    def close(self) -> None:
        """All was taken, or the target wants no more; its answer says which."""

    # --- the end ---

    def imported(self) -> None:
        """The target has it, or says so before it can."""
        if self._is_over:
            return
        self._is_over = True
        self._waiting.clear()
        if not self._is_whole:
            self._source.queries.cancel_export(self._export_id)
        self._on_end(self._exported, None)

    def refused(self, error: ErrorObject) -> None:
        """The target does not want it, or is gone."""
        self._fail(error)

    def _fail(self, error: ErrorObject) -> None:
        if not self._is_over:
            self._give_up()
            self._on_end(self._exported, error)

    def _give_up(self) -> None:
        self._is_over = True
        self._waiting.clear()
        self._source.queries.cancel_export(self._export_id)
        if self._import_id is not None:
            self._target.queries.cancel(self._import_id)


class _Import:
    """What the target says of the import."""

    def __init__(self, move: Move) -> None:
        self._move = move

    def on_answer(self, answer: Answer) -> None:
        instance_of(answer, ImportedSequence)
        self._move.imported()

    def on_refused(self, error: ErrorObject) -> None:
        self._move.refused(error)

    def on_link_lost(self) -> None:
        self._move.refused(_lost("to"))


def _lost(which: str) -> ErrorObject:
    message = f"the link of the agent that it went {which} is lost"
    return ErrorObject(code=int(RefusalCode.CANNOT_MOVE), message=message)
