"""The route table of both ports."""

from __future__ import annotations

import pytest

from balancer.errors import MethodNotAllowed, RouteNotFound
from balancer.http.exchange import Port
from balancer.http.router import Router
from balancer.http.routes import ROUTES
from balancer.http.traffic import Traffic

PORTS: tuple[Port, ...] = ("inference", "management")


@pytest.mark.parametrize("port", PORTS)
def test_every_row_is_found_under_all_its_paths(port: Port) -> None:
    router = Router(ROUTES, port=port)
    for route in ROUTES:
        for path in (route.path, *route.aliases):
            if port in route.ports:
                assert router.match(route.method, path) is route


def test_management_never_answers_v1_models_and_inference_no_agents() -> None:
    with pytest.raises(RouteNotFound):
        Router(ROUTES, port="inference").match("GET", "/agents")
    with pytest.raises(RouteNotFound):
        Router(ROUTES, port="management").match("POST", "/v1/chat/completions")


def test_head_is_answered_where_get_is_and_other_methods_are_named() -> None:
    router = Router(ROUTES, port="inference")
    assert router.match("HEAD", "/health").path == "/health"
    with pytest.raises(MethodNotAllowed) as refused:
        router.match("POST", "/health")
    assert refused.value.details["allowed"] == ["GET", "HEAD"]


def test_two_rows_for_one_path_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="two rows"):
        Router((*ROUTES, ROUTES[0]), port="inference")


def test_traffic_counts_the_last_minute_only() -> None:
    traffic = Traffic()
    for second in (0, 30, 59):
        traffic.note(now_s=second, took_s=0.5)
    assert traffic.rate(now_s=59.5).requests_per_second == 0.05
    assert traffic.rate(now_s=59.5).avg_response_time_ms == 500.0
    traffic.note(now_s=60, took_s=0.1)
    assert traffic.rate(now_s=95.0).avg_response_time_ms == 300.0
    assert traffic.rate(now_s=500.0).requests_per_second == 0.0
