"""Makes a port's OpenAPI document from the routes, their operations and their Structs. Pure.

https://spec.openapis.org/oas/v3.1.1.html
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any

import msgspec
from msgspec import Struct

from balancer.access import DEFAULT_KEY_HEADER
from balancer.http.deprecation import SHORTEST_DAYS
from balancer.http.document.operation import JSON, Answer, Operation, Parameter, Shapes
from balancer.http.document.operations import OPERATIONS
from balancer.http.document.shapes.errors import AnswerMetadata, ErrorBody
from balancer.http.envelope import ENVELOPE
from balancer.http.exchange import Port
from balancer.http.router import Route

_DESCRIPTION = (
    "What is under /v1 stays as it is: routes, parameters and fields are added, not taken away. "
    "/v2 is the same. A route that will go is marked as deprecated here and answers with "
    f"Deprecation, Sunset and Link headers, for at least {SHORTEST_DAYS} days. With `Accept: "
    f"{ENVELOPE}` JSON answers, but no streams, come as {{status, data, metadata}}."
)
_SCHEMAS = "#/components/schemas/"
_ECHOED = ("X-Request-Id", "X-Correlation-Id", "traceparent")
_HEADERS = {
    "X-Request-Id": "The client's id of the request, if it sent a sane one, else ours.",
    "X-Paddler-Request-Id": "Our id of the request.",
}
_ERRORS = {
    400: "The request is wrong; the error names the parameter.",
    401: "Credentials are missing or wrong, where they are needed.",
    403: "The caller may not do this, or the request comes from where it may not.",
    404: "There is no such thing.",
    409: "An operator ended the request.",
    413: "The request is too large, or came too slowly.",
    415: "The body's encoding is not known.",
    429: "Too much was asked for.",
    502: "Agents failed.",
    503: "Nobody can serve it now.",
    504: "It took too long.",
}
_SECURITY = {
    "key": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key, a JWT, or another token where those are taken.",
    },
    "keyHeader": {"type": "apiKey", "in": "header", "name": DEFAULT_KEY_HEADER},
    "password": {"type": "http", "scheme": "basic"},
}
_LONG_REF = re.compile(rf'"{_SCHEMAS}(balancer\.[\w.]+)"')
_WORDS = re.compile(r"\w+")


@cache
def document_bytes(routes: tuple[Route, ...], ports: tuple[Port, ...]) -> bytes:
    """The document as JSON: made once, whoever asks."""
    return msgspec.json.encode(document(routes, ports))


def document(routes: Sequence[Route], ports: Sequence[Port]) -> dict[str, Any]:
    """What a socket serves that has these ports' routes; as in its router, the first port's row is
    meant where several have one. Raises `KeyError` where a route has no operation."""
    shown = list(_shown(routes, ports).values())
    schemas = Schemas(row for _, row in shown)
    paths: dict[str, dict[str, Any]] = {}
    for route, row in shown:
        path = route.path.replace("...}", "}")
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, row, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"Paddler: {' and '.join(ports).capitalize()} API",
            "version": "1",
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in dict.fromkeys(row.tag for _, row in shown)],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "headers": {name: _header(text) for name, text in _HEADERS.items()},
            "parameters": {name: _echoed(name) for name in _ECHOED},
            "securitySchemes": _SECURITY,
        },
        # the empty one: while no keys are configured, and on routes that are for everybody
        "security": [{}, *({name: []} for name in _SECURITY)],
    }


def _shown(
    routes: Sequence[Route], ports: Sequence[Port]
) -> dict[tuple[str, str], tuple[Route, Operation]]:
    """Every row with its operation, by method and path."""
    shown: dict[tuple[str, str], tuple[Route, Operation]] = {}
    for port in ports:
        rows = {(row.method, row.path): row for row in OPERATIONS if port in row.ports}
        for route in routes:
            name = (route.method, route.path)
            if port in route.ports and name not in shown:
                shown[name] = (route, rows[name])
    return shown


class Schemas:
    """The JSON schemas of some operations' Structs, under short names."""

    def __init__(self, rows: Iterable[Operation]) -> None:
        found = (shape for row in rows for shape in _shapes_of(row))
        shapes = list(dict.fromkeys([ErrorBody, AnswerMetadata, *found]))
        refs, components = msgspec.json.schema_components(shapes, ref_template=_SCHEMAS + "{name}")
        self._refs = dict(zip(shapes, map(_shortened, refs), strict=True))
        self.components: dict[str, Any] = {
            _short_name(name): _shortened(schema) for name, schema in components.items()
        }

    def any_of(self, shapes: Shapes) -> dict[str, Any]:
        """One of these; without any, an object that is not described."""
        found = [self._refs[shape] for shape in shapes]
        if len(found) == 1:
            return found[0]
        return {"anyOf": found} if found else {"type": "object"}

    def enveloped(self, shape: dict[str, Any]) -> dict[str, Any]:
        """A good answer in its envelope."""
        parts = {
            "status": {"const": "success"},
            "data": shape,
            "metadata": self._refs[AnswerMetadata],
        }
        return {"type": "object", "required": list(parts), "properties": parts}


