"""Request bodies: read within limits, decoded into Structs, faults named by parameter."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec
from aiohttp.streams import StreamReader
from aiohttp.web import RequestPayloadError

from balancer.errors import InvalidRequest, RequestTooLarge
from balancer.http.connection import ClientConnection
from balancer.http.content_encoding import decoded, encodings_of
from balancer.http.faults import body_too_large, missing, refuse_value
from balancer.settings import Settings
from protocol.json_depth import is_too_deep

if TYPE_CHECKING:
    from balancer.http.exchange import Exchange

MAX_BRACKETS = 500_000
"""Opening ones, in strings too: 20 MiB of nothing else would cost seconds and a gigabyte."""
_T = TypeVar("_T")
_AT = re.compile(r" - at `(?:key in )?\$\.?(.*)`$", re.DOTALL)
_MISSING = re.compile(r"^Object missing required field `(.*?)`")
_STEP = re.compile(r"([^.\[\]]+)|\[(\d+|\.\.\.)\]")


async def read_body(
    exchange: Exchange, settings: Settings, *, most_bytes: int | None = None
) -> bytes:
    """The whole body, without its encodings. Raises `RequestTooLarge` for too many bytes or too
    slow ones, `UnsupportedMediaType` for an encoding that nobody here undoes, and `Unauthorized`
    where what the request signed in with ended while the body came: a client can take its time.

    The answer to `Expect: 100-continue` waits until the announced size is known to be allowed.
    `most_bytes` where that is less than what the settings allow.
    """
    request = exchange.request
    encodings = encodings_of(request.headers.getall("Content-Encoding", ()))
    limit = min(settings.max_body_bytes, most_bytes or settings.max_body_bytes)
    if (request.content_length or 0) > limit:
        raise body_too_large(limit)
    if request.headers.get("Expect", "").lower() == "100-continue" and request.transport:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    content = request.content
    try:
        if content.is_eof():  # it came with its headers, and needs no clock
            body = await _whole(content, limit)
        else:
            with exchange.staying_let_in():
                async with asyncio.timeout(settings.slow_body_timeout_s):
                    body = await _whole(content, limit)
    except TimeoutError as error:
        seconds = settings.slow_body_timeout_s
        raise RequestTooLarge(f"The request body did not arrive within {seconds:g} s.") from error
    except RequestPayloadError as error:
        cast(ClientConnection, request.protocol).ignore_rest()
        raise InvalidRequest("The request body is not encoded as its headers say.") from error
    return await decoded(body, encodings, limit_bytes=limit)


async def _whole(content: StreamReader, limit: int) -> bytes:
    """All that is left. Raises `RequestTooLarge` as soon as it is more than that."""
    chunks: list[bytes] = []
    size = 0
    while chunk := await content.readany():
        size += len(chunk)
        if size > limit:
            raise body_too_large(limit)
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def decode_json(
    data: bytes,
    decoder: msgspec.json.Decoder[_T],
    *,
    max_depth: int,
    expected: Mapping[str, str],
) -> _T:
    """The body as its Struct. Raises `InvalidRequest` that names the parameter at fault.

    `expected` has, by parameter, what to say was expected instead of msgspec's own words.
    """
    if data.count(b"{") + data.count(b"[") > MAX_BRACKETS:
        raise RequestTooLarge(
            f"The body holds more than {MAX_BRACKETS} arrays and objects; send less at once."
        )
    if is_too_deep(data, max_depth):
        raise InvalidRequest(
            f"The body nests JSON deeper than {max_depth} levels.", code="invalid_json"
        )
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        raise _fault(str(error), data, expected) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _no_json(data, error) from error


def _no_json(data: bytes, error: Exception) -> InvalidRequest:
    what = f"The body is not valid JSON: {error}" if data.strip() else "The body is empty"
    return InvalidRequest(f"{what}. Send a JSON object.", code="invalid_json")


def _fault(message: str, data: bytes, expected: Mapping[str, str]) -> InvalidRequest:
    """msgspec's words turned into a parameter, what it held and what it should hold."""
    at = _AT.search(message)
    # `[...]` stands for any key of an object: its whole is shown
    path = at[1].partition("[...]")[0] if at else ""
    reason = message[: at.start()] if at else message
    if absent := _MISSING.match(reason):
        return missing(f"{path}.{absent[1]}" if path else absent[1])
    if not path:
        return InvalidRequest("The body must be a JSON object.", code="invalid_type")
    try:
        whole = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return _no_json(data, error)  # the faulty value came before the place where JSON ends
    wrong_type = ", got `" in reason
    wanted = expected.get(path)
    return refuse_value(
        path,
        _value_at(whole, path),
        wanted or reason.removeprefix("Expected ").split(", got ")[0].replace("`", ""),
        code="invalid_type" if wrong_type else "invalid_value",
    )


def _value_at(value: Any, path: str) -> Any:
    for name, index in _STEP.findall(path):
        try:
            value = value[name] if name else value[int(index)]
        except (KeyError, IndexError, TypeError, ValueError):
            return None
    return value
