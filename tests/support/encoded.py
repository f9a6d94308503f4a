"""Bodies in the encodings that requests may have."""

from __future__ import annotations

import gzip
import sys
import zlib
from collections.abc import Callable
from functools import partial

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ENCODE: dict[str, Callable[[bytes], bytes]] = {
    "gzip": partial(gzip.compress, mtime=0),  # the same bytes at any time
    "deflate": zlib.compress,
    "zstd": zstd.compress,
}


def bare_deflate(data: bytes) -> bytes:
    """Without zlib's wrapping."""
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


def far_looking_zstd(data: bytes, window_log: int) -> bytes:
    """A frame that may look back 2 to this power of bytes."""
    options: dict[int, int] = {zstd.CompressionParameter.window_log: window_log}
    compressor = zstd.ZstdCompressor(options=options)
    return compressor.compress(data) + compressor.flush()
