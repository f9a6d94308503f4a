"""How the keys look that are made here: `pk_`, 256 random bits, a checksum. Pure.

The checksum tells a slip of the hand or a line that was cut off from a key that nobody has, without
looking anything up; it keeps nothing secret.
"""

from __future__ import annotations

import string
from zlib import crc32

BEGINNING = "pk_"
RANDOM_BYTES = 32
SHOWN_CHARS = 9
"""Of the beginning, by which people know a key again."""
_DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase
_BODY_CHARS = 43
_CHECKSUM_CHARS = 6


def key_text(random: bytes) -> str:
    """The key of so many random bytes."""
    body = BEGINNING + _in_digits(int.from_bytes(random), _BODY_CHARS)
    return body + _checksum(body)


def is_mistyped(key: str) -> bool:
    """Whether it looks like a key that was made here, and none was made so."""
    if not key.startswith(BEGINNING):
        return False
    body, checksum = key[:-_CHECKSUM_CHARS], key[-_CHECKSUM_CHARS:]
    return len(body) != len(BEGINNING) + _BODY_CHARS or _checksum(body) != checksum


def _checksum(body: str) -> str:
    return _in_digits(crc32(body.encode("utf-8", "replace")), _CHECKSUM_CHARS)


def _in_digits(number: int, chars: int) -> str:
    digits = []
    for _ in range(chars):
        number, digit = divmod(number, len(_DIGITS))
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))
