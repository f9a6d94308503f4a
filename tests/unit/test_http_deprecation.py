"""What is said of a route that will go, and that it is not gone too soon."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from msgspec import structs

from balancer.http.deprecation import SHORTEST_DAYS, Deprecation
from balancer.http.document.build import document
from balancer.http.router import Route
from balancer.http.routes import ROUTES

GOING = Deprecation(since=date(2027, 1, 1), sunset=date(2027, 12, 31))
HEADERS = {
    "Deprecation": "@1798761600",
    "Sunset": "Fri, 31 Dec 2027 00:00:00 GMT",
    "Link": '</docs>; rel="deprecation"; type="text/html"',
}


def test_its_headers_are_those_of_the_rfcs() -> None:
    assert GOING.headers() == HEADERS


def test_no_route_goes_sooner_than_the_policy_says() -> None:
    today = date(2027, 1, 1)
    Deprecation(since=today, sunset=today + timedelta(days=SHORTEST_DAYS))
    with pytest.raises(ValueError, match="180 days"):
        Deprecation(since=today, sunset=today + timedelta(days=SHORTEST_DAYS - 1))


def test_the_document_marks_the_routes_that_will_go_and_no_others() -> None:
    paths = document(_routes_with("/tokenize"), ("inference",))["paths"]
    marked = [path for path, row in paths.items() for one in row.values() if one.get("deprecated")]
    assert marked == ["/tokenize"]


def _routes_with(path: str) -> tuple[Route, ...]:
    return tuple(
        structs.replace(route, deprecation=GOING) if route.path == path else route
        for route in ROUTES
    )
