"""What the document says of one route: a row of `operations.OPERATIONS`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct

from balancer.http.document.shapes.errors import ErrorBody
from balancer.http.exchange import Port
from balancer.http.router import Method

JSON = "application/json"
SSE = "text/event-stream"
NDJSON = "application/x-ndjson"

READING = (400, 401, 403, 413, 429)
"""What any request can be refused with: it is no HTTP, nobody has its key, it comes from elsewhere,
its headers are too large, there were too many before it."""
FINDING = (*READING, 404)
ASKING = (*FINDING, 409, 415, 502, 503, 504)
"""What a request with a body can end with that an agent works on."""

Shapes = tuple[type[Struct], ...]
"""One of these; none: not described any further."""


class Parameter(Struct, frozen=True, kw_only=True):
    """Something beside the body. One with an `example` is part of every example."""

    name: str
    where: Literal["path", "query", "header"]
    description: str
    schema: Mapping[str, Any] = {}
    """What else is known of it than that it is a string."""
    example: str | None = None


class Answer(Struct, frozen=True, kw_only=True):
    """An answer that is no error. `events` are what a stream consists of, where it may be one."""

    status: int = 200
    description: str
    content_type: str = JSON
    shapes: Shapes = ()
    stream_type: str = ""
    events: Shapes = ()
    or_json: Shapes = ()
    """What it is as JSON, where that may be asked for instead of its own type."""


class Example(Struct, frozen=True, kw_only=True):
    """A request that can be sent as it is; `status` is what a fleet that can serve it answers."""

    name: str
    body: Any = None
    query: Mapping[str, str] = {}
    status: int = 200
    is_stream: bool = False


class Operation(Struct, frozen=True, kw_only=True):
    """One route. `bodies` are the Structs that its body is decoded into: any one of them."""

    ports: tuple[Port, ...]
    method: Method
    path: str
    tag: str
    summary: str
    description: str = ""
    bodies: Shapes = ()
    parameters: tuple[Parameter, ...] = ()
    answers: tuple[Answer, ...]
    errors: tuple[int, ...] = READING
    error_shapes: Shapes = (ErrorBody,)
    examples: tuple[Example, ...]


RESUMABLE = Parameter(
    name="X-Paddler-Resumable",
    where="header",
    description="A stream can be taken up again after a lost connection, unless this says no.",
)
QUEUE_UPDATES = Parameter(
    name="X-Paddler-Queue-Updates",
    where="header",
    description="A stream tells its place in the queue while it waits, unless this says no.",
)


def place(name: str, description: str, example: str) -> Parameter:
    """A segment of the path."""
    schema = {"minLength": 1}
    return Parameter(
        name=name, where="path", description=description, schema=schema, example=example
    )


def asking(
    *,
    path: str,
    tag: str,
    summary: str,
    bodies: Shapes,
    answers: tuple[Answer, ...],
    examples: tuple[Example, ...],
    description: str = "",
    parameters: tuple[Parameter, ...] = (),
    error_shapes: Shapes = (ErrorBody,),
    ports: tuple[Port, ...] = ("inference",),
) -> Operation:
    """A request with a body that an agent works on."""
    return Operation(
        ports=ports,
        method="POST",
        path=path,
        tag=tag,
        summary=summary,
        description=description,
        bodies=bodies,
        parameters=parameters,
        answers=answers,
        errors=ASKING,
        error_shapes=error_shapes,
        examples=examples,
    )
