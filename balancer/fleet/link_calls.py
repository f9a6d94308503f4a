"""The calls of one agent link that hold a slot, from question to end.

A call is in the table from `call` until the agent ends it, so the table's length is the number of
slots that the link claims. Ending and cancelling are different things: a cancelled call keeps
its place, and its slot, until the agent confirms.

    call -> (committed) -> tokens* -> finished | failed
    call -> refused
    any  -> link lost
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from collections.abc import Set as AbstractSet

import structlog

from balancer.fleet.call_handler import DROPPED, CallHandler
from balancer.fleet.ended_calls import EndedCalls
from protocol.codec import decode_result, encode_notification, encode_request
from protocol.jsonrpc import CallId, ErrorObject, RpcCode
from protocol.to_agent import Cancel, Committed, Continue, GenerateTokens, Pause
from protocol.to_balancer import Tokens

log = structlog.get_logger(__name__)

_FORGOTTEN = ErrorObject(
    code=int(RpcCode.INTERNAL_ERROR), message="the agent does not hold the call any more"
)
_DROPPED = ErrorObject(code=int(RpcCode.INTERNAL_ERROR), message="the balancer dropped it")
LONGEST_STEP_S = 10.0
"""A gap between two steps that is longer than this is not taken for a step."""


def _nothing() -> None:
    """For a link whose agent has not introduced itself."""


class LinkCalls:
    """`on_unknown` hears of what concerns no call here, `on_committed` that the agent took one,
    before its handler does, `on_ended` that one is over, after its handler did."""

    def __init__(
        self,
        send: Callable[[bytes], None],
        call_ids: Iterator[int],
        *,
        ended: EndedCalls,
        now: Callable[[], float],
        on_unknown: Callable[[CallId], None],
        on_committed: Callable[[], None],
        on_ended: Callable[[], None],
    ) -> None:
        self._send = send
        self._call_ids = call_ids
        self._ended = ended
        self._now = now
        self._on_unknown = on_unknown
        self._on_committed = on_committed
        self._on_ended = on_ended
        self._handlers: dict[CallId, CallHandler] = {}
        self.claims: Collection[CallId] = self._handlers.keys()
        """The calls, always as of now."""
        self.on_claims: Callable[[], None] = _nothing
        """Called whenever there are more of them or fewer, before anybody else hears of it."""
        self._unconfirmed: dict[CallId, float] = {}
        self._cancelled: set[CallId] = set()
        self._committed: set[CallId] = set()
        self._missing: set[CallId] = set()
        self._last_step_s: float | None = None
        self.longest_step_s = 0.0
        self.agent_name = ""
        """For the log."""

    def __len__(self) -> int:
        return len(self._handlers)

    def __contains__(self, call_id: CallId) -> bool:
        return call_id in self._handlers

    def oldest_unconfirmed_s(self) -> float | None:
        """When the oldest call or cancel that still has no answer was sent."""
        return min(self._unconfirmed.values(), default=None)

    # --- what is sent ---

    def call(self, params: GenerateTokens, handler: CallHandler) -> int:
        """As `AgentLink.call`."""
        call_id = next(self._call_ids)
        self._send(encode_request(call_id, params))
        self._handlers[call_id] = handler
        self._unconfirmed[call_id] = self._now()
        self.on_claims()
        return call_id

    def cancel(self, call_id: int) -> None:
        """As `AgentLink.cancel`."""
        if call_id not in self._handlers or call_id in self._cancelled:
            return
        self._cancelled.add(call_id)
        self._unconfirmed[call_id] = self._now()
        self._send(encode_notification(Cancel(call=call_id)))

    def pause(self, call_id: int) -> None:
        """As `AgentLink.pause`."""
        if call_id in self._handlers:
            self._send(encode_notification(Pause(call=call_id)))

    def continue_(self, call_id: int) -> None:
        """As `AgentLink.continue_`."""
        if call_id in self._handlers:
            self._send(encode_notification(Continue(call=call_id)))

    def abandon(self, call_id: int) -> None:
        """As `AgentLink.abandon`."""
        if call_id in self._handlers:
            self._handlers[call_id] = DROPPED
            self.cancel(call_id)

    # --- what the agent says ---

    def answered(self, call_id: CallId, result: bytes) -> None:
        """The agent took the call. Raises `ProtocolError` if that is not what it says; `drop` the
        call then."""
        handler = self._handlers[call_id]
        if call_id not in self._cancelled:
            self._unconfirmed.pop(call_id, None)
        committed = decode_result(result, Committed)
        self._committed.add(call_id)
        self._on_committed()
        try:
            handler.on_committed(committed)
        except Exception:
            log.exception("call handler failed", agent=self.agent_name, call=call_id)
            self.drop(call_id)

    def take_tokens(self, step: Tokens) -> None:
        """An engine step's tokens, each to its call."""
        self._note_step()
        logprobs = step.logprobs
        if step.prefill or step.sampler_states:
            self._take_rarer(step)
        for index, call_id in enumerate(step.calls):
            handler = self._handlers.get(call_id)
            if handler is None:
                self._on_unknown(call_id)
                continue
            try:
                handler.on_tokens(
                    step.token_ids[index],
                    step.deltas[index],
                    logprobs[index] if logprobs else (),
                )
            except Exception:
                log.exception("call handler failed", agent=self.agent_name, call=call_id)
                self.drop(call_id)

    def garbled(self, calls: Iterable[CallId] | None) -> None:
        """A message that may have held tokens of these calls, or of any (None), cannot be read."""
        for call_id in tuple(self._handlers) if calls is None else calls:
            handler = self._handlers.get(call_id)
            if handler is None:
                continue
            try:
                handler.on_garbled()
            except Exception:
                log.exception("call handler failed", agent=self.agent_name, call=call_id)
                self.drop(call_id)

    def _take_rarer(self, step: Tokens) -> None:
        for progress in step.prefill:
            handler = self._handlers.get(progress.call)
            if handler is not None:
                handler.on_prefill(progress.done)
        for call_id, state in zip(step.calls, step.sampler_states, strict=False):
            handler = self._handlers.get(call_id)
            if handler is not None and state:
                handler.on_sampler_state(state)

    def end(self, call_id: CallId, tell: Callable[[CallHandler], None]) -> None:
        """The call is over, in the way that its handler is told."""
        handler = self._handlers.pop(call_id, None)
        if handler is None:
            self._on_unknown(call_id)
            return
        self.on_claims()
        self._unconfirmed.pop(call_id, None)
        self._committed.discard(call_id)
        self._ended.add(call_id, was_cancelled=call_id in self._cancelled)
        self._cancelled.discard(call_id)
        try:
            tell(handler)
        except Exception:
            log.exception("call handler failed", agent=self.agent_name, call=call_id)
        if not self._handlers:
            self._last_step_s = None
        self._on_ended()

    def compare(self, held: AbstractSet[CallId]) -> None:
        """As `AgentLink.compare`."""
        missing = self._committed - held
        for call_id in missing & self._missing:
            log.warning("agent forgot a call", agent=self.agent_name, call=call_id)
            self._cancelled.add(call_id)  # what may still come about it is no garbage
            self.end(call_id, lambda handler: handler.on_failed(_FORGOTTEN))
        self._missing = missing & self._committed

    def drop(self, call_id: CallId) -> None:
        """Cancel a call whose handler hears no more of it, but that it failed: a fault of one call
        must not reach the others."""
        handler = self._handlers.get(call_id)
        if handler is None:
            return
        self._handlers[call_id] = DROPPED
        if isinstance(call_id, int):
            self.cancel(call_id)
        try:
            handler.on_failed(_DROPPED)
        except Exception:
            log.exception("call handler failed twice", agent=self.agent_name, call=call_id)

    # --- the link's end ---

    def lose(self) -> dict[CallId, CallHandler]:
        """Give all calls up; the caller has their handlers told with `tell_lost`."""
        lost = dict(self._handlers)
        self._handlers.clear()  # not another dict: `claims` looks at this one
        self.on_claims()
        self._unconfirmed.clear()
        self._cancelled.clear()
        self._committed.clear()
        return lost

    def tell_lost(self, lost: dict[CallId, CallHandler]) -> None:
        """Tell handlers that their link is gone."""
        for call_id, handler in lost.items():
            try:
                handler.on_link_lost()
            except Exception:
                log.exception("call handler failed", agent=self.agent_name, call=call_id)

    def _note_step(self) -> None:
        before, self._last_step_s = self._last_step_s, self._now()
        if before is not None:
            gap_s = self._last_step_s - before
            if self.longest_step_s < gap_s <= LONGEST_STEP_S:
                self.longest_step_s = gap_s
