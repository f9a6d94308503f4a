"""A move between two links: piece by piece, within the window, and over in every way once."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from structlog.testing import capture_logs

from balancer.fleet.exports import StateHandler
from balancer.fleet.moving import Move
from balancer.fleet.queries import Answer
from balancer.fleet.roster import Roster
from balancer.observability.metrics import Metrics
from balancer.settings import LiveSettings, Settings
from protocol import codec
from protocol.agent_status import AgentStatus
from protocol.errors import ProtocolError
from protocol.jsonrpc import ErrorObject, ErrorResponse, Notification, Request, RpcCode
from protocol.refusals import RefusalCode
from protocol.streams import Source
from protocol.to_agent import (
    Cancel,
    ExportedSequence,
    ExportSequence,
    ImportedSequence,
    ImportSequence,
)
from protocol.to_balancer import Register
from protocol.transfer_messages import AbortTransfer, Credit
from protocol.transfers import WINDOW_BYTES, Inbox, Outbox

STATE = bytes(range(256)) * 4096 * 3
EXPORTED = ExportedSequence(tokens=9, size_bytes=len(STATE), kv_key="k", sampler_state=(2.5,))
NO = ErrorObject(code=int(RefusalCode.CANNOT_MOVE), message="no")


class Agent:
    """An agent without a socket: both ends of its link's transfers, and what it is asked."""

    def __init__(self, roster: Roster, name: str) -> None:
        self.requests: list[Request] = []
        self.cancels: list[object] = []
        self.outbox = Outbox()
        self.inbox = Inbox(collect_data=False)
        self._streams = Outbox()
        self.link = roster.open_link(
            send=self._take, close=lambda _: None, on_transfer=self._on_transfer, streams=self
        )
        status = AgentStatus(seq=1, capacity_version=0, slots_total=4)
        register = Register(name=name, epoch="e", protocol_min=1, protocol_max=1, status=status)
        self.link.receive(codec.encode_request("register", register))

    # the socket

    def put_stream(self, call_id: int, source: Source) -> None:
        self._streams.put_stream(call_id, source)

    def drop_stream(self, call_id: int) -> None:
        self._streams.drop_stream(call_id)

    def wake_streams(self) -> None:
        """Nothing is written before `flow`."""

    def _on_transfer(self, message: Credit | AbortTransfer) -> None:
        if isinstance(message, Credit):
            self._streams.on_credit(message)
        else:
            self._streams.on_abort(message)

    def _take(self, data: bytes) -> None:
        [message] = codec.AGENT_RECEIVES.decode(data)
        assert not isinstance(message, ProtocolError)
        match message:
            case Request():
                self.requests.append(message)
            case Notification(params=Credit() as credit):
                self.outbox.on_credit(credit)
            case Notification(params=AbortTransfer() as abort):
                self.outbox.on_abort(abort)
            case Notification(params=Cancel(call=call)):
                self.cancels.append(call)
            case ErrorResponse():
                raise AssertionError(message)

    # the test's

    @property
    def is_sending(self) -> bool:
        """Whether anything is on its way to the agent."""
        return self._streams.has_transfers

    def flow(self) -> int:
        """Carry what can be carried now, both ways; how many pieces that were."""
        sent = self.outbox.take_binary()
        for piece in sent:
            self.link.receive_piece(piece)
        got = self._streams.take_binary()
        for piece in got:
            self.inbox.feed(piece)
        while self.inbox.replies:
            self.link.receive(self.inbox.replies.popleft())
        return len(sent) + len(got)

    def result(self, answer: Answer) -> None:
        self.link.receive(codec.encode_result(self.requests[-1].id, answer))

    def refuse(self) -> None:
        self.link.receive(codec.encode_error(self.requests[-1].id, NO))


class Basin:
    def __init__(self) -> None:
        self.size_bytes = len(STATE)
        self.data = b""
        self.ends: list[str] = []

    def put(self, piece: bytes) -> int:
        self.data += piece
        return len(piece)

    def whole(self) -> None:
        self.ends.append("whole")

    def failed(self, reason: str) -> None:
        self.ends.append(reason)


