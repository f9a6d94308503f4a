"""Transfers that are never in memory as a whole: source, credit, sink, and how they end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import codec
from protocol.errors import FrameTooLarge, MalformedFrame, ProtocolError
from protocol.jsonrpc import Notification
from protocol.transfer_messages import MAX_STATE_BYTES, AbortTransfer, Credit
from protocol.transfers import (
    MAX_DATA_CALL,
    MAX_OPEN_TRANSFERS,
    PIECE_BYTES,
    WINDOW_BYTES,
    Inbox,
    Outbox,
)

BIG = bytes(range(256)) * 4096 * 3
HEADER_BYTES = 17


class Drip:
    """A source that has what it was given by now."""

    def __init__(self, data: bytes, *, ready: int | None = None) -> None:
        self.data = data
        self.ready = len(data) if ready is None else ready
        self.taken = 0
        self.closed = 0

    @property
    def size_bytes(self) -> int:
        return len(self.data)

    def take(self, most_bytes: int) -> bytes:
        piece = self.data[self.taken : min(self.taken + most_bytes, self.ready)]
        self.taken += len(piece)
        return piece

    def close(self) -> None:
        self.closed += 1


class Basin:
    """A sink. `grants`: credit comes with each piece, not later."""

    def __init__(self, size_bytes: int, *, grants: bool = True) -> None:
        self.size_bytes = size_bytes
        self.grants = grants
        self.data = b""
        self.ends: list[str] = []

    def put(self, piece: bytes) -> int:
        self.data += piece
        return len(piece) if self.grants else 0

    def whole(self) -> None:
        self.ends.append("whole")

    def failed(self, reason: str) -> None:
        self.ends.append(reason)


def replies(inbox: Inbox) -> list[Credit | AbortTransfer]:
    found: list[Credit | AbortTransfer] = []
    while inbox.replies:
        (message,) = codec.BALANCER_RECEIVES.decode(inbox.replies.popleft())
        assert isinstance(message, Notification)
        assert isinstance(message.params, Credit | AbortTransfer)
        found.append(message.params)
    return found


def carry(outbox: Outbox, inbox: Inbox) -> None:
    """Everything that can go now."""
    while pieces := outbox.take_binary():
        for piece in pieces:
            assert inbox.feed(piece) is None
        answer(inbox, outbox)


def answer(inbox: Inbox, outbox: Outbox) -> None:
    for reply in replies(inbox):
        if isinstance(reply, Credit):
            outbox.on_credit(reply)
        else:
            outbox.on_abort(reply)


@given(size=st.integers(1, 4 * PIECE_BYTES), steps=st.lists(st.integers(1, PIECE_BYTES * 2)))
def test_a_stream_arrives_as_its_source_drips(size: int, steps: list[int]) -> None:
    outbox, inbox = Outbox(), Inbox()
    source, sink = Drip(b"s" * size, ready=0), Basin(size)
    inbox.expect(7, sink)
    outbox.put_stream(7, source)
    for step in [*steps, size]:
        source.ready = min(size, source.ready + step)
        carry(outbox, inbox)
        assert len(sink.data) == source.ready
    assert (sink.data, sink.ends, source.closed) == (source.data, ["whole"], 1)
    assert not outbox.has_transfers
    assert (outbox.unsent_data_bytes, list(inbox.data)) == (0, [])


def test_a_sink_that_passes_on_later_holds_the_sender_at_its_window() -> None:
    outbox, inbox = Outbox(), Inbox()
    source, sink = Drip(BIG), Basin(len(BIG), grants=False)
    inbox.expect(7, sink)
    outbox.put_stream(7, source)
    assert not outbox.awaits_credit
    carry(outbox, inbox)
    assert (len(sink.data), outbox.awaits_credit) == (WINDOW_BYTES, True)
    inbox.grant(7, 1000)
    answer(inbox, outbox)
    carry(outbox, inbox)
    assert len(sink.data) == WINDOW_BYTES + 1000
    inbox.grant(8, 1000)
    assert replies(inbox) == []


def test_a_source_that_has_nothing_yet_does_not_count_as_waiting_for_credit() -> None:
    outbox = Outbox()
    outbox.put_stream(7, Drip(BIG, ready=0))
    assert outbox.take_binary() == []
    assert (outbox.has_transfers, outbox.awaits_credit) == (True, False)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (BIG[:-1], "its last piece"),
        (b"s", "its last piece"),
        (BIG + b"x", "more than"),
        (BIG, "more than"),
    ],
)
def test_a_stream_of_another_size_than_announced_fails_its_sink(data: bytes, says: str) -> None:
    outbox, inbox = Outbox(), Inbox()
    source, sink = Drip(data), Basin(len(BIG) - 1 if says == "more than" else len(BIG))
    inbox.expect(7, sink)
    outbox.put_stream(7, source)
    with pytest.raises(ProtocolError, match=says):
        carry(outbox, inbox)
    assert len(sink.ends) == 1
    assert says in sink.ends[0]
    assert replies(inbox)[-1] == AbortTransfer(transfer=1)


def test_pieces_beyond_the_credit_fail_the_sink() -> None:
    outbox, inbox = Outbox(), Inbox()
    sink = Basin(len(BIG), grants=False)
    inbox.expect(7, sink)
    outbox.put_stream(7, Drip(BIG))
    carry(outbox, inbox)
    outbox.on_credit(Credit(transfer=1, bytes_taken=1000))
    (piece,) = outbox.take_binary()
    with pytest.raises(FrameTooLarge, match="granted"):
        inbox.feed(piece)
    assert len(sink.ends) == 1


def test_a_piece_of_another_call_fails_the_sink() -> None:
    outbox, inbox = Outbox(), Inbox()
    sink = Basin(len(BIG))
    inbox.expect(7, sink)
    outbox.put_stream(7, Drip(BIG))
    first, second, *_ = outbox.take_binary()
    inbox.feed(first)
    with pytest.raises(MalformedFrame, match="for the call 8"):
        inbox.feed(second[:12] + (8).to_bytes(4, "little") + second[16:])
    assert len(sink.ends) == 1


def test_what_is_dropped_in_the_middle_is_aborted_once_and_its_rest_ignored() -> None:
    outbox, inbox = Outbox(), Inbox()
    source, sink = Drip(BIG), Basin(len(BIG))
    inbox.expect(7, sink)
    outbox.put_stream(7, source)
    first, *others = outbox.take_binary()
    inbox.feed(first)
    inbox.drop(7)
    for piece in others:
        assert inbox.feed(piece) is None
    assert replies(inbox)[-1] == AbortTransfer(transfer=1)
    outbox.on_abort(AbortTransfer(transfer=1))
    assert (sink.ends, source.closed, outbox.has_transfers) == ([], 1, False)


def test_what_is_dropped_before_it_begins_is_aborted_when_it_does() -> None:
    outbox, inbox = Outbox(), Inbox()
    sink = Basin(len(BIG))
    inbox.expect(7, sink)
    inbox.drop(7)
    outbox.put_stream(7, Drip(BIG))
    carry(outbox, inbox)
    assert (sink.data, outbox.has_transfers) == (b"", False)
    outbox.put_data(7, b"short")
    carry(outbox, inbox)
    assert list(inbox.data) == [(7, b"short")]


def test_a_sink_that_drops_its_own_transfer_hears_no_more() -> None:
    class Full(Basin):
        def put(self, piece: bytes) -> int:
            inbox.drop(7)
            return len(piece)

    outbox, inbox = Outbox(), Inbox()
    sink = Full(len(BIG))
    inbox.expect(7, sink)
    outbox.put_stream(7, Drip(BIG))
    carry(outbox, inbox)
    assert (sink.ends, outbox.has_transfers) == ([], False)


def test_an_inbox_that_collects_nothing_aborts_data_without_a_sink() -> None:
    outbox, inbox = Outbox(), Inbox(collect_data=False)
    outbox.put_data(7, BIG)
    outbox.put_data(8, b"short")
    outbox.put(BIG)
    pieces = outbox.take_binary()
    for piece in pieces:
        inbox.feed(piece)
    aborts = [reply for reply in replies(inbox) if isinstance(reply, AbortTransfer)]
    assert aborts == [AbortTransfer(transfer=1), AbortTransfer(transfer=2)]
    assert list(inbox.data) == []


def test_a_dropped_stream_is_closed_wherever_it_is_and_others_go_on() -> None:
    outbox, inbox = Outbox(), Inbox()
    sources = [Drip(BIG) for _ in range(MAX_OPEN_TRANSFERS + 1)]
    for call, source in enumerate(sources, start=1):
        inbox.expect(call, Basin(len(BIG)))
        outbox.put_stream(call, source)
    outbox.take_binary()
    outbox.drop_stream(1)
    outbox.drop_stream(len(sources))
    outbox.drop_stream(4711)
    assert [source.closed for source in sources] == [1, *[0] * (len(sources) - 2), 1]
    outbox.put_stream(4712, waiting := Drip(BIG))
    outbox.put(BIG)
    outbox.close()
    assert all(source.closed == 1 for source in [*sources, waiting])
    assert (outbox.has_transfers, outbox.unsent_data_bytes) == (False, 0)


@pytest.mark.parametrize(("call", "size"), [(0, 1), (MAX_DATA_CALL + 1, 1), (1, 0)])
def test_a_stream_needs_a_call_that_fits_the_header_and_is_not_empty(call: int, size: int) -> None:
    with pytest.raises(ValueError, match="for the call"):
        Outbox().put_stream(call, Drip(bytes(size)))


def test_a_stream_of_more_than_a_state_may_be_is_refused() -> None:
    class Huge(Drip):
        @property
        def size_bytes(self) -> int:
            return MAX_STATE_BYTES + 1

    with pytest.raises(ValueError, match="for the call"):
        Outbox().put_stream(1, Huge(b""))


def test_the_last_piece_of_an_unwanted_transfer_frees_its_number() -> None:
    outbox, inbox = Outbox(), Inbox(collect_data=False)
    outbox.put_data(7, bytes(2 * PIECE_BYTES))
    pieces = outbox.take_binary()
    for piece in pieces:
        inbox.feed(piece)
    with pytest.raises(MalformedFrame, match="not open"):
        inbox.feed(pieces[1])


def test_only_so_many_unwanted_transfers_are_remembered() -> None:
    inbox = Inbox(collect_data=False)
    for transfer in range(1, 66):
        inbox.feed(transfer.to_bytes(4, "little") + bytes(8) + b"\x07\0\0\0\0" + b"piece")
    rest = (5).to_bytes(8, "little") + b"\x07\0\0\0\0" + b"piece"
    assert inbox.feed((65).to_bytes(4, "little") + rest) is None
    with pytest.raises(MalformedFrame, match="not open"):
        inbox.feed((1).to_bytes(4, "little") + rest)
