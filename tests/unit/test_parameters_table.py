"""docs/reference/parameters.md has a row for every parameter, and a test that shows its effect."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from msgspec import Struct

from balancer.http.anthropic.schema import MessagesRequest
from balancer.http.openai.schema import (
    ChatCompletionRequest,
    CompletionRequest,
    EmbeddingsRequest,
)
from balancer.http.responses.schema import ResponseRequest

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "reference" / "parameters.md"
SCHEMAS: dict[str, type[Struct]] = {
    "chat": ChatCompletionRequest,
    "completions": CompletionRequest,
    "embeddings": EmbeddingsRequest,
    "messages": MessagesRequest,
    "responses": ResponseRequest,
}
KINDS = {"effect", "no effect", "refused"}


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
                tuple(re.findall(r"`(\w+)`", parameters)),
                tuple(routes.split(", ")),
                kind,
                words,
                test.strip("` "),
            )
        )
    return found


def listed(route: str) -> Counter[str]:
    return Counter(name for row in rows() if route in row.routes for name in row.parameters)


def existing_tests() -> set[str]:
    pattern = re.compile(r"^(?:async )?def (test_\w+)\(", re.MULTILINE)
    return {name for file in TESTS.rglob("test_*.py") for name in pattern.findall(file.read_text())}


@pytest.mark.parametrize("route", SCHEMAS)
def test_every_parameter_of_a_route_has_one_row_and_every_row_a_parameter(route: str) -> None:
    assert listed(route) == Counter(SCHEMAS[route].__struct_fields__)


def test_rows_say_what_becomes_of_the_parameter_on_routes_that_exist() -> None:
    for row in rows():
        assert row.parameters
        assert set(row.routes) <= SCHEMAS.keys(), row
        assert row.kind in KINDS, row
        assert row.words, row


def test_the_tests_that_rows_name_exist() -> None:
    assert {row.test for row in rows()} - existing_tests() == set()
