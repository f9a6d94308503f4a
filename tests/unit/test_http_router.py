"""The route table of both ports."""

from __future__ import annotations

import contextlib
import re

import pytest

from balancer.errors import MethodNotAllowed, RouteNotFound
from balancer.http.answers import error_answer, text_error_answer
from balancer.http.anthropic.errors import error_answer as anthropic_error
from balancer.http.dashboard.handler import show_asset, show_dashboard
from balancer.http.exchange import ErrorForm, Port
from balancer.http.health import ready
from balancer.http.router import MAX_SEGMENTS, Method, Route, Router
from balancer.http.routes import ROUTES
from protocol.to_balancer import RESERVED_AGENT_NAMES

PORTS: tuple[Port, ...] = ("inference", "management")


@pytest.mark.parametrize("port", PORTS)
def test_every_row_is_found_under_all_its_paths(port: Port) -> None:
    router = Router(ROUTES, ports=(port,))
    for route in ROUTES:
        for path in (route.path, *route.aliases):
            if port in route.ports:
                place = re.search(r"{(\w+)[.]*}", path)
                row, places = router.match(route.method, re.sub(r"{.*?}", "some id", path))
                assert (row.path, row.method, row.handler) == (
                    route.path,
                    route.method,
                    route.handler,
                )
                assert places == ({place[1]: "some id"} if place else {})


@pytest.mark.parametrize("port", PORTS)
def test_one_socket_serves_both_tables_and_clients_find_what_8080_has(port: Port) -> None:
    both, own = Router(ROUTES, ports=PORTS), Router(ROUTES, ports=(port,))
    first = Router(ROUTES, ports=PORTS[:1])
    for route in ROUTES:
        if port not in route.ports or route.call == "models.metadata":
            continue  # 8080 takes that for the name of a model
        for path in map(_filled, (route.path, *route.aliases)):
            for router in (first, own):
                with contextlib.suppress(RouteNotFound, MethodNotAllowed):
                    expected = router.match(route.method, path)
                    break
            assert both.match(route.method, path) == expected


def test_a_path_of_one_socket_takes_the_methods_of_both_tables() -> None:
    shown, removed = _row("GET", ("inference",)), _row("DELETE", ("management",))
    router = Router((shown, removed), ports=PORTS)
    assert router.match("GET", "/things")[0].ports == shown.ports
    assert router.match("DELETE", "/things")[0].ports == removed.ports
    with pytest.raises(ValueError, match="two rows"):
        Router((shown, shown), ports=PORTS)


def _filled(path: str) -> str:
    return re.sub(r"{.*?}", "some id", path)


def _row(method: Method, ports: tuple[Port, ...]) -> Route:
    return Route(
        ports=ports, method=method, path="/things", handler=ready, limit_class="management"
    )


def test_the_second_version_is_the_first() -> None:
    router = Router(ROUTES, ports=("inference",))
    for path in ("/chat/completions", "/models", "/streams/req_1"):
        method = "POST" if path.startswith("/chat") else "GET"
        assert router.match(method, "/v2" + path) == router.match(method, "/v1" + path)
    with pytest.raises(RouteNotFound):
        router.match("GET", "/v3/models")


def test_all_routes_but_ollama_s_and_pages_are_there_under_v1_and_without_it() -> None:
    for route in ROUTES:
        paths = {route.path, *route.aliases}
        if route.ports == ("management",) and paths & {"/models", "/v1/models"}:
            continue  # two lists: of details, and OpenAI's
        if route.ports == ("management",) and "/v1/models/{id...}" in paths:
            continue
        if route.handler in (show_dashboard, show_asset):
            assert not any(path.startswith("/v1/") for path in paths)  # pages are no API
        elif route.path.startswith("/api/") or route.path == "/":
            assert paths == {route.path}
        else:
            assert any(path.startswith("/v1/") for path in paths), route.path
            assert any(not path.startswith("/v1/") for path in paths), route.path


@pytest.mark.parametrize(
    "path", ["/agents/", "/agents//drain", "/agents/a/b/drain", "/agents/a/nothing", "/agents/a/"]
)
def test_a_place_in_a_path_takes_one_segment_that_is_not_empty(path: str) -> None:
    with pytest.raises(RouteNotFound):
        Router(ROUTES, ports=("management",)).match("POST", path)


