"""WebSocket frames as a server writes them: whole messages, unmasked (RFC 6455, section 5.2)."""

from __future__ import annotations

import struct

from aiohttp import WSCloseCode
from aiohttp.web import BaseRequest, WebSocketResponse

_FINAL_TEXT = 0x81
_FINAL_BINARY = 0x82
_FINAL_CLOSE = 0x88
_MAX_REASON_BYTES = 123


def text_frame(payload: bytes) -> bytes:
    """A message of text, which is UTF-8."""
    return _frame(_FINAL_TEXT, payload)


def binary_frame(payload: bytes) -> bytes:
    """A message of bytes."""
    return _frame(_FINAL_BINARY, payload)


def close_frame(reason: str, code: int = WSCloseCode.POLICY_VIOLATION) -> bytes:
    """The last frame; the reason is cut where it is too long."""
    text = reason.encode()[:_MAX_REASON_BYTES].decode("utf-8", "ignore").encode()
    return _frame(_FINAL_CLOSE, struct.pack("!H", code) + text)


def is_handshake(socket: WebSocketResponse, request: BaseRequest) -> bool:
    """Whether a WebSocket is asked for. aiohttp fails where the key is no ASCII, or where it would
    quote what is no text."""
    try:
        return bool(socket.can_prepare(request))
    except ValueError:
        return False


def _frame(first_byte: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return struct.pack("!BB", first_byte, size) + payload
    if size < 65536:
        return struct.pack("!BBH", first_byte, 126, size) + payload
    return struct.pack("!BBQ", first_byte, 127, size) + payload
