"""One agent's link, without a socket: bytes in, callbacks out.

Takes messages apart by their form; what they are about is in `link_calls`, which claims slots,
`link_queries`, which does not, and with the link's owner.

Everything runs synchronously inside `receive`; there is no task and no queue here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from collections.abc import Set as AbstractSet

import structlog
from msgspec import Struct

from balancer.errors import LinkRefused
from balancer.fleet.call_handler import CallHandler
from balancer.fleet.ended_calls import EndedCalls
from balancer.fleet.garbage import GarbageKind, GarbageMeter
from balancer.fleet.link_calls import LinkCalls
from balancer.fleet.link_owner import LinkOwner
from balancer.fleet.link_queries import LinkQueries, Streams
from balancer.observability.metrics import Metrics
from balancer.policy.identity.badge import NO_BADGE, Badge
from protocol.agent_status import AgentStatus
from protocol.codec import (
    BALANCER_RECEIVES,
    Codec,
    decode_result,
    encode_error,
    encode_notification,
    encode_request,
    encode_result,
)
from protocol.errors import ProtocolError
from protocol.invariants import present
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
from protocol.to_agent import Cancel, GenerateTokens, Snapshot
from protocol.to_balancer import (
    CacheChanged,
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
from protocol.transfers import Inbox

__all__ = ["AgentLink", "CallHandler", "LinkOwner"]

log = structlog.get_logger(__name__)

TOKENS = "tokens"
_ANSWERS = Codec({}, frozenset())
"""What an agent sends in pieces is a big answer. Of anything else nothing is decoded: 32 MiB of
`tokens` would hold the event loop for seconds."""


OnIntroduced = Callable[[str, LinkRefused | None], None]


def ignore_introduction(_name: str, _refusal: LinkRefused | None) -> None:
    """For links that nobody writes about."""


class AgentLink:
    """One agent's connection.

    `send` queues the bytes of one message; it raises `FrameTooLarge` for a call that is too big
    and nothing else. `close` asks the socket to close when what was queued is out. The socket's
    end must call `closed`. `on_transfer` hears the flow control of big messages. Without `streams`
    nothing can be imported. `on_introduced(agent's name, refusal)` hears once who it is.
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
        streams: Streams | None = None,
        on_introduced: OnIntroduced = ignore_introduction,
        badge: Badge = NO_BADGE,
    ) -> None:
        self.badge = badge
        """With what its agent came."""
        self._send = send
        self._on_introduced = on_introduced
        self._on_transfer = on_transfer
        self._close_socket = close
        self._owner = owner
        self._call_ids = call_ids
        self._now = now
        self._garbage = GarbageMeter(metrics=metrics, now=now)
        self._snapshot_id: CallId | None = None
        self._ended = EndedCalls()
        self._calls = LinkCalls(
            send,
            call_ids,
            ended=self._ended,
            now=now,
            on_unknown=self._on_unknown_answer,
            on_committed=lambda: owner.on_committed(self),
            on_ended=lambda: owner.on_call_ended(self),
        )
        self._inbox = Inbox()
        self.claims: Collection[CallId] = self._calls.claims
        """The calls that hold, or are about to hold, a slot of this agent; always as of now."""
        self.queries = LinkQueries(
            send, call_ids, inbox=self._inbox, streams=streams, on_end=self._on_query_ended
        )
        self.agent_name = ""
        self.welcome: Welcome | None = None
        """What the agent was told when it was accepted."""
        self.is_closed = False
        self.opened_s = self.last_received_s = now()

    @property
    def is_registered(self) -> bool:
        """Whether the agent has introduced itself and was accepted."""
        return bool(self.agent_name)

    @property
    def heartbeat_interval_s(self) -> float:
        """Between two heartbeats, as the agent was told; of one that is registered."""
        return present(self.welcome).heartbeat_interval_ms / 1000

    @property
    def claimed_slots(self) -> int:
        """How many claims there are."""
        return len(self.claims)

    def watch_claims(self, on_claims: Callable[[], None]) -> None:
        """Have somebody told of every change of `claims` at once."""
        self._calls.on_claims = on_claims

    def has_ever_called(self, call_id: CallId) -> bool:
        """Whether the call runs on this link or ended on it lately."""
        return call_id in self._calls or call_id in self._ended

    @property
    def longest_step_s(self) -> float:
        """The longest gap between two steps while calls ran."""
        return self._calls.longest_step_s

    def oldest_unconfirmed_s(self) -> float | None:
        """When the oldest call or cancel that still has no answer was sent."""
        return self._calls.oldest_unconfirmed_s()

    def call(self, params: GenerateTokens, handler: CallHandler) -> int:
        """Send a call and claim its slot.

        Raises what `send` raises about the message's size (`FrameTooLarge`), and
        `UnicodeEncodeError` for text that is none; then nothing is claimed.
        """
        return self._calls.call(params, handler)

    def cancel(self, call_id: int) -> None:
        """Stop a call. Its handler still hears its end; the slot stays claimed until then."""
        self._calls.cancel(call_id)

    def abandon(self, call_id: int) -> None:
        """Cancel a call that goes on elsewhere: its handler hears no more of it. The slot stays
        claimed until the agent confirms."""
        self._calls.abandon(call_id)

    def pause(self, call_id: int) -> None:
        """Stop producing for a call, keeping its slot."""
        self._calls.pause(call_id)

    def continue_(self, call_id: int) -> None:
        """Go on with a paused call."""
        self._calls.continue_(call_id)

    def ask_snapshot(self) -> None:
        """Ask for a status and all that is cached, unless an earlier question has no answer yet."""
        if self._snapshot_id is None and not self.is_closed:
            self._snapshot_id = next(self._call_ids)
            self._send(encode_request(self._snapshot_id, Snapshot()))

    def compare(self, held: AbstractSet[CallId]) -> None:
        """Fail the committed calls that two statuses in a row do not name.

        Their end was lost on the way, as a message that could not be used; neither the client nor
        the slot may wait for it for ever.
        """
        self._calls.compare(held)

    def receive(self, frame: bytes | str) -> None:
        """Take one frame. Raises nothing about its content."""
        if self.is_closed:
            return
        self.last_received_s = self._now()
        try:
            messages = BALANCER_RECEIVES.decode(frame)
        except ProtocolError as error:
            self._count_garbage("bad_frame", str(error))
            self._calls.garbled(None)
            return
        for message in messages:
            self._take(message)

    def receive_piece(self, frame: bytes) -> None:
        """Take a binary frame: a piece of a big answer, or of what belongs to one. Raises nothing
        about its content."""
        if self.is_closed:
            return
        self.last_received_s = self._now()
        if not self.is_registered:
            self._count_garbage("unregistered", "the first message must be `register`")
            return
        try:
            whole = self._inbox.feed(frame)
            for message in _ANSWERS.decode(whole, max_bytes=len(whole)) if whole else ():
                self._take(message)
        except ProtocolError as error:
            self._count_garbage("bad_frame", str(error))
        while self._inbox.data:
            self._take_data(*self._inbox.data.popleft())
        self.queries.send_replies()

    def _take_data(self, call_id: int, data: bytes) -> None:
        if call_id not in self.queries:
            self._on_unknown_answer(call_id)
            return
        try:
            self.queries.take_data(call_id, data)
        except ProtocolError as error:
            self._count_garbage("bad_message", str(error))

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
        lost = self._calls.lose()
        self._owner.on_closed(self, reason)
        self._calls.tell_lost(lost)
        self.queries.link_lost()

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
                self._calls.take_tokens(params)
            case Finished() as finished:
                self._calls.end(finished.call, lambda handler: handler.on_finished(finished))
            case Failed(call=call_id, error=error):
                self._calls.end(call_id, lambda handler: handler.on_failed(error))
            case Heartbeat():
                self._owner.on_heartbeat(self, params)
            case CacheChanged():
                self._owner.on_cache_changed(self, params)
            case IssueRaised():
                self._owner.on_issue_raised(self, params.issue)
            case IssueCleared():
                self._owner.on_issue_cleared(self, params.code)
            case Goodbye():
                self._owner.on_goodbye(self, params.reason)
            case Credit() | AbortTransfer():
                self._on_transfer(params)

    def _on_response(self, response: Response) -> None:
        if response.id == self._snapshot_id:
            self._on_snapshot(response)
            return
        if response.id in self.queries:
            self._on_query_answer(response)
            return
        if response.id not in self._calls:
            self._on_unknown_answer(response.id)
            self._cancel_late(response.id)
            return
        try:
            self._calls.answered(response.id, response.result)
        except ProtocolError as error:
            self._count_garbage("bad_message", str(error))
            self._calls.drop(response.id)

    def _on_query_answer(self, response: Response) -> None:
        try:
            self.queries.answered(response.id, response.result)
        except ProtocolError as error:
            self._count_garbage("bad_message", str(error))

    def _on_snapshot(self, response: Response) -> None:
        self._snapshot_id = None
        try:
            status = decode_result(response.result, AgentStatus)
        except ProtocolError as error:
            self._count_garbage("bad_message", str(error))
            return
        self._owner.on_snapshot(self, status)

    def _on_error_response(self, response: ErrorResponse) -> None:
        if response.id is not None and response.id == self._snapshot_id:
            self._snapshot_id = None
            log.warning("no snapshot", agent=self.agent_name, reason=response.error.message)
            return
        if response.id is not None and response.id in self.queries:
            self.queries.refused(response.id, response.error)
            return
        if response.id is None:
            self._count_garbage("rejected", response.error.message)
            return
        self._calls.end(response.id, lambda handler: handler.on_refused(response.error))

    def _on_query_ended(self, call_id: CallId, was_cancelled: bool) -> None:
        self._ended.add(call_id, was_cancelled=was_cancelled)
        self._owner.on_query_ended(self)

    def _on_unknown_answer(self, call_id: CallId) -> None:
        """What crosses a cancel on the way is no garbage: an end may be told twice, and a big call
        may arrive after its own cancel."""
        if not (self.is_closed or self._ended.was_cancelled(call_id)):
            self._count_garbage("unknown_call", f"something about the call {call_id!r}")

    def _cancel_late(self, call_id: CallId) -> None:
        if self._ended.was_cancelled(call_id) and not self.is_closed:
            self._send(encode_notification(Cancel(call=call_id)))

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
            self._on_introduced(request.params.name, refusal)
            self.close(str(refusal))
            return
        self.agent_name = self._calls.agent_name = request.params.name
        self.welcome = welcome
        self._send(encode_result(request.id, welcome))
        self._on_introduced(self.agent_name, None)
        self._owner.on_registered(self)

    def _reject(self, error: ProtocolError) -> None:
        if error.call_id is not None:
            self._send(encode_error(error.call_id, error.to_error_object()))
        self._count_garbage("bad_message", str(error))
        if error.method in (TOKENS, ""):
            self._calls.garbled(error.calls)

    def _count_garbage(self, kind: GarbageKind, what: str) -> None:
        if self._garbage.count(kind, what, agent=self.agent_name):
            self._owner.on_unusable(self)
            self.close("too many unusable messages; is the agent of the same version?")
