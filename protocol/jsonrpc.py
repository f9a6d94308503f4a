"""JSON-RPC 2.0 as the agent link uses it: the message forms, ids and JSON-RPC's own error codes.

https://www.jsonrpc.org/specification. Call ids on our own link are small integers; strings are
accepted. Parameters are always objects. No encoding here: that is `protocol.codec`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from msgspec import UNSET, Struct, UnsetType

CallId = int | str

MAX_ID_CHARS = 128


class RpcCode(IntEnum):
    """The error codes that JSON-RPC reserves for itself."""

    PARSE_ERROR = -32700
    INVALID_REQUEST = -32600
    METHOD_NOT_FOUND = -32601
    INVALID_PARAMS = -32602
    INTERNAL_ERROR = -32603


class ErrorObject(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """JSON-RPC's `error` member. `data` holds facts about the error, never secrets."""

    code: int
    message: str
    data: dict[str, Any] | UnsetType = UNSET


class Request(Struct, frozen=True, kw_only=True):
    """A call that wants an answer. `params` is one of the Structs of to_agent or to_balancer."""

    id: CallId
    method: str
    params: Struct


class Notification(Struct, frozen=True, kw_only=True):
    """A message without an answer."""

    method: str
    params: Struct


class Response(Struct, frozen=True, kw_only=True):
    """The good answer to a call; `result` is still encoded, its type is known by who asked."""

    id: CallId
    result: bytes


class ErrorResponse(Struct, frozen=True, kw_only=True):
    """The bad answer to a call. `id` is None when the call's id could not be read."""

    id: CallId | None
    error: ErrorObject


Message = Request | Notification | Response | ErrorResponse
