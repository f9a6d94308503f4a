"""How a message too big for a text frame crosses the link: in pieces, between text frames.

A piece is a binary frame of at most 128 KiB of payload behind a fixed header. A sender has at most
1 MiB of one transfer under way; the receiver grants more with `credit` notifications as pieces
arrive, so that tokens never wait behind a big request. No sockets here: `Outbox` says what to write
next, `Inbox` takes what was read.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator

from protocol.codec import MAX_TEXT_FRAME_BYTES, encode_notification, frames
from protocol.errors import FrameTooLarge, MalformedFrame
from protocol.transfer_messages import AbortTransfer, Credit

PIECE_BYTES = 128 * 1024
WINDOW_BYTES = 1024 * 1024
MAX_TRANSFER_BYTES = 32 * 1024 * 1024
MAX_OPEN_TRANSFERS = 16

_HEADER = struct.Struct("<IQIB")
"""transfer id, offset of this piece, call id (0: the payload is a JSON-RPC message), last piece"""


class _Outgoing:
    """One message on its way: how much is sent, how much may be."""

    def __init__(self, transfer: int, data: bytes) -> None:
        self.transfer = transfer
        self.data = data
        self.sent = 0
        self.allowed = WINDOW_BYTES

    def pieces(self) -> Iterator[bytes]:
        while self.sent < min(len(self.data), self.allowed):
            end = min(self.sent + PIECE_BYTES, len(self.data), self.allowed)
            header = _HEADER.pack(self.transfer, self.sent, 0, end == len(self.data))
            piece = header + self.data[self.sent : end]
            self.sent = end
            yield piece


class Outbox:
    """Encoded messages waiting to be written; small ones are batched, big ones cut into pieces.

    At most `MAX_OPEN_TRANSFERS` big messages travel at a time, the others wait in order. Bounding
    what is put in is the caller's business; `unsent_text_bytes` tells of the small ones.
    """

    def __init__(self) -> None:
        self._messages: list[bytes] = []
        self._transfers: dict[int, _Outgoing] = {}
        self._queued: deque[bytes] = deque()
        self._next_transfer = 1
        self.unsent_text_bytes = 0

    @property
    def has_transfers(self) -> bool:
        """Whether big messages travel or wait."""
        return bool(self._transfers or self._queued)

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
        self._queued.append(message)

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
                self._next_transfer, self._queued.popleft()
            )
            self._next_transfer = self._next_transfer % (2**32 - 1) + 1
        pieces: list[bytes] = []
        for outgoing in list(self._transfers.values()):
            pieces += outgoing.pieces()
            if outgoing.sent == len(outgoing.data):
                del self._transfers[outgoing.transfer]
        return pieces

    def on_credit(self, credit: Credit) -> None:
        """The receiver took pieces: more may be sent. A finished transfer's credit is ignored."""
        outgoing = self._transfers.get(credit.transfer)
        if outgoing is not None:
            outgoing.allowed = min(outgoing.allowed + credit.bytes_taken, len(outgoing.data))

    def on_abort(self, abort: AbortTransfer) -> None:
        """The receiver does not want the rest."""
        self._transfers.pop(abort.transfer, None)


class Inbox:
    """Puts pieces together again. Replies (credits) are collected in `replies` for the sender."""

    def __init__(self) -> None:
        self._open: dict[int, bytearray] = {}
        self.replies: deque[bytes] = deque()

    def feed(self, frame: bytes) -> bytes | None:
        """Take a binary frame; the whole message once its last piece is here.

        Raises `MalformedFrame` or `FrameTooLarge`; the transfer is then forgotten and aborted.
        """
        if len(frame) < _HEADER.size:
            raise MalformedFrame("a binary frame is shorter than its header")
        transfer, offset, _, last = _HEADER.unpack_from(frame)
        data = self._open.get(transfer)
        if data is None:
            data = self._begin(transfer, offset)
        piece = memoryview(frame)[_HEADER.size :]
        if not piece:
            self._abort(transfer)
            raise MalformedFrame(f"transfer {transfer}: an empty piece")
        if offset != len(data):
            self._abort(transfer)
            raise MalformedFrame(f"transfer {transfer}: a piece at {offset}, not {len(data)}")
        if len(data) + len(piece) > MAX_TRANSFER_BYTES:
            self._abort(transfer)
            raise FrameTooLarge(f"transfer {transfer}: more than {MAX_TRANSFER_BYTES} bytes")
        data += piece
        if last:
            del self._open[transfer]
            return bytes(data)
        self.replies.append(encode_notification(Credit(transfer=transfer, bytes_taken=len(piece))))
        return None

    def _begin(self, transfer: int, offset: int) -> bytearray:
        if offset:
            # the rest of a transfer that was aborted: pieces under way when the abort went out
            raise MalformedFrame(f"transfer {transfer} is not open")
        if len(self._open) >= MAX_OPEN_TRANSFERS:
            self._abort(transfer)
            raise FrameTooLarge(f"more than {MAX_OPEN_TRANSFERS} transfers at once")
        self._open[transfer] = bytearray()
        return self._open[transfer]

    def _abort(self, transfer: int) -> None:
        self._open.pop(transfer, None)
        self.replies.append(encode_notification(AbortTransfer(transfer=transfer)))
