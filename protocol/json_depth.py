"""A bound on JSON nesting that costs nothing on ordinary input and stays linear on hostile input.

Decoders recurse; text nested deeper than their stack would be an exception of the wrong kind, or
worse. Both the link and the HTTP ports check depth before they decode.
"""

from __future__ import annotations

import re
from itertools import accumulate

_STRINGS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_TO_STEPS = bytes.maketrans(b"{[]}", b"\x01\x01\xff\xff")


def is_too_deep(data: bytes, limit: int) -> bool:
    """Whether `data` nests arrays and objects deeper than `limit`; `data` need not be valid JSON.

    Opening brackets are counted first: with no more of them than `limit` the answer is no. Text
    that closes more than it opened is judged up to there, as a decoder stops there too.
    """
    if data.count(b"{") + data.count(b"[") <= limit:
        return False
    steps = memoryview(_STRINGS.sub(b"", data).translate(_TO_STEPS, _NOT_BRACKETS)).cast("b")
    return max(accumulate(steps), default=0) > limit
