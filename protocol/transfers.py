"""How a message too big for a text frame crosses the link: in pieces, between text frames.

A piece is a binary frame of at most 128 KiB of payload behind a fixed header. A sender has at most
1 MiB of one transfer under way; the receiver grants more with `credit` notifications as pieces
arrive, so that tokens never wait behind a big request. No sockets here: `Outbox` says what to write
next, `Inbox` takes what was read. What belongs to a call but is no message (vectors, a sequence's
state) travels the same way, as it is, under the call's id; what is too big to be kept in memory
comes from a `Source`, bit by bit, and goes to a `Sink`.
"""

from __future__ import annotations

import struct
from collections import OrderedDict, deque
from collections.abc import Iterator

from protocol.codec import MAX_TEXT_FRAME_BYTES, encode_notification, frames
from protocol.errors import FrameTooLarge, MalformedFrame, ProtocolError
from protocol.streams import Held, Sink, Source
from protocol.transfer_messages import MAX_STATE_BYTES, AbortTransfer, Credit

PIECE_BYTES = 128 * 1024
WINDOW_BYTES = 1024 * 1024
MAX_TRANSFER_BYTES = 32 * 1024 * 1024
MAX_OPEN_TRANSFERS = 16
MAX_HELD_BYTES = 64 * 1024 * 1024
"""Of transfers that are put together in memory. Past it only the oldest is granted more, so that
what is held is at most this, one transfer and the windows of the others."""
MAX_UNWANTED = 64
"""Transfers whose rest is dropped in silence; older ones are garbage again."""
MAX_DATA_CALL = 2**32 - 1

_HEADER = struct.Struct("<IQIB")
"""transfer id, offset of this piece, call id (0: the payload is a JSON-RPC message), last piece"""


class _Outgoing:
    """One message, or a call's data, on its way: how much is sent, how much may be."""

    def __init__(self, transfer: int, call: int, source: Source) -> None:
        self.transfer = transfer
        self.call = call
        self.source = source
        self.sent = 0
        self.size = source.size_bytes
        self.allowed = min(WINDOW_BYTES, self.size)

    def pieces(self) -> Iterator[bytes]:
        while self.sent < self.allowed:
            data = self.source.take(min(PIECE_BYTES, self.allowed - self.sent))
            if not data:
                return
            start, self.sent = self.sent, self.sent + len(data)
            last = self.sent == self.size
            yield _HEADER.pack(self.transfer, start, self.call, last) + data


