"""Undoes the encodings of a body, within bounds on what comes out and what it costs.

https://www.rfc-editor.org/rfc/rfc9110#name-content-codings; gzip's members and zstd's frames may
follow one another. Nothing is inflated further than the limit, and other requests come between.
"""

from __future__ import annotations

import asyncio
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from balancer.errors import InvalidRequest, RequestTooLarge, UnsupportedMediaType
from balancer.http.faults import body_too_large
from balancer.settings import KIB

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ACCEPTED = ("gzip", "deflate", "zstd")
MAX_ENCODINGS = 2
"""Of one body, one around the other."""
MAX_PARTS = 1000
"""Members or frames of one body: each costs a decompressor, even if it is empty."""
MAX_WINDOW_LOG = 23
"""What a zstd frame may ask to look back: 8 MiB (https://www.rfc-editor.org/rfc/rfc9659)."""

_PIECE_BYTES = 256 * KIB
"""Inflated at once: about a millisecond."""
_SLICE_BYTES = 64 * KIB
_OTHER_NAMES = {"x-gzip": "gzip"}
_GZIP_WINDOW = 31
_ZLIB_WINDOW = 15
_RAW_WINDOW = -15


class Decompressor(Protocol):
    """Of one member or frame. `decompress` of nothing gives more of what it was given before."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes:
        """What followed the end."""

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


def encodings_of(headers: Iterable[str]) -> tuple[str, ...]:
    """The encodings that `Content-Encoding` headers name, in the order in which they were applied.
    Raises `UnsupportedMediaType` for those that nobody here undoes, and for too many."""
    names = (name.strip().lower() for header in headers for name in header.split(","))
    found = tuple(_OTHER_NAMES.get(name, name) for name in names if name not in ("", "identity"))
    if len(found) > MAX_ENCODINGS or not set(found) <= set(ACCEPTED):
        raise UnsupportedMediaType(
            f"The body's Content-Encoding, {', '.join(found)[:100]!r}, is not taken here; send "
            f"{', '.join(ACCEPTED)}, {MAX_ENCODINGS} of them at most, or the plain body.",
            details={"accepted_encodings": list(ACCEPTED)},
        )
    return found


async def decoded(body: bytes, encodings: Iterable[str], *, limit_bytes: int) -> bytes:
    """The body as it was before they were applied. Raises `RequestTooLarge` where more than the
    limit comes out at any of them, `InvalidRequest` for what they did not make."""
    for encoding in reversed(tuple(encodings)):
        body = await _inflated(body, encoding, limit_bytes)
    return body


async def _inflated(body: bytes, encoding: str, limit_bytes: int) -> bytes:
    size = 0
    pieces: list[bytes] = []
    try:
        for piece in _pieces(body, encoding):
            size += len(piece)
            if size > limit_bytes:
                raise body_too_large(limit_bytes)
            pieces.append(piece)
            await asyncio.sleep(0)
    except (zlib.error, zstd.ZstdError) as error:
        raise InvalidRequest(
            f"The request body is not {encoding} as its Content-Encoding says, or one that cannot "
            f"be undone here: {str(error)[:200]}."
        ) from error
    return b"".join(pieces)


def _pieces(body: bytes, encoding: str) -> Iterator[bytes]:
    """What comes out, at most `_PIECE_BYTES` at once."""
    at = parts = 0
    part: Decompressor | None = None
    while at < len(body):
        if part is None or part.eof:
            parts += 1
            _check_parts(parts, encoding)
            part = _MAKERS[encoding](body)
        given = body[at : at + _SLICE_BYTES]
        at += len(given)
        yield part.decompress(given, _PIECE_BYTES)
        while not part.eof and not part.needs_input:
            yield part.decompress(b"", _PIECE_BYTES)
        if part.eof:
            at -= len(part.unused_data)
    if part is not None and not part.eof:
        raise InvalidRequest(f"The request body ends before its {encoding} does.")


def _check_parts(parts: int, encoding: str) -> None:
    if parts > 1 and encoding == "deflate":
        raise InvalidRequest("The request body goes on after the end of its deflate.")
    if parts > MAX_PARTS:
        raise RequestTooLarge(
            f"The request body has more than {MAX_PARTS} members or frames of {encoding}; send it "
            "in one."
        )


class _Zlib:
    """zlib's decompressor, with the face of zstd's."""

    def __init__(self, window: int) -> None:
        self._zlib = zlib.decompressobj(window)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """At most so many bytes; what is left of the input is kept."""
        made = self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)
        self.needs_input = len(made) < max_length and not self._zlib.unconsumed_tail
        return made


def _deflate(body: bytes) -> Decompressor:
    """In zlib's wrapping, as it should be, or bare, as some send it."""
    is_wrapped = body[0] & 0xF == 8 and int.from_bytes(body[:2], "big") % 31 == 0
    return _Zlib(_ZLIB_WINDOW if is_wrapped else _RAW_WINDOW)


def _zstd(body: bytes) -> Decompressor:
    del body
    options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: MAX_WINDOW_LOG}
    return zstd.ZstdDecompressor(options=options)


_MAKERS: dict[str, Callable[[bytes], Decompressor]] = {
    "gzip": lambda _: _Zlib(_GZIP_WINDOW),
    "deflate": _deflate,
    "zstd": _zstd,
}
