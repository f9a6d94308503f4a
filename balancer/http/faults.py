"""Errors about single parameters, with the details that api.md promises. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from balancer.errors import InvalidRequest, RequestTooLarge
from balancer.settings import KIB, MIB

_SHOWN_CHARS = 200


def refuse_value(
    param: str, value: Any, expected: str, *, code: str = "invalid_value"
) -> InvalidRequest:
    """The error for one parameter's type or value, with the details that api.md promises."""
    details = {"parameter": param, "received_value": shorten(value), "expected": expected}
    if code == "invalid_type":
        details["expected_type"] = expected
    return InvalidRequest(
        f"`{param}` must be {expected}; got {_described(value)}.",
        code=code,
        param=param,
        details=details,
    )


def missing(param: str) -> InvalidRequest:
    """The error for a parameter that must be there."""
    return InvalidRequest(
        f"`{param}` is required.",
        code="missing_required_parameter",
        param=param,
        details={"parameter": param, "issue": "missing"},
    )


def unsupported(param: str, value: Any, expected: str) -> InvalidRequest:
    """The refusal of a parameter that would otherwise be silently ignored."""
    return InvalidRequest(
        f"`{param}` is not supported here with this value; leave it out or send {expected}.",
        code="unsupported_parameter",
        param=param,
        details={"parameter": param, "received_value": shorten(value), "expected": expected},
    )


def body_too_large(limit_bytes: int) -> RequestTooLarge:
    """The error for a body of too many bytes, as they came or without their encoding."""
    size = f"{limit_bytes / MIB:g} MiB" if limit_bytes >= MIB else f"{limit_bytes / KIB:g} KiB"
    return RequestTooLarge(
        f"The request body is larger than {size}.",
        details={"limit_bytes": limit_bytes},
    )


def _described(value: Any) -> str:
    """A value in words, with its size where it is not shown in full."""
    match value:
        case list() | tuple():
            return f"an array of {len(value)}"
        case dict():
            return "an object"
        case str() if len(value) > _SHOWN_CHARS:
            return f"{shorten(value)!r} of {len(value)} characters"
        case _:
            return repr(shorten(value))


def shorten(value: Any) -> Any:
    """A value that fits an error: short scalars as they are, anything else by its JSON type."""
    match value:
        case None | bool() | int() | float():
            return value
        case str():
            return value if len(value) <= _SHOWN_CHARS else value[:_SHOWN_CHARS] + "…"
        case list() | tuple():
            return "array"
        case _:
            return "object"


def refuse_unless_harmless(
    body: Struct, harmless: Mapping[str, tuple[Any, ...]], *, within: str = ""
) -> None:
    """Refuse the parameters that cannot be honoured, unless they have a value that asks for
    nothing: null always, or one of those listed. A body may lack some of them. `within` is the
    path to the body, for example `options.`."""
    for param, values in harmless.items():
        value = getattr(body, param, None)
        if value is None or any(type(value) is type(ok) and value == ok for ok in values):
            continue
        raise unsupported(
            within + param, value, " or ".join(_json_words(ok) for ok in values) or "null"
        )


def _json_words(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value).replace("'", '"')