def test_a_last_place_may_take_the_rest_of_the_path() -> None:
    router = Router(ROUTES, ports=("inference",))
    assert router.match("GET", "/v1/models/org/name")[1] == {"id": "org/name"}
    for path in ("/v1/models/", "/v1/model"):
        with pytest.raises(RouteNotFound):
            router.match("GET", path)


def test_plain_paths_come_before_those_with_places() -> None:
    router = Router(ROUTES, ports=("management",))
    assert router.match("GET", "/agents/connect")[0].is_socket
    assert router.match("GET", "/agents/{id}") == (
        router.match("GET", "/agents/one")[0],
        {"id": "{id}"},
    )


def test_no_agent_may_have_the_name_of_another_route() -> None:
    paths = [route.path for route in ROUTES if route.path.startswith("/agents/")]
    assert {path.split("/")[2] for path in paths} - {"{id}"} <= RESERVED_AGENT_NAMES


def test_inference_knows_no_agents_and_management_only_what_a_playground_needs() -> None:
    with pytest.raises(RouteNotFound):
        Router(ROUTES, ports=("inference",)).match("GET", "/agents")
    management = Router(ROUTES, ports=("management",))
    assert management.match("POST", "/v1/chat/completions")[0].limit_class == "chat"
    for path in ("/v1/completions", "/v1/messages", "/v1/responses", "/api/chat"):
        with pytest.raises(RouteNotFound):
            management.match("POST", path)


def test_the_list_under_v1_is_openai_s_on_both_ports() -> None:
    inference, management = (Router(ROUTES, ports=(port,)) for port in PORTS)
    listed = inference.match("GET", "/v1/models")[0]
    assert listed.handler is inference.match("GET", "/models")[0].handler
    assert listed.handler is management.match("GET", "/v1/models")[0].handler
    assert management.match("GET", "/models")[0].call == "models.list"
    assert management.match("GET", "/v1/models/a/b")[1] == {"id": "a/b"}
    row, places = management.match("GET", "/v1/models/a/b/metadata")
    assert (row.call, places) == ("models.metadata", {"name": "a/b"})


def test_head_is_answered_where_get_is_and_other_methods_are_named() -> None:
    router = Router(ROUTES, ports=("inference",))
    assert router.match("HEAD", "/health")[0].path == "/health"
    with pytest.raises(MethodNotAllowed) as refused:
        router.match("POST", "/health")
    assert refused.value.details["allowed"] == ["GET", "HEAD"]


def test_two_rows_for_one_path_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="two rows"):
        Router((*ROUTES, ROUTES[0]), ports=("inference",))


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("/v1/messages", anthropic_error),
        ("/v2/messages/", anthropic_error),
        ("/messages/count_tokens", anthropic_error),
        ("/v1/messages/batches/one/results", anthropic_error),
        ("/api/chat", text_error_answer),
        ("/api/pull", text_error_answer),
        ("/api/blobs/sha256:1", text_error_answer),
        ("/api" + "/a" * 4000, text_error_answer),
        ("/", text_error_answer),
        ("/v1/chat/completions", error_answer),
        ("/v1/chat/nothing", error_answer),
        ("/v1/nothing", error_answer),
        ("/v1/messagesandmore", error_answer),
        ("/nothing", error_answer),
        ("//api/chat", error_answer),
        ("", error_answer),
        ("*", error_answer),
    ],
)
def test_an_unknown_path_or_method_is_told_as_its_family_tells_errors(
    path: str, form: ErrorForm
) -> None:
    assert Router(ROUTES, ports=("inference",)).error_form(path) is form


@pytest.mark.parametrize("port", PORTS)
def test_every_row_s_path_has_its_form_of_errors(port: Port) -> None:
    router = Router(ROUTES, ports=(port,))
    for route in ROUTES:
        for path in (route.path, *route.aliases):
            if port in route.ports:
                path = re.sub(r"{.*?}", "a", path)
                assert router.error_form(path) is route.error_form
                assert path.count("/") < MAX_SEGMENTS
