"""Answers as HTTP sees them: JSON and the one error body, with the headers all answers carry."""

from __future__ import annotations

import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from aiohttp.web import Response

from balancer.errors import (
    BalancerError,
    InternalError,
    LimitExceeded,
    StoreFailed,
    StoreUnavailable,
    Unauthorized,
)
from balancer.http.envelope import enveloped, media_type, metadata
from balancer.http.exchange import Exchange

log = structlog.get_logger(__name__)

SECURITY_HEADERS = {
    "Server": "paddler-py",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "X-XSS-Protection": "1; mode=block",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}
STORE_RETRY_S = 5
_LEGACY_CODES = {
    400: ("VALIDATION_ERROR", "INVALID_PARAMS", "invalid_request"),
    401: ("AUTHENTICATION_FAILED", "INVALID_AUTH", "unauthorized"),
    403: ("AUTHORIZATION_FAILED", "INSUFFICIENT_PERMS"),
    404: ("RESOURCE_NOT_FOUND",),
    429: ("RATE_LIMIT_EXCEEDED", "RATE_LIMITED", "rate_limited"),
    500: ("INTERNAL_ERROR",),
    503: ("SERVICE_UNAVAILABLE", "MODEL_UNAVAILABLE", "provider_unavailable"),
    504: ("TIMEOUT",),
}
"""What older clients look for, by status."""
_LISTED = {405: ("Allow", "allowed"), 415: ("Accept-Encoding", "accepted_encodings")}
"""What would be taken, by the status that says that something else came: in which header it is
told, and which of the error's details it is."""


def json_answer(
    exchange: Exchange, body: bytes, *, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """An answer whose body is JSON already, in an envelope where that is wanted."""
    whole = body if status >= 400 else b"".join(enveloped(exchange, (body,)))
    return Response(body=whole, status=status, headers=json_headers(exchange, headers or {}))


def json_headers(exchange: Exchange, headers: Mapping[str, str]) -> dict[str, str]:
    """Those of every JSON answer, and these."""
    return {
        **SECURITY_HEADERS,
        **exchange.headers(),
        "Content-Type": media_type(exchange),
        "Vary": exchange.vary("Accept"),
        **headers,
    }


def value_answer(exchange: Exchange, value: Any, *, status: int = 200) -> Response:
    """An answer whose body is this value as JSON."""
    return json_answer(exchange, msgspec.json.encode(value), status=status)


def error_answer(exchange: Exchange, error: BalancerError) -> Response:
    """An answer with api.md's error body."""
    return error_json(exchange, error, msgspec.json.encode(error_body(exchange, error)))


def error_json(
    exchange: Exchange, error: BalancerError, body: bytes, headers: Mapping[str, str] | None = None
) -> Response:
    """An error's answer, whatever family of APIs its body is for: some of it is told in headers."""
    told = dict(headers or {})
    if error.retry_after_s is not None:
        told["Retry-After"] = str(error.retry_after_s)
        if error.status == LimitExceeded.status:
            told["X-RateLimit-Retry-After"] = str(error.retry_after_s)
    if isinstance(error, LimitExceeded):
        told |= error.headers
    if isinstance(error, Unauthorized):
        told["WWW-Authenticate"] = 'Bearer realm="paddler-py"'
    if error.status in _LISTED:
        name, detail = _LISTED[error.status]
        told[name] = ", ".join(error.details.get(detail, ()))
    return json_answer(exchange, body, status=error.status, headers=told)


def raw_answer(error: BalancerError, request_id: str) -> bytes:
    """The whole of an answer to what is no request yet, after which the connection ends: api.md's
    error, without what only a request knows."""
    told = {"error": error_object(error, request_id), "status": "error"}
    body = msgspec.json.encode({**told, "timestamp": int(time.time())})
    headers = {
        **SECURITY_HEADERS,
        "X-Request-Id": request_id,
        "X-Paddler-Request-Id": request_id,
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Connection": "close",
    }
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    status = HTTPStatus(error.status)
    return f"HTTP/1.1 {status} {status.phrase}\r\n{lines}\r\n".encode() + body


def error_body(exchange: Exchange, error: BalancerError) -> dict[str, Any]:
    """api.md's one error body, with what older clients read beside it."""
    now = time.time()
    return {
        "error": error_object(error, exchange.id),
        "status": "error",
        "timestamp": int(now),
        "metadata": metadata(exchange, now),
    }


def text_error_body(error: BalancerError, request_id: str) -> dict[str, Any]:
    """For clients that read a text as `error`: it, and beside it what programs may want to know."""
    return {"error": error.message, "detail": error_object(error, request_id)}


def text_error_answer(exchange: Exchange, error: BalancerError) -> Response:
    """An answer with such a body."""
    return error_json(exchange, error, msgspec.json.encode(text_error_body(error, exchange.id)))


def shown_error(exchange: Exchange, error: Exception) -> BalancerError:
    """What a client is told of an error; its code is among the request's facts."""
    shown = known_error(error, request_id=exchange.id, route=exchange.route_path)
    exchange.facts["error"] = shown.code
    return shown


def known_error(error: Exception, *, request_id: str, route: str) -> BalancerError:
    """Ours as it is; any other is a fault of ours, logged."""
    if isinstance(error, StoreFailed):
        log.error("store failed", reason=str(error), request_id=request_id)
        return StoreUnavailable(
            "what is stored cannot be read or changed now; try again later",
            retry_after_s=STORE_RETRY_S,
        )
    if not isinstance(error, BalancerError):
        log.error("handler failed", exc_info=error, request_id=request_id, route=route)
        return internal_error()
    return error


def internal_error() -> InternalError:
    """For what must not happen."""
    return InternalError("the balancer failed to answer; its log has the reason by request_id")


def error_object(error: BalancerError, request_id: str) -> dict[str, Any]:
    """The `error` member: of a body, or of the event that ends a stream badly."""
    described: dict[str, Any] = {
        "message": error.message,
        "type": error.type,
        "code": error.code,
        "param": error.param,
        "details": _details(error),
        "request_id": request_id,
    }
    if error.retry_after_s is not None:
        described["retry_after"] = error.retry_after_s
    if legacy := _LEGACY_CODES.get(error.status):
        described["legacy_codes"] = legacy
    return described


def _details(error: BalancerError) -> dict[str, Any]:
    """Its facts; of a parameter's error also what older clients read there."""
    if error.param is None:
        return error.details
    named = {"parameter": error.param, "field": error.param}
    return {"issue": error.code, **error.details, **named}
