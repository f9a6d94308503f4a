"""Errors as Anthropic's clients read them: as a body, and as the event that ends a stream badly.

https://docs.anthropic.com/en/api/errors. Statuses are those of api.md.
"""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp.web import Response

from balancer.errors import BalancerError
from balancer.http.answers import error_json, error_object
from balancer.http.exchange import Exchange
from balancer.http.shape import StreamForm
from balancer.http.sse import CONTENT_TYPE

PING = b'event: ping\ndata: {"type":"ping"}\n\n'

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    409: "invalid_request_error",
    413: "request_too_large",
    415: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def error_body(error: BalancerError, request_id: str) -> dict[str, Any]:
    """Their object, with the fields of ours that say more."""
    ours = error_object(error, request_id)
    ours["type"] = _TYPES.get(error.status, "api_error")
    return {"type": "error", "error": ours, "request_id": request_id}


def error_answer(exchange: Exchange, error: BalancerError) -> Response:
    """The answer to a request that failed before its first token."""
    body = msgspec.json.encode(error_body(error, exchange.id))
    return error_json(exchange, error, body, {"request-id": exchange.id})


def _error_event(error: BalancerError, request_id: str) -> bytes:
    return b"event: error\ndata: " + msgspec.json.encode(error_body(error, request_id)) + b"\n\n"


EVENTS = StreamForm(content_type=CONTENT_TYPE, comment=PING, error_event=_error_event)