class Site:
    """A move between two agents, with its end written down."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        roster = Roster(settings=LiveSettings(Settings()), metrics=self.metrics, now=lambda: 100.0)
        self.source, self.target = Agent(roster, "one"), Agent(roster, "two")
        self.ends: list[tuple[ExportedSequence | None, ErrorObject | None]] = []
        self.move = Move(
            5,
            self.source.link,
            self.target.link,
            release=True,
            cache_scope="s",
            on_end=lambda exported, error: self.ends.append((exported, error)),
        )
        self.basin = Basin()

    def export(self, answer: ExportedSequence = EXPORTED, data: bytes = STATE) -> None:
        """The source answers, and its state is on its way."""
        self.source.result(answer)
        call = self.source.requests[-1].id
        assert isinstance(call, int)
        self.source.outbox.put_data(call, data)

    def accept(self) -> None:
        """The target wants what comes."""
        call = self.target.requests[-1].id
        assert isinstance(call, int)
        self.target.inbox.expect(call, self.basin)

    def flow(self, rounds: int = 100) -> None:
        for _ in range(rounds):
            if not self.source.flow() + self.target.flow():
                return

    @property
    def garbage(self) -> float:
        families = self.metrics.registry.collect()
        samples = (sample for family in families for sample in family.samples)
        return sum(s.value for s in samples if s.name == "paddler_link_garbage_total")

    def nothing_is_left(self) -> None:
        self.flow()
        assert (len(self.source.link.queries), len(self.target.link.queries)) == (0, 0)
        assert not self.target.is_sending
        assert not self.source.outbox.has_transfers
        assert self.move.waiting_bytes == 0


@pytest.fixture
def site() -> Site:
    return Site()


def test_a_state_goes_from_one_agent_to_the_other_and_is_never_held_as_a_whole(site: Site) -> None:
    [asked] = site.source.requests
    assert asked.params == ExportSequence(call=5, release=True)
    site.export()
    [told] = site.target.requests
    assert told.params == ImportSequence(
        tokens=9, size_bytes=len(STATE), kv_key="k", cache_scope="s"
    )
    site.accept()
    for _ in range(10):
        site.source.flow()
    assert site.move.waiting_bytes == WINDOW_BYTES
    site.flow()
    assert (site.basin.data, site.basin.ends) == (STATE, ["whole"])
    assert site.ends == []
    site.target.result(ImportedSequence(tokens=9))
    assert site.ends == [(EXPORTED, None)]
    site.nothing_is_left()
    assert site.garbage == 0


@pytest.mark.parametrize("size", [1000, 100_001])
def test_pieces_of_any_size_arrive_in_pieces_of_another(site: Site, size: int) -> None:
    site.source.result(EXPORTED)
    site.accept()
    call = site.source.requests[-1].id
    assert isinstance(call, int)
    for start in range(0, len(STATE), size):
        last = start + size >= len(STATE)
        header = struct.pack("<IQIB", 1, start, call, last)
        site.source.link.receive_piece(header + STATE[start : start + size])
        if start % 7 == 0 or site.move.waiting_bytes > WINDOW_BYTES - size:
            site.flow()
    site.flow()
    assert (site.basin.data, site.basin.ends, site.garbage) == (STATE, ["whole"], 0)


@pytest.mark.parametrize("rounds", [0, 2])
def test_a_target_that_says_it_has_what_it_has_not_stops_the_export(
    site: Site, rounds: int
) -> None:
    site.export()
    site.flow(rounds)
    site.target.result(ImportedSequence(tokens=9))
    assert site.ends == [(EXPORTED, None)]
    site.nothing_is_left()
    assert site.garbage == 0


def test_a_refused_export_ends_the_move_with_nothing(site: Site) -> None:
    site.source.refuse()
    assert site.ends == [(None, NO)]
    assert site.target.requests == []
    site.nothing_is_left()


@pytest.mark.parametrize("rounds", [0, 1, 2])
def test_a_refused_import_stops_the_export(site: Site, rounds: int) -> None:
    site.export()
    site.flow(rounds)
    site.target.refuse()
    assert site.ends == [(EXPORTED, NO)]
    site.nothing_is_left()
    assert site.garbage == 0


@pytest.mark.parametrize("when", ["before the answer", "in the middle", "after it"])
def test_a_cancelled_move_says_nothing_and_leaves_nothing(site: Site, when: str) -> None:
    if when != "before the answer":
        site.export()
        site.accept()
        site.flow(2)
    if when == "after it":
        site.flow()
        site.target.result(ImportedSequence(tokens=9))
        site.ends.clear()
    site.move.cancel()
    site.move.cancel()
    if when == "before the answer":
        assert site.source.cancels == [site.source.requests[-1].id]
        site.export()
    if when == "in the middle":
        assert site.target.cancels == [site.target.requests[-1].id]
        site.target.refuse()
    assert site.ends == []
    site.nothing_is_left()
    assert site.garbage == 0


@pytest.mark.parametrize("which", ["source", "target"])
@pytest.mark.parametrize("is_answered", [False, True])
def test_a_lost_link_ends_the_move(site: Site, which: str, is_answered: bool) -> None:
    if is_answered:
        site.export()
        site.accept()
        site.flow(2)
    link = site.source.link if which == "source" else site.target.link
    link.closed("gone")
    if not is_answered and which == "target":
        site.export()
    [(exported, error)] = site.ends
    assert exported == (EXPORTED if is_answered or which == "target" else None)
    assert error is not None
    assert error.code == RefusalCode.CANNOT_MOVE
    if which == "source" and is_answered:
        assert site.target.cancels
        site.target.refuse()
    site.nothing_is_left()


@pytest.mark.parametrize("data", [STATE[:-1], STATE + b"x"])
def test_a_state_of_another_size_than_announced_ends_the_move(site: Site, data: bytes) -> None:
    site.export(data=data)
    site.accept()
    with capture_logs():
        site.flow()
    [(_, error)] = site.ends
    assert error is not None
    assert error.code == RpcCode.INTERNAL_ERROR
    assert site.target.cancels
    assert site.garbage == 1
    site.target.refuse()
    site.nothing_is_left()


@pytest.mark.parametrize("size", [0, 2**30 + 1])
def test_an_impossible_answer_ends_the_move(site: Site, size: int) -> None:
    site.source.result(ExportedSequence(tokens=9, size_bytes=size, kv_key="k"))
    [(exported, error)] = site.ends
    assert exported is None
    assert error is not None
    assert error.code == RpcCode.INTERNAL_ERROR
    site.nothing_is_left()


def test_a_handler_that_raises_does_not_cost_the_link(site: Site) -> None:
    class Broken:
        def on_answer(self, answer: Answer) -> None: ...
        def on_state(self, piece: bytes) -> None:
            raise RuntimeError(f"a defect of the handler at {len(piece)} bytes")

        def on_whole(self) -> None: ...
        def on_refused(self, error: ErrorObject) -> None: ...
        def on_link_lost(self) -> None: ...

    broken: StateHandler = Broken()
    call = site.source.link.queries.export_sequence(ExportSequence(call=5), broken)
    site.source.result(EXPORTED)
    site.source.outbox.put_data(call, STATE)
    with capture_logs() as logs:
        site.source.flow()
    assert logs[0]["event"] == "export handler failed"
    assert not site.source.link.is_closed


def test_a_link_without_streams_takes_no_import(site: Site) -> None:
    roster = Roster(settings=LiveSettings(Settings()), metrics=Metrics(), now=lambda: 100.0)
    link = roster.open_link(send=lambda _: None, close=lambda _: None)
    handler: Any = None
    with pytest.raises(ValueError, match="cannot be sent"):
        link.queries.import_sequence(
            ImportSequence(tokens=1, size_bytes=9, kv_key="k"), site.move, handler
        )
    link.queries.wake_streams()
