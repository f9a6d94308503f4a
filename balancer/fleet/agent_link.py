"""JSON-RPC correlation for one agent, without a socket: bytes in, callbacks out.

A call is in the table from `call` until the agent ends it, so the table's length is the number of
slots that this link claims. Ending and cancelling are different things: a cancelled call keeps
its place, and its slot, until the agent confirms.

    call -> (committed) -> tokens* -> finished | failed
    call -> refused
    any  -> link lost

Everything runs synchronously inside `receive`; there is no task and no queue here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from typing import Protocol

import structlog
from msgspec import Struct

from balancer.errors import LinkRefused
from balancer.fleet.call_handler import DROPPED, CallHandler
from balancer.fleet.garbage import GarbageKind, GarbageMeter
from balancer.observability.metrics import Metrics
from protocol.agent_status import Issue
from protocol.codec import (
    BALANCER_RECEIVES,
    decode_result,
    encode_error,
    encode_notification,
    encode_request,
    encode_result,
)
from protocol.errors import ProtocolError
from protocol.jsonrpc import (
    CallId,
    ErrorObject,
    ErrorResponse,
    Message,
    Notification,
    Request,
    Response,
    RpcCode,
)
from protocol.to_agent import Cancel, Committed, Continue, GenerateTokens, Pause
from protocol.to_balancer import (
    Failed,
    Finished,
    Goodbye,
    Heartbeat,
    IssueCleared,
    IssueRaised,
    Register,
    Tokens,
    Welcome,
)
from protocol.transfer_messages import AbortTransfer, Credit

__all__ = ["AgentLink", "CallHandler", "LinkOwner"]

log = structlog.get_logger(__name__)

_FORGOTTEN = ErrorObject(
    code=int(RpcCode.INTERNAL_ERROR), message="the agent does not hold the call any more"
)
REMEMBERED_ENDS = 1024
LONGEST_STEP_S = 10.0
"""A gap between two steps that is longer than this is not taken for a step."""


class LinkOwner(Protocol):
    """Who hears what concerns the agent rather than a call."""

    def on_register(self, link: AgentLink, register: Register) -> Welcome:
        """Raises `LinkRefused`. The welcome is not on its way yet, so nothing may be sent."""

    def on_registered(self, link: AgentLink) -> None:
        """The welcome is on its way; calls may follow it."""

    def on_heartbeat(self, link: AgentLink, heartbeat: Heartbeat) -> None: ...

    def on_issue_raised(self, link: AgentLink, issue: Issue) -> None: ...

    def on_issue_cleared(self, link: AgentLink, code: str) -> None: ...

    def on_goodbye(self, link: AgentLink, reason: str) -> None: ...

    def on_committed(self, link: AgentLink) -> None:
        """The agent took a call; its handler hears it after."""

    def on_call_ended(self, link: AgentLink) -> None:
        """A claimed slot was given back; the call's handler heard it before."""

    def on_closed(self, link: AgentLink, reason: str) -> None:
        """Comes before the handlers of the lost calls hear of it."""


