"""What is wrong with the head of a request that is no request for that. Pure."""

from __future__ import annotations

from aiohttp.http_exceptions import LineTooLong

from balancer.errors import ClientMistake, HeadTooLarge, InvalidRequest, TargetTooLong
from balancer.settings import KIB

MAX_HEADERS = 128
_MOST_TARGET_BYTES = 8000
"""What everybody should take at least (RFC 9110, section 4.1)."""


def max_target_bytes(max_header_bytes: int) -> int:
    """Of a request's target; always fewer than its whole head may have, by which the parser's
    faults are told apart."""
    return min(_MOST_TARGET_BYTES, max_header_bytes - 1)


def head_too_large(limit_bytes: int) -> HeadTooLarge:
    """All headers together."""
    return HeadTooLarge(f"the request's headers are larger than {limit_bytes / KIB:g} KiB")


def head_fault(error: BaseException | None) -> ClientMistake:
    """Why aiohttp's parser took no request from what came."""
    if isinstance(error, LineTooLong):
        limit_bytes = int(error.args[1])
        if limit_bytes <= _MOST_TARGET_BYTES:
            return TargetTooLong(f"the request's target is longer than {limit_bytes} bytes")
        return head_too_large(limit_bytes)
    if "Too many headers" in str(error):
        return HeadTooLarge(f"the request has more than {MAX_HEADERS} headers")
    return InvalidRequest("this is not a valid HTTP/1.1 request")
