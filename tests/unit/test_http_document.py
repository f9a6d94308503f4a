"""The OpenAPI document: valid, a row for every route; its page loads nothing from elsewhere."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from typing import Any, get_args

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from balancer.http.document.build import document
from balancer.http.document.operation import Operation
from balancer.http.document.operations import OPERATIONS
from balancer.http.document.page import page
from balancer.http.exchange import Port
from balancer.http.router import Route
from balancer.http.routes import ROUTES

# many examples of what other tests cover line by line: counting lines would double its time
pytestmark = pytest.mark.uncounted

LISTENERS: tuple[tuple[Port, ...], ...] = (*((port,) for port in get_args(Port)), get_args(Port))


def _rows(table: tuple[Route, ...] | tuple[Operation, ...]) -> list[tuple[str, str, str]]:
    return sorted((port, row.method, row.path) for row in table for port in row.ports)


def test_every_route_has_one_operation_and_every_operation_a_route() -> None:
    assert _rows(OPERATIONS) == _rows(ROUTES)


@pytest.mark.parametrize("ports", LISTENERS)
def test_the_document_of_a_socket_is_valid(ports: tuple[Port, ...]) -> None:
    found = [
        error.message for error in OpenAPIV31SpecValidator(document(ROUTES, ports)).iter_errors()
    ]
    assert found == []


@pytest.mark.parametrize("ports", LISTENERS)
def test_a_socket_documents_the_routes_of_its_ports(ports: tuple[Port, ...]) -> None:
    paths: dict[str, Any] = document(ROUTES, ports)["paths"]
    shown = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    own = [route for route in ROUTES if set(ports) & set(route.ports)]
    assert shown == {(route.method, route.path.replace("...}", "}")) for route in own}


def test_a_place_of_a_path_is_a_parameter_of_its_operation() -> None:
    for row in OPERATIONS:
        named = re.findall(r"\{(\w+)[.]*\}", row.path)
        assert [one.name for one in row.parameters if one.where == "path"] == named, row.path
        assert all(one.example for one in row.parameters if one.where == "path"), row.path


def test_a_query_parameter_that_a_route_takes_is_documented() -> None:
    taken = {(route.method, route.path, name) for route in ROUTES for name in route.query}
    shown = {
        (row.method, row.path, one.name)
        for row in OPERATIONS
        for one in row.parameters
        if one.where == "query"
    }
    assert taken <= shown


def test_every_operation_with_a_body_has_an_example_of_it() -> None:
    for row in OPERATIONS:
        assert row.examples, row.path
        assert bool(row.bodies) == any(one.body is not None for one in row.examples), row.path


def test_structs_of_one_name_are_told_apart_by_their_family() -> None:
    names = document(ROUTES, ("inference",))["components"]["schemas"]
    assert {"OpenaiMessageIn", "AnthropicMessageIn", "OllamaMessageIn"} <= set(names)


def test_the_page_runs_its_own_script_and_loads_nothing_from_elsewhere() -> None:
    html, policy = page().html.decode(), page().policy
    script = re.search(r"<script>(.*?)</script>", html, re.DOTALL)
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    assert script
    assert style
    for found, directive in ((script, "script-src"), (style, "style-src")):
        digest = b64encode(hashlib.sha256(found[1].encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"https?://", html)
    assert not re.search(r"\son\w+=|\sstyle=|innerHTML|eval\(", html)
