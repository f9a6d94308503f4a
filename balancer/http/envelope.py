"""JSON answers in an envelope, `{status, data, metadata}`, for clients that ask for it by `Accept`.

Errors have the same fields beside their own already. Streams never come in one.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from balancer.http.exchange import Exchange
from balancer.http.iso_time import iso_time

ENVELOPE = "application/vnd.paddler.envelope+json"
JSON = "application/json"


def media_type(exchange: Exchange) -> str:
    """What a JSON answer calls itself."""
    return ENVELOPE if is_wanted(exchange) else JSON


def is_wanted(exchange: Exchange) -> bool:
    """Whether the client named the envelope, and likes nothing but it better
    (https://www.rfc-editor.org/rfc/rfc9110#name-accept)."""
    headers = exchange.request.headers
    if "Accept" not in headers:  # what was no HTTP at all has a plain dict of none
        return False
    accept = ",".join(headers.getall("Accept")).lower()
    if ENVELOPE not in accept:
        return False
    return _quality(accept, ENVELOPE) >= max(_quality(accept, JSON), 0.001)


def enveloped(exchange: Exchange, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The pieces of a good answer's JSON, with its envelope around them where it is wanted."""
    if not is_wanted(exchange):
        yield from pieces
        return
    yield b'{"status":"success","data":'
    yield from pieces
    yield b',"metadata":' + msgspec.json.encode(metadata(exchange, time.time())) + b"}"


def metadata(exchange: Exchange, now_s: float) -> dict[str, Any]:
    """When it was answered, and to which request."""
    return {
        "timestamp": iso_time(now_s),
        "request_id": exchange.id,
        "correlation_id": exchange.echoed.get("X-Correlation-Id"),
    }


def _quality(accept: str, name: str) -> float:
    """How much the client likes a media type that it names; 0 is not at all."""
    for row in accept.split(","):
        given, *parameters = (part.strip() for part in row.split(";"))
        if given == name:
            return next((_number(one[2:]) for one in parameters if one.startswith("q=")), 1.0)
    return 0.0


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