class Outbox:
    """Encoded messages waiting to be written; small ones are batched, big ones cut into pieces.

    At most `MAX_OPEN_TRANSFERS` big messages travel at a time, the others wait in order. Bounding
    what is put in is the caller's business; `unsent_text_bytes` tells of the small ones.
    """

    def __init__(self) -> None:
        self._messages: list[bytes] = []
        self._transfers: dict[int, _Outgoing] = {}
        self._queued: deque[tuple[int, Source]] = deque()
        self._next_transfer = 1
        self.unsent_data_bytes = 0
        """Of big messages and data, but not of streams, until their last piece is out."""
        self.unsent_text_bytes = 0

    @property
    def has_transfers(self) -> bool:
        """Whether big messages travel or wait."""
        return bool(self._transfers or self._queued)

    @property
    def awaits_credit(self) -> bool:
        """Whether something could be written if the receiver took more."""
        return any(one.sent == one.allowed < one.size for one in self._transfers.values())

    def put(self, message: bytes) -> None:
        """Add an encoded message; raises `FrameTooLarge` past the bound on transfers."""
        if len(message) <= MAX_TEXT_FRAME_BYTES:
            self._messages.append(message)
            self.unsent_text_bytes += len(message)
            return
        if len(message) > MAX_TRANSFER_BYTES:
            raise FrameTooLarge(
                f"a message of {len(message)} bytes, at most {MAX_TRANSFER_BYTES} can be sent"
            )
        self._enqueue(0, Held(message))

    def put_data(self, call: int, data: bytes) -> None:
        """Add what belongs to the call of this id (1 to `MAX_DATA_CALL`), not empty; raises
        `FrameTooLarge`."""
        if not data or not 1 <= call <= MAX_DATA_CALL:
            raise ValueError(f"{len(data)} bytes for the call {call}")
        if len(data) > MAX_TRANSFER_BYTES:
            raise FrameTooLarge(
                f"{len(data)} bytes for a call, at most {MAX_TRANSFER_BYTES} can be sent"
            )
        self._enqueue(call, Held(data))

    def put_stream(self, call: int, source: Source) -> None:
        """Add what belongs to a call and is not in memory, at most `MAX_STATE_BYTES`; the source is
        closed when that is over. Where it says that more is there, call `take_binary`."""
        if not 1 <= source.size_bytes <= MAX_STATE_BYTES or not 1 <= call <= MAX_DATA_CALL:
            raise ValueError(f"{source.size_bytes} bytes for the call {call}")
        self._queued.append((call, source))

    def drop_stream(self, call: int) -> None:
        """Send nothing more of a call's stream; its receiver is to be told otherwise."""
        for waiting in [one for one in self._queued if one[0] == call]:
            self._queued.remove(waiting)
            self._let_go(waiting[1])
        for outgoing in [one for one in self._transfers.values() if one.call == call]:
            self._forget(outgoing.transfer)

    def close(self) -> None:
        """Nothing more can be sent: the sources are closed."""
        for _, source in self._queued:
            self._let_go(source)
        self._queued.clear()
        for transfer in tuple(self._transfers):
            self._forget(transfer)

    def take_text(self) -> list[bytes]:
        """The text frames to write now, in order; the outbox forgets them."""
        if not self._messages:
            return []
        packed = list(frames(self._messages))
        self._messages = []
        self.unsent_text_bytes = 0
        return packed

    def take_binary(self) -> list[bytes]:
        """The binary frames that credit allows now; write them after the text frames."""
        while self._queued and len(self._transfers) < MAX_OPEN_TRANSFERS:
            self._transfers[self._next_transfer] = _Outgoing(
                self._next_transfer, *self._queued.popleft()
            )
            self._next_transfer = self._next_transfer % (2**32 - 1) + 1
        pieces: list[bytes] = []
        for outgoing in list(self._transfers.values()):
            pieces += outgoing.pieces()
            if outgoing.sent == outgoing.size:
                self._forget(outgoing.transfer)
        return pieces

    def on_credit(self, credit: Credit) -> None:
        """The receiver took pieces: more may be sent. A finished transfer's credit is ignored."""
        outgoing = self._transfers.get(credit.transfer)
        if outgoing is not None:
            outgoing.allowed = min(outgoing.allowed + credit.bytes_taken, outgoing.size)

    def on_abort(self, abort: AbortTransfer) -> None:
        """The receiver does not want the rest."""
        self._forget(abort.transfer)

    def _enqueue(self, call: int, held: Held) -> None:
        self._queued.append((call, held))
        self.unsent_data_bytes += held.size_bytes

    def _forget(self, transfer: int) -> None:
        outgoing = self._transfers.pop(transfer, None)
        if outgoing is not None:
            self._let_go(outgoing.source)

    def _let_go(self, source: Source) -> None:
        if isinstance(source, Held):
            self.unsent_data_bytes -= source.size_bytes
        source.close()


class _Incoming:
    """One transfer on its way in: to a sink, or to memory."""

    def __init__(self, transfer: int, call: int, sink: Sink | None) -> None:
        self.call = call
        self.sink = sink
        self.data = bytearray()
        self.got = 0
        self.granted = WINDOW_BYTES
        self.owed = 0
        """To be granted as soon as there is room."""
        self._name = f"transfer {transfer}"

    def check(self, offset: int, call: int, size: int, *, last: bool) -> None:
        """Raises for what cannot be the next piece."""
        if not size:
            raise MalformedFrame(f"{self._name}: an empty piece")
        if offset != self.got:
            raise MalformedFrame(f"{self._name}: a piece at {offset}, not {self.got}")
        most = MAX_TRANSFER_BYTES if self.sink is None else self.sink.size_bytes
        if self.got + size > most:
            raise FrameTooLarge(f"{self._name}: more than {most} bytes")
        if self.got + size > self.granted:
            raise FrameTooLarge(f"{self._name}: more than the {self.granted} bytes granted")
        if self.sink is None:
            return
        if call != self.call:
            raise MalformedFrame(f"{self._name}: a piece for the call {call}, not {self.call}")
        if last != (self.got + size == most):
            raise MalformedFrame(f"{self._name}: its last piece ends at {most}, not elsewhere")

    def take(self, piece: memoryview) -> int:
        """Keep a piece, or pass it on; how many bytes to grant for it now."""
        self.got += len(piece)
        if self.sink is not None:
            return self.sink.put(bytes(piece))
        self.data += piece
        return len(piece)


