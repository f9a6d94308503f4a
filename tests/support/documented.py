"""Answers held against a port's OpenAPI document."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator

from balancer.http.document.build import document
from balancer.http.exchange import Port
from balancer.http.routes import ROUTES


@cache
def documented(port: Port) -> dict[str, Any]:
    """The document of a port."""
    return document(ROUTES, (port,))


def faults(
    port: Port, method: str, path: str, *, status: int, content_type: str, body: bytes
) -> list[str]:
    """What an answer has otherwise than the document says; `path` as the document has it."""
    answers = documented(port)["paths"][path][method.lower()]["responses"]
    if str(status) not in answers:
        return [f"{status} is not documented"]
    media = answers[str(status)].get("content", {}).get(content_type)
    if media is None:
        return [f"{content_type} is not documented"]
    if "x-events" in media:
        return [
            fault for event in _events(body) for fault in _mistakes(port, media["x-events"], event)
        ]
    if not content_type.endswith("json"):
        return []
    return _mistakes(port, media["schema"], json.loads(body))


def _mistakes(port: Port, schema: Any, value: Any) -> list[str]:
    whole = {**schema, "components": documented(port)["components"]}
    return [str(error) for error in Draft202012Validator(whole).iter_errors(value)]


def _events(body: bytes) -> Iterator[Any]:
    """The objects of a stream: of server-sent events, or one a line."""
    for line in body.decode().splitlines():
        data = line.removeprefix("data: ")
        if data.startswith("{"):
            yield json.loads(data)
