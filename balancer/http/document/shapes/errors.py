"""Errors, as each family of APIs has them."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType


class ErrorObject(Struct, kw_only=True):
    """What went wrong and what to do about it; `param` names the parameter at fault."""

    message: str
    type: str
    code: str
    param: str | None
    details: dict[str, Any]
    request_id: str
    retry_after: int | UnsetType = UNSET
    legacy_codes: list[str] | UnsetType = UNSET


class AnswerMetadata(Struct, kw_only=True):
    """When, and to which request."""

    timestamp: str
    request_id: str
    correlation_id: str | None


class ErrorBody(Struct, kw_only=True):
    """The body of an error."""

    error: ErrorObject
    status: Literal["error"]
    timestamp: int
    metadata: AnswerMetadata


class ErrorEvent(Struct, kw_only=True):
    """What ends a stream badly."""

    error: ErrorObject


class TextErrorBody(Struct, kw_only=True):
    """The body of an error for clients that read a text, and what ends a stream of lines badly."""

    error: str
    detail: ErrorObject


class AnthropicErrorBody(Struct, kw_only=True):
    """The body of an error as Anthropic's clients read it, and the event that ends a stream
    badly."""

    type: Literal["error"]
    error: ErrorObject
    request_id: str