class Inbox:
    """Puts pieces together again. Replies (credits) are collected in `replies` for the sender, and
    what belongs to a call in `data`, with the call's id; one that does not `collect_data` takes of
    calls only what has a sink.
    """

    def __init__(self, *, collect_data: bool = True) -> None:
        self._collect_data = collect_data
        self._open: dict[int, _Incoming] = {}
        self._sinks: dict[int, Sink] = {}
        self._unwanted: OrderedDict[int, None] = OrderedDict()
        self._unwanted_calls: OrderedDict[int, None] = OrderedDict()
        self.replies: deque[bytes] = deque()
        self.data: deque[tuple[int, bytes]] = deque()

    def expect(self, call: int, sink: Sink) -> None:
        """Let what comes for a call go to the sink. Nothing of it may have come yet."""
        self._sinks[call] = sink

    def drop(self, call: int) -> None:
        """Nobody wants what comes for a call any more: its sink hears nothing more, the sender is
        told so, also if it has not begun."""
        self._sinks.pop(call, None)
        transfers = [number for number, one in self._open.items() if one.call == call and one.sink]
        for transfer in transfers:
            self._open[transfer].sink = None
            self._refuse(transfer)
        if not transfers:
            _remember(self._unwanted_calls, call)

    def grant(self, call: int, count: int) -> None:
        """The sink of a call passed bytes on: as many more may be sent."""
        for transfer, incoming in self._open.items():
            if incoming.call == call and incoming.sink is not None:
                self._grant(transfer, incoming, count)

    def feed(self, frame: bytes) -> bytes | None:
        """Take a binary frame; the whole message once its last piece is here. Of a call's data the
        last piece's header says whose it is.

        Raises `MalformedFrame` or `FrameTooLarge`; the transfer is then forgotten and aborted.
        """
        if len(frame) < _HEADER.size:
            raise MalformedFrame("a binary frame is shorter than its header")
        transfer, offset, call, last = _HEADER.unpack_from(frame)
        if transfer in self._unwanted:
            if last:
                del self._unwanted[transfer]
            return None
        incoming = self._open.get(transfer) or self._begin(transfer, offset, call)
        if not offset and self._is_unwanted(incoming):
            self._refuse(transfer, ended=bool(last))
            return None
        piece = memoryview(frame)[_HEADER.size :]
        try:
            incoming.check(offset, call, len(piece), last=bool(last))
        except ProtocolError as error:
            self._abort(transfer, str(error))
            raise
        more = incoming.take(piece)
        if self._open.get(transfer) is not incoming:
            return None  # its sink wanted no more, just now
        if last:
            del self._open[transfer]
            self._pay()
            return self._whole(incoming, call)
        if incoming.sink is not None:
            self._grant(transfer, incoming, more)
        else:
            incoming.owed += more
            self._pay()
        return None

    def _pay(self) -> None:
        """Grant what transfers to memory are owed: the oldest one, the others while there is
        room."""
        collected = [each for each in self._open.items() if each[1].sink is None]
        room = MAX_HELD_BYTES - sum(len(incoming.data) for _, incoming in collected)
        for transfer, incoming in collected if room > 0 else collected[:1]:
            self._grant(transfer, incoming, incoming.owed)
            incoming.owed = 0

    def _whole(self, incoming: _Incoming, call: int) -> bytes | None:
        if incoming.sink is not None:
            incoming.sink.whole()
        elif not call:
            return bytes(incoming.data)
        else:
            self.data.append((call, bytes(incoming.data)))
        return None

    def _is_unwanted(self, incoming: _Incoming) -> bool:
        """Whether a transfer that just began is for a call that takes none."""
        if not incoming.call or incoming.sink is not None:
            return False
        was_dropped = incoming.call in self._unwanted_calls
        self._unwanted_calls.pop(incoming.call, None)
        return was_dropped or not self._collect_data

    def _grant(self, transfer: int, incoming: _Incoming, count: int) -> None:
        if count:
            incoming.granted += count
            credit = Credit(transfer=transfer, bytes_taken=count)
            self.replies.append(encode_notification(credit))

    def _refuse(self, transfer: int, *, ended: bool = False) -> None:
        """Abort a transfer that is in order, and drop in silence what is under way of it."""
        self._abort(transfer, "")
        if not ended:
            _remember(self._unwanted, transfer)

    def _begin(self, transfer: int, offset: int, call: int) -> _Incoming:
        if offset:
            # the rest of a transfer that was aborted: pieces under way when the abort went out
            raise MalformedFrame(f"transfer {transfer} is not open")
        if len(self._open) >= MAX_OPEN_TRANSFERS:
            self._abort(transfer, "")
            raise FrameTooLarge(f"more than {MAX_OPEN_TRANSFERS} transfers at once")
        incoming = _Incoming(transfer, call, self._sinks.pop(call, None))
        self._open[transfer] = incoming
        return incoming

    def _abort(self, transfer: int, reason: str) -> None:
        incoming = self._open.pop(transfer, None)
        self.replies.append(encode_notification(AbortTransfer(transfer=transfer)))
        if incoming is not None and incoming.sink is not None:
            incoming.sink.failed(reason)
        self._pay()


def _remember(numbers: OrderedDict[int, None], number: int) -> None:
    numbers[number] = None
    if len(numbers) > MAX_UNWANTED:
        numbers.popitem(last=False)