def _shapes_of(row: Operation) -> Iterator[type[Struct]]:
    yield from row.bodies
    yield from row.error_shapes
    for answer in row.answers:
        yield from answer.shapes
        yield from answer.events
        yield from answer.or_json


def _shortened(schema: dict[str, Any]) -> dict[str, Any]:
    """Structs of one name are told apart by their family, not by where they are written."""
    text = msgspec.json.encode(schema).decode()
    short = _LONG_REF.sub(lambda found: f'"{_SCHEMAS}{_short_name(found[1])}"', text)
    decoded: dict[str, Any] = msgspec.json.decode(short)
    return decoded


def _short_name(name: str) -> str:
    parts = name.split(".")
    return name if len(parts) == 1 else parts[2].capitalize() + parts[-1]


def _operation(route: Route, row: Operation, schemas: Schemas) -> dict[str, Any]:
    also = "Also at " + ", ".join(f"`{path}`" for path in route.aliases) + "."
    made: dict[str, Any] = {
        "operationId": "_".join([row.ports[0], row.method.lower(), *_WORDS.findall(row.path)]),
        "tags": [row.tag],
        "summary": row.summary,
        "description": " ".join(filter(None, (row.description, also if route.aliases else ""))),
        "parameters": [
            *(_parameter(one) for one in row.parameters),
            *({"$ref": f"#/components/parameters/{name}"} for name in _ECHOED),
        ],
        "responses": _responses(row, schemas),
    }
    if route.deprecation is not None:
        made["deprecated"] = True
    if row.bodies:
        made["requestBody"] = _body(row, schemas)
    return made


def _responses(row: Operation, schemas: Schemas) -> dict[str, Any]:
    made = {str(answer.status): _answer(answer, schemas) for answer in row.answers}
    for status in row.errors:
        made[str(status)] = {
            "description": _ERRORS[status],
            "headers": _headers(),
            "content": {
                JSON: {"schema": schemas.any_of(row.error_shapes)},
                ENVELOPE: {"schema": schemas.any_of((ErrorBody,))},
            },
        }
    return made


def _answer(answer: Answer, schemas: Schemas) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if answer.content_type:
        is_json = answer.content_type == JSON
        shape = schemas.any_of(answer.shapes) if is_json else {"type": "string"}
        content[answer.content_type] = {"schema": shape}
        if is_json and answer.status < 400:
            content[ENVELOPE] = {"schema": schemas.enveloped(shape)}
    if answer.or_json:
        shape = schemas.any_of(answer.or_json)
        content[JSON] = {"schema": shape}
        content[ENVELOPE] = {"schema": schemas.enveloped(shape)}
    if answer.stream_type:
        events = {"x-events": schemas.any_of(answer.events)} if answer.events else {}
        content[answer.stream_type] = events
    made: dict[str, Any] = {"description": answer.description, "headers": _headers()}
    return {**made, "content": content} if content else made


def _body(row: Operation, schemas: Schemas) -> dict[str, Any]:
    examples = {
        example.name: {"summary": example.name, "value": example.body}
        for example in row.examples
        if example.body is not None
    }
    media = {"schema": schemas.any_of(row.bodies), "examples": examples}
    return {"required": True, "content": {JSON: media}}


def _parameter(one: Parameter) -> dict[str, Any]:
    made = {
        "name": one.name,
        "in": one.where,
        "required": one.where == "path",
        "description": one.description,
        "schema": {"type": "string", **one.schema},
    }
    return made if one.example is None else {**made, "example": one.example}


def _echoed(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "required": False,
        "description": "Given back with the answer, if it is a sane one.",
        "schema": {"type": "string"},
    }


def _headers() -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in _HEADERS}


def _header(text: str) -> dict[str, Any]:
    return {"description": text, "required": True, "schema": {"type": "string"}}
