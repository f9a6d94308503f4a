"""Big messages in pieces: whole again, in order with others, bounded on both sides."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import codec, transfers
from protocol.errors import FrameTooLarge, MalformedFrame, ProtocolError
from protocol.jsonrpc import Notification
from protocol.to_agent import Cancel
from protocol.transfer_messages import AbortTransfer, Credit
from protocol.transfers import (
    MAX_DATA_CALL,
    MAX_OPEN_TRANSFERS,
    MAX_TRANSFER_BYTES,
    PIECE_BYTES,
    WINDOW_BYTES,
    Inbox,
    Outbox,
)

BIG = bytes(range(256)) * 4096 * 3


def _deliver_replies(inbox: Inbox, outbox: Outbox) -> None:
    while inbox.replies:
        (message,) = codec.BALANCER_RECEIVES.decode(inbox.replies.popleft())
        assert isinstance(message, Notification)
        match message.params:
            case Credit() as credit:
                outbox.on_credit(credit)
            case AbortTransfer() as abort:
                outbox.on_abort(abort)


def _carry(outbox: Outbox, inbox: Inbox) -> list[bytes]:
    """Everything the outbox sends until it has no more, given every credit."""
    whole = []
    while pieces := outbox.take_binary():
        for piece in pieces:
            message = inbox.feed(piece)
            if message is not None:
                whole.append(message)
        _deliver_replies(inbox, outbox)
    return whole


def test_a_message_of_three_mebibytes_arrives_whole() -> None:
    outbox, inbox = Outbox(), Inbox()
    outbox.put(BIG)
    assert outbox.has_transfers
    assert _carry(outbox, inbox) == [BIG]
    assert not outbox.has_transfers


def test_small_messages_go_first_and_share_a_text_frame() -> None:
    outbox = Outbox()
    outbox.put(BIG)
    cancels = [codec.encode_notification(Cancel(call=n)) for n in range(3)]
    for cancel in cancels:
        outbox.put(cancel)
    assert outbox.unsent_text_bytes == sum(map(len, cancels))
    (frame,) = outbox.take_text()
    assert len(codec.AGENT_RECEIVES.decode(frame)) == 3
    assert outbox.take_text() == []
    assert outbox.take_binary()


def test_without_credit_a_sender_stops_after_its_window() -> None:
    outbox = Outbox()
    outbox.put(BIG)
    first = outbox.take_binary()
    assert sum(map(len, first)) - len(first) * 17 == WINDOW_BYTES
    assert all(len(piece) <= PIECE_BYTES + 17 for piece in first)
    assert outbox.take_binary() == []
    outbox.on_credit(Credit(transfer=1, bytes_taken=10))
    (more,) = outbox.take_binary()
    assert len(more) == 10 + 17


def test_two_big_messages_travel_side_by_side() -> None:
    outbox, inbox = Outbox(), Inbox()
    other = BIG[::-1]
    outbox.put(BIG)
    outbox.put(other)
    assert sorted(_carry(outbox, inbox)) == sorted([BIG, other])


@given(st.binary(max_size=64), st.integers(0, 5))
def test_damaged_pieces_raise_nothing_but_protocol_errors(data: bytes, times: int) -> None:
    inbox = Inbox()
    for _ in range(times):
        try:
            inbox.feed(data)
        except ProtocolError:
            continue


def test_a_piece_out_of_place_ends_its_transfer_on_both_sides() -> None:
    outbox, inbox = Outbox(), Inbox()
    outbox.put(BIG)
    pieces = outbox.take_binary()
    inbox.feed(pieces[0])
    inbox.replies.clear()
    with pytest.raises(MalformedFrame, match="a piece at"):
        inbox.feed(pieces[2])
    _deliver_replies(inbox, outbox)
    assert outbox.take_binary() == []
    with pytest.raises(MalformedFrame, match="not open"):
        inbox.feed(pieces[3])


def test_a_sender_beyond_its_credit_ends_its_transfer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfers, "MAX_HELD_BYTES", 0)
    outbox, inbox = Outbox(), Inbox()
    outbox.put(BIG)
    outbox.put(BIG)
    for piece in outbox.take_binary():
        inbox.feed(piece)
    outbox.on_credit(Credit(transfer=2, bytes_taken=PIECE_BYTES))
    [beyond] = outbox.take_binary()
    with pytest.raises(FrameTooLarge, match="granted"):
        inbox.feed(beyond)
    _deliver_replies(inbox, outbox)
    assert _carry(outbox, inbox) == [BIG]
    assert not outbox.has_transfers


def test_what_is_put_together_in_memory_at_once_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transfers, "MAX_HELD_BYTES", 2 * WINDOW_BYTES)
    outbox, inbox = Outbox(), Inbox()
    for _ in range(MAX_OPEN_TRANSFERS):
        outbox.put(BIG)
    outbox.put_data(7, BIG)
    whole: list[bytes] = []
    fed = 0
    while pieces := outbox.take_binary():
        for piece in pieces:
            fed += len(piece)
            message = inbox.feed(piece)
            if message is not None:
                whole.append(message)
            held = fed - len(BIG) * (len(whole) + len(inbox.data))
            assert held < (2 + 1 + MAX_OPEN_TRANSFERS) * WINDOW_BYTES + len(BIG)
        _deliver_replies(inbox, outbox)
    assert whole == [BIG] * MAX_OPEN_TRANSFERS
    assert list(inbox.data) == [(7, BIG)]


def test_more_big_messages_than_may_travel_at_once_wait_their_turn() -> None:
    outbox, inbox = Outbox(), Inbox()
    messages = [bytes([number]) * len(BIG) for number in range(MAX_OPEN_TRANSFERS + 3)]
    for message in messages:
        outbox.put(message)
    assert sorted(_carry(outbox, inbox)) == messages


def test_a_receiver_refuses_more_open_transfers_than_allowed() -> None:
    inbox = Inbox()
    for transfer in range(1, MAX_OPEN_TRANSFERS + 1):
        inbox.feed(transfer.to_bytes(4, "little") + bytes(13) + b"piece")
    with pytest.raises(FrameTooLarge, match="at once"):
        inbox.feed(b"\xff" + bytes(16) + b"piece")


def test_a_message_over_the_bound_is_refused_on_both_sides() -> None:
    with pytest.raises(FrameTooLarge, match="can be sent"):
        Outbox().put(b"x" * (MAX_TRANSFER_BYTES + 1))
    inbox = Inbox()
    with pytest.raises(FrameTooLarge, match="more than"):
        inbox.feed(b"\x01" + bytes(16) + bytes(MAX_TRANSFER_BYTES + 1))


def test_an_empty_piece_ends_its_transfer_instead_of_asking_for_credit_of_nothing() -> None:
    inbox = Inbox()
    with pytest.raises(MalformedFrame, match="empty"):
        inbox.feed(b"\x01" + bytes(16))
    (reply,) = codec.BALANCER_RECEIVES.decode(inbox.replies.popleft())
    assert isinstance(reply, Notification)
    assert reply.params == AbortTransfer(transfer=1)


def test_a_late_credit_or_abort_changes_nothing() -> None:
    outbox = Outbox()
    outbox.on_credit(Credit(transfer=7, bytes_taken=1))
    outbox.on_abort(AbortTransfer(transfer=7))
    assert outbox.take_binary() == []


def test_credits_are_bounded_by_their_type() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"transfer": 1, "bytes_taken": 2**40}, Credit)


@given(size=st.integers(1, 5 * PIECE_BYTES), call=st.integers(1, MAX_DATA_CALL))
def test_a_call_s_data_arrives_whole_under_the_call_s_id(size: int, call: int) -> None:
    outbox, inbox = Outbox(), Inbox()
    outbox.put_data(call, b"v" * size)
    assert outbox.unsent_data_bytes == size
    assert _carry(outbox, inbox) == []
    assert list(inbox.data) == [(call, b"v" * size)]
    assert outbox.unsent_data_bytes == 0


def test_data_and_messages_take_turns_and_stay_apart() -> None:
    outbox, inbox = Outbox(), Inbox()
    outbox.put_data(7, BIG)
    outbox.put(BIG)
    outbox.put_data(8, b"small")
    assert _carry(outbox, inbox) == [BIG]
    assert [call for call, _ in inbox.data] == [8, 7]


def test_aborted_data_is_not_waited_for() -> None:
    outbox = Outbox()
    outbox.put_data(7, BIG)
    outbox.take_binary()
    assert outbox.unsent_data_bytes == len(BIG)
    outbox.on_abort(AbortTransfer(transfer=1))
    outbox.on_abort(AbortTransfer(transfer=1))
    assert (outbox.unsent_data_bytes, outbox.has_transfers) == (0, False)


@pytest.mark.parametrize(("call", "data"), [(0, b"x"), (MAX_DATA_CALL + 1, b"x"), (1, b"")])
def test_data_needs_a_call_that_fits_the_header_and_is_not_empty(call: int, data: bytes) -> None:
    with pytest.raises(ValueError, match="for the call"):
        Outbox().put_data(call, data)


def test_too_much_data_for_one_call_is_refused() -> None:
    with pytest.raises(FrameTooLarge, match="for a call"):
        Outbox().put_data(1, bytes(MAX_TRANSFER_BYTES + 1))