class AgentLink:
    """One agent's connection.

    `send` queues the bytes of one message; it raises `FrameTooLarge` for a call that is too big
    and nothing else. `close` asks the socket to close when what was queued is out. The socket's
    end must call `closed`. `on_transfer` hears the flow control of big messages.
    """

    def __init__(
        self,
        *,
        send: Callable[[bytes], None],
        close: Callable[[str], None],
        owner: LinkOwner,
        call_ids: Iterator[int],
        metrics: Metrics,
        now: Callable[[], float],
        on_transfer: Callable[[Credit | AbortTransfer], None],
    ) -> None:
        self._send = send
        self._on_transfer = on_transfer
        self._close_socket = close
        self._owner = owner
        self._call_ids = call_ids
        self._now = now
        self._garbage = GarbageMeter(metrics=metrics, now=now)
        self._calls: dict[CallId, CallHandler] = {}
        self._unconfirmed: dict[CallId, float] = {}
        self._cancelled: set[CallId] = set()
        self._committed: set[CallId] = set()
        self._missing: set[CallId] = set()
        self._ended: OrderedDict[CallId, bool] = OrderedDict()
        self._last_step_s: float | None = None
        self.longest_step_s = 0.0
        self.agent_name = ""
        self.is_closed = False
        self.opened_s = self.last_received_s = now()

    @property
    def is_registered(self) -> bool:
        """Whether the agent has introduced itself and was accepted."""
        return bool(self.agent_name)

    @property
    def claimed_slots(self) -> int:
        """Calls that hold, or are about to hold, a slot of this agent."""
        return len(self._calls)

    def has_ever_called(self, call_id: CallId) -> bool:
        """Whether the call runs on this link or ended on it lately."""
        return call_id in self._calls or call_id in self._ended

    def oldest_unconfirmed_s(self) -> float | None:
        """When the oldest call or cancel that still has no answer was sent."""
        return min(self._unconfirmed.values(), default=None)

    def call(self, params: GenerateTokens, handler: CallHandler) -> int:
        """Send a call and claim its slot.

        Raises what `send` raises about the message's size (`FrameTooLarge`), and
        `UnicodeEncodeError` for text that is none; then nothing is claimed.
        """
        call_id = next(self._call_ids)
        self._send(encode_request(call_id, params))
        self._calls[call_id] = handler
        self._unconfirmed[call_id] = self._now()
        return call_id

    def cancel(self, call_id: int) -> None:
        """Stop a call. Its handler still hears its end; the slot stays claimed until then."""
        if call_id not in self._calls or call_id in self._cancelled:
            return
        self._cancelled.add(call_id)
        self._unconfirmed[call_id] = self._now()
        self._send(encode_notification(Cancel(call=call_id)))

    def pause(self, call_id: int) -> None:
        """Stop producing for a call, keeping its slot."""
        if call_id in self._calls:
            self._send(encode_notification(Pause(call=call_id)))

    def continue_(self, call_id: int) -> None:
        """Go on with a paused call."""
        if call_id in self._calls:
            self._send(encode_notification(Continue(call=call_id)))

    def compare(self, held: AbstractSet[CallId]) -> None:
        """Fail the committed calls that two statuses in a row do not name.

        Their end was lost on the way, as a message that could not be used; neither the client nor
        the slot may wait for it for ever.
        """
        missing = self._committed - held
        for call_id in missing & self._missing:
            log.warning("agent forgot a call", agent=self.agent_name, call=call_id)
            self._cancelled.add(call_id)  # what may still come about it is no garbage
            self._on_end(call_id, lambda handler: handler.on_failed(_FORGOTTEN))
        self._missing = missing & self._committed

    def receive(self, frame: bytes | str) -> None:
        """Take one frame. Raises nothing about its content."""
        if self.is_closed:
            return
        self.last_received_s = self._now()
        try:
            messages = BALANCER_RECEIVES.decode(frame)
        except ProtocolError as error:
            self._count_garbage("bad_frame", str(error))
            return
        for message in messages:
            self._take(message)

    def close(self, reason: str) -> None:
        """End the link from our side: the calls are lost at once, the socket closes."""
        if not self.is_closed:
            self._close_socket(reason)
            self.closed(reason)

    def closed(self, reason: str) -> None:
        """The socket is gone, or as good as gone. Further calls of this do nothing."""
        if self.is_closed:
            return
        self.is_closed = True
        calls, self._calls = self._calls, {}
        self._unconfirmed.clear()
        self._cancelled.clear()
        self._committed.clear()
        self._owner.on_closed(self, reason)
        for call_id, handler in calls.items():
            try:
                handler.on_link_lost()
            except Exception:
                log.exception("call handler failed", agent=self.agent_name, call=call_id)

    def _take(self, message: Message | ProtocolError) -> None:
        if self.is_closed:
            return  # an earlier message of the frame closed the link
        if isinstance(message, ProtocolError):
            self._reject(message)
        elif isinstance(message, Request):
            self._on_request(message)
        elif not self.is_registered:
            self._count_garbage("unregistered", "the first message must be `register`")
        elif isinstance(message, Notification):
            self._on_notification(message.params)
        elif isinstance(message, Response):
            self._on_response(message)
        else:
            self._on_error_response(message)

    def _on_notification(self, params: Struct) -> None:
        match params:
            case Tokens():
                self._on_tokens(params)
            case Finished() as finished:
                self._on_end(finished.call, lambda handler: handler.on_finished(finished))
            case Failed(call=call_id, error=error):
                self._on_end(call_id, lambda handler: handler.on_failed(error))
            case Heartbeat():
                self._owner.on_heartbeat(self, params)
            case IssueRaised():
                self._owner.on_issue_raised(self, params.issue)
            case IssueCleared():
                self._owner.on_issue_cleared(self, params.code)
            case Goodbye():
                self._owner.on_goodbye(self, params.reason)
            case Credit() | AbortTransfer():
                self._on_transfer(params)

    def _on_tokens(self, step: Tokens) -> None:
        self._note_step()
        calls = self._calls
        logprobs = step.logprobs
        for index, call_id in enumerate(step.calls):
            handler = calls.get(call_id)
            if handler is None:
                self._on_unknown_answer(call_id)
                if self.is_closed:
                    return
                continue
            try:
                handler.on_tokens(
                    step.token_ids[index],
                    step.deltas[index],
                    logprobs[index] if logprobs else (),
                )
            except Exception:
                log.exception("call handler failed", agent=self.agent_name, call=call_id)
                self._drop_handler(call_id)

    def _note_step(self) -> None:
        before, self._last_step_s = self._last_step_s, self.last_received_s
        if before is not None:
            gap_s = self.last_received_s - before
            if self.longest_step_s < gap_s <= LONGEST_STEP_S:
                self.longest_step_s = gap_s

    def _on_response(self, response: Response) -> None:
        handler = self._calls.get(response.id)
        if handler is None:
            self._on_unknown_answer(response.id)
            self._cancel_late(response.id)
            return
        if response.id not in self._cancelled:
            self._unconfirmed.pop(response.id, None)
        try:
            committed = decode_result(response.result, Committed)
        except ProtocolError as error:
            self._count_garbage("bad_message", str(error))
            self._drop_handler(response.id)
            return
        self._committed.add(response.id)
        self._owner.on_committed(self)
        try:
            handler.on_committed(committed)
        except Exception:
            log.exception("call handler failed", agent=self.agent_name, call=response.id)
            self._drop_handler(response.id)

    def _on_error_response(self, response: ErrorResponse) -> None:
        if response.id is None:
            self._count_garbage("rejected", response.error.message)
            return
        self._on_end(response.id, lambda handler: handler.on_refused(response.error))

    def _on_end(self, call_id: CallId, tell: Callable[[CallHandler], None]) -> None:
        handler = self._calls.pop(call_id, None)
        if handler is None:
            self._on_unknown_answer(call_id)
            return
        self._unconfirmed.pop(call_id, None)
        self._committed.discard(call_id)
        self._remember_end(call_id)
        try:
            tell(handler)
        except Exception:
            log.exception("call handler failed", agent=self.agent_name, call=call_id)
        if not self._calls:
            self._last_step_s = None
        self._owner.on_call_ended(self)

    def _remember_end(self, call_id: CallId) -> None:
        self._ended[call_id] = call_id in self._cancelled
        self._cancelled.discard(call_id)
        if len(self._ended) > REMEMBERED_ENDS:
            self._ended.popitem(last=False)

    def _on_unknown_answer(self, call_id: CallId) -> None:
        """What crosses a cancel on the way is no garbage: an end may be told twice, and a big call
        may arrive after its own cancel."""
        was_cancelled = self._ended.get(call_id, False)
        if not was_cancelled:
            self._count_garbage("unknown_call", f"something about the call {call_id!r}")

    def _cancel_late(self, call_id: CallId) -> None:
        if self._ended.get(call_id, False) and not self.is_closed:
            self._send(encode_notification(Cancel(call=call_id)))

    def _drop_handler(self, call_id: CallId) -> None:
        """A handler's fault must not reach the other calls."""
        handler = self._calls.get(call_id)
        if handler is None:
            return
        self._calls[call_id] = DROPPED
        if isinstance(call_id, int):
            self.cancel(call_id)
        error = ErrorObject(code=int(RpcCode.INTERNAL_ERROR), message="the balancer dropped it")
        try:
            handler.on_failed(error)
        except Exception:
            log.exception("call handler failed twice", agent=self.agent_name, call=call_id)

    def _on_request(self, request: Request) -> None:
        if self.is_registered or not isinstance(request.params, Register):
            error = ErrorObject(code=int(RpcCode.INVALID_REQUEST), message="already registered")
            self._send(encode_error(request.id, error))
            self._count_garbage("unexpected_message", f"{request.method} a second time")
            return
        try:
            welcome = self._owner.on_register(self, request.params)
        except LinkRefused as refusal:
            error = ErrorObject(
                code=int(RpcCode.INVALID_REQUEST),
                message=str(refusal),
                data={"reason": refusal.reason},
            )
            self._send(encode_error(request.id, error))
            self.close(str(refusal))
            return
        self.agent_name = request.params.name
        self._send(encode_result(request.id, welcome))
        self._owner.on_registered(self)

    def _reject(self, error: ProtocolError) -> None:
        if error.call_id is not None:
            self._send(encode_error(error.call_id, error.to_error_object()))
        self._count_garbage("bad_message", str(error))

    def _count_garbage(self, kind: GarbageKind, what: str) -> None:
        if self._garbage.count(kind, what, agent=self.agent_name):
            self.close("too many unusable messages; is the agent of the same version?")
