"""Errors as Ollama's clients read them: as a body, and as the line that ends a stream badly.

`error` is the text; our own object, which says more, stands beside it. Statuses: those of api.md.
"""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp.web import Response

from balancer.errors import BalancerError
from balancer.http.answers import error_object, json_answer
from balancer.http.exchange import Exchange
from balancer.http.shape import StreamForm

CONTENT_TYPE = "application/x-ndjson"


def error_body(error: BalancerError, request_id: str) -> dict[str, Any]:
    """The text, and what programs may want to know."""
    return {"error": error.message, "detail": error_object(error, request_id)}


def error_answer(exchange: Exchange, error: BalancerError) -> Response:
    """The answer to a request that failed before its first token."""
    headers: dict[str, str] = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    body = msgspec.json.encode(error_body(error, exchange.id))
    return json_answer(exchange, body, status=error.status, headers=headers)


def _error_line(error: BalancerError, request_id: str) -> bytes:
    return msgspec.json.encode(error_body(error, request_id)) + b"\n"


LINES = StreamForm(content_type=CONTENT_TYPE, comment=b"", error_event=_error_line)
