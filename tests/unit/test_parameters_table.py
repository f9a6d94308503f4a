"""docs/reference/parameters.md has a row for every parameter, and a test that shows its effect."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest
from anthropic.types import message_count_tokens_params, message_create_params
from anthropic.types.beta import message_count_tokens_params as beta_count_tokens_params
from anthropic.types.beta import message_create_params as beta_message_create_params
from msgspec import Struct
from ollama import _types as ollama_types
from openai.types import completion_create_params, embedding_create_params
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.responses import response_create_params
from pydantic import BaseModel
from typing_extensions import is_typeddict

from balancer.http.document.operations import OPERATIONS
from balancer.http.router import Route
from balancer.http.routes import ROUTES

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "reference" / "parameters.md"
UNIONS = (Union, UnionType)
KINDS = {"effect", "no effect", "refused"}
IN_HEADERS = {"betas", "user_profile_id", "workspace_id"}
"""What Anthropic's client takes as parameters and sends as headers."""
_BODIES = {(row.method, row.path): row.bodies for row in OPERATIONS}


class Row(Struct, frozen=True):
    """Parameters that are treated alike on some routes."""

    parameters: tuple[str, ...]
    routes: tuple[str, ...]
    kind: str
    words: str
    test: str


def rows() -> list[Row]:
    found = []
    for line in PAGE.read_text().splitlines():
        if not line.startswith("| `"):
            continue
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        parameters, routes, kind, words, test = cells
        found.append(
            Row(
                tuple(re.findall(r"`([\w.]+)`", parameters)),
                tuple(routes.split(", ")),
                kind,
                words,
                test.strip("` "),
            )
        )
    return found


def named_routes() -> dict[str, str]:
    """What the page calls the routes, by method and path."""
    found = re.findall(r"`(\w+)`\s+is\s+(POST|PUT)\s+(/\S+\w)", PAGE.read_text())
    return {f"{method} {path}": name for name, method, path in found}


def with_bodies() -> dict[str, tuple[type[Struct], ...]]:
    """What the bodies of each route are decoded into, by method and path."""
    every = ((route, _BODIES[route.method, route.path]) for route in ROUTES)
    return {f"{route.method} {route.path}": bodies for route, bodies in every if bodies}


def is_struct(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Struct)


def struct_in(hint: Any) -> type[Struct] | None:
    """The Struct that a parameter's object is decoded into, if it is one."""
    options = get_args(hint) if get_origin(hint) in UNIONS else (hint,)
    return next((one for one in options if is_struct(one)), None)


def parameters_of(body: type[Struct]) -> Iterator[str]:
    """Of a body, and of the objects in it that are no lists."""
    for name, hint in get_type_hints(body).items():
        yield name
        if (inner := struct_in(hint)) is not None:
            yield from (f"{name}.{one}" for one in parameters_of(inner))


def existing_tests() -> set[str]:
    pattern = re.compile(r"^(?:async )?def (test_\w+)\(", re.MULTILINE)
    return {name for file in TESTS.rglob("test_*.py") for name in pattern.findall(file.read_text())}


def test_every_route_with_a_body_has_a_name_on_the_page() -> None:
    assert set(named_routes()) == set(with_bodies())


@pytest.mark.parametrize("route", with_bodies())
def test_every_parameter_of_a_route_has_one_row_and_every_row_a_parameter(route: str) -> None:
    name = named_routes()[route]
    listed = Counter(one for row in rows() if name in row.routes for one in row.parameters)
    taken = {one for body in with_bodies()[route] for one in parameters_of(body)}
    assert listed == Counter(taken)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_no_handler_decodes_a_body_that_its_operation_does_not_name(route: Route) -> None:
    """So that no route's parameters are forgotten."""
    module = route.handler.__module__
    beside = [one for one in ROUTES if one.handler.__module__ == module]
    named = {body for one in beside for body in _BODIES[one.method, one.path]}
    held = vars(sys.modules[module]).values()
    decoded = {one.type for one in held if isinstance(one, msgspec.json.Decoder)}
    assert {one for one in decoded if is_struct(one) and one.__name__[0] != "_"} <= named


def test_rows_say_what_becomes_of_the_parameter_on_routes_that_exist() -> None:
    names = set(named_routes().values())
    for row in rows():
        assert row.parameters
        assert set(row.routes) <= names, row
        assert row.kind in KINDS, row
        assert row.words, row


def test_the_tests_that_rows_name_exist() -> None:
    assert {row.test for row in rows()} - existing_tests() == set()


CLIENTS: list[tuple[str, Any]] = [
    ("POST /v1/chat/completions", chat_create_params.CompletionCreateParams),
    ("POST /v1/completions", completion_create_params.CompletionCreateParams),
    ("POST /v1/embeddings", embedding_create_params.EmbeddingCreateParams),
    ("POST /v1/responses", response_create_params.ResponseCreateParams),
    ("POST /v1/messages", message_create_params.MessageCreateParams),
    ("POST /v1/messages", beta_message_create_params.MessageCreateParams),
    ("POST /v1/messages/count_tokens", message_count_tokens_params.MessageCountTokensParams),
    ("POST /v1/messages/count_tokens", beta_count_tokens_params.MessageCountTokensParams),
    ("POST /api/chat", ollama_types.ChatRequest),
    ("POST /api/generate", ollama_types.GenerateRequest),
    ("POST /api/embed", ollama_types.EmbedRequest),
    ("POST /api/embeddings", ollama_types.EmbeddingsRequest),
    ("POST /api/show", ollama_types.ShowRequest),
]


def fields_in(hint: Any) -> Iterator[tuple[str, Any]]:
    """Of a client's type: its fields with their types, of a union those of all its members."""
    if is_typeddict(hint):
        yield from get_type_hints(hint).items()
    elif isinstance(hint, type) and issubclass(hint, BaseModel):
        yield from ((name, field.annotation) for name, field in hint.model_fields.items())
    elif get_origin(hint) in UNIONS:
        for one in get_args(hint):
            yield from fields_in(one)


def sent_by(hint: Any, body: type[Struct]) -> Iterator[str]:
    """What a client may send, into the objects that the route looks into."""
    ours = get_type_hints(body)
    for name, inner in fields_in(hint):
        yield name
        within = struct_in(ours.get(name))
        if within is not None:
            yield from (f"{name}.{one}" for one in sent_by(inner, within))


@pytest.mark.parametrize(("route", "sent"), CLIENTS)
def test_whatever_a_client_s_own_types_have_the_route_knows(route: str, sent: Any) -> None:
    """What it knows has a row, which says what becomes of it."""
    body = with_bodies()[route][0]
    in_client = set(sent_by(sent, body))
    assert in_client >= {"model"}
    assert in_client - set(parameters_of(body)) - IN_HEADERS == set()
