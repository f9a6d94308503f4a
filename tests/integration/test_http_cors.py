"""Pages of other origins: those that are listed may use the inference API, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from balancer.config_file.rules import RULES
from tests.support.fake_agent import FakeAgent, events_of
from tests.support.keys import USER, auth, bearer
from tests.support.running_balancer import Answer, RunningBalancer, running_balancer

PAGE = "https://chat.example"
ORIGIN = {"Origin": PAGE, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}
ASKS = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,x-stainless-lang",
}
BODY = {"messages": [{"role": "user", "content": "hi"}]}
CHAT = "/v1/chat/completions"
ALLOW = "Access-Control-Allow-Origin"


async def _asked(
    balancer: RunningBalancer, method: str, url: str, headers: Mapping[str, str], **sent: Any
) -> Answer:
    async with balancer.session.request(method, url, headers=headers, **sent) as answer:
        return Answer(status=answer.status, headers=answer.headers, body=await answer.read())


async def test_a_listed_page_may_ask_and_read_what_it_is_answered() -> None:
    async with (
        running_balancer(cors_origins=(PAGE,)) as balancer,
        FakeAgent(balancer.management_port),
    ):
        url = balancer.url + CHAT
        before = await _asked(balancer, "OPTIONS", url, {**ORIGIN, **ASKS})
        assert before.status == 204
        assert before.headers[ALLOW] == PAGE
        assert "POST" in before.headers["Access-Control-Allow-Methods"]
        assert before.headers["Access-Control-Allow-Headers"] == "*, Authorization"
        assert int(before.headers["Access-Control-Max-Age"]) > 0
        for stream in (False, True):
            answer = await _asked(balancer, "POST", url, ORIGIN, json={**BODY, "stream": stream})
            assert answer.status == 200
            assert answer.headers[ALLOW] == PAGE
            assert answer.headers["Access-Control-Expose-Headers"] == "*"
            assert "Origin" in answer.headers["Vary"].split(", ")
        assert list(events_of(answer.body))[-1] == "[DONE]"
        for path, status in (("/v1/models", 200), ("/nothing", 404), (CHAT, 405)):
            answer = await _asked(balancer, "GET", balancer.url + path, ORIGIN)
            assert (answer.status, answer.headers[ALLOW]) == (status, PAGE)


@pytest.mark.parametrize(
    "origin",
    [
        "https://chat.example.evil",
        "https://evil.example",
        "http://chat.example",
        "https://chat.example:8443",
        "https://CHAT.example.",
        "null",
        "*",
        "",
    ],
)
async def test_other_pages_are_refused_as_ever(origin: str) -> None:
    async with (
        running_balancer(cors_origins=(PAGE,)) as balancer,
        FakeAgent(balancer.management_port),
    ):
        told = {"Origin": origin}
        before = await _asked(balancer, "OPTIONS", balancer.url + CHAT, {**told, **ASKS})
        answer = await _asked(balancer, "POST", balancer.url + CHAT, told, json=BODY)
        assert (before.status, answer.status) == (405, 403)
        for each in (before, answer):
            assert ALLOW not in each.headers
            assert "Origin" in each.headers["Vary"].split(", ")  # or caches would mix them up


async def test_operators_routes_are_for_no_other_page_wherever_they_are() -> None:
    async with (
        running_balancer(cors_origins=(PAGE,)) as two,
        running_balancer(cors_origins=(PAGE,), single_port=True) as one,
    ):
        for balancer in (two, one):
            url = balancer.management_url + "/config/reload"
            before = await _asked(balancer, "OPTIONS", url, {**ORIGIN, **ASKS})
            answer = await _asked(balancer, "POST", url, ORIGIN)
            assert before.status in (403, 405)
            assert answer.status == 403
            assert ALLOW not in before.headers
            assert ALLOW not in answer.headers
        answer = await _asked(two, "POST", two.management_url + CHAT, ORIGIN, json=BODY)
        assert answer.status == 403  # the playground's, for the page of that port


async def test_any_page_may_where_each_needs_a_key() -> None:
    async with (
        running_balancer(cors_origins=("*",), auth=auth()) as balancer,
        FakeAgent(balancer.management_port, token="system-key"),
    ):
        url = balancer.url + CHAT
        before = await _asked(balancer, "OPTIONS", url, {**ORIGIN, **ASKS})
        assert (before.status, before.headers[ALLOW]) == (204, "*")
        without = await _asked(balancer, "POST", url, ORIGIN, json=BODY)
        assert (without.status, without.headers[ALLOW]) == (401, "*")
        answer = await _asked(balancer, "POST", url, {**ORIGIN, **bearer(USER)}, json=BODY)
        assert (answer.status, answer.headers[ALLOW]) == (200, "*")
        for each in (before, without, answer):
            assert "Access-Control-Allow-Credentials" not in each.headers


async def test_where_nobody_signs_in_a_star_lets_no_page_in() -> None:
    async with (
        running_balancer(cors_origins=("*", PAGE)) as balancer,
        FakeAgent(balancer.management_port),
    ):
        url = balancer.url + CHAT
        stranger = {"Origin": "https://evil.example"}
        assert (await _asked(balancer, "POST", url, stranger, json=BODY)).status == 403
        assert (await _asked(balancer, "POST", url, ORIGIN, json=BODY)).status == 200


async def test_what_a_listed_page_embeds_says_no_origin_and_is_refused() -> None:
    async with running_balancer(cors_origins=(PAGE,)) as balancer:
        embedded = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
        answer = await _asked(balancer, "GET", balancer.url + "/v1/models", embedded)
        assert answer.status == 403
        text = balancer.app.wiring.metrics.text().decode()
        assert 'paddler_edge_refusals_total{reason="foreign_origin"} 1.0' in text


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (["https://Chat.Example"], ("https://chat.example",)),
        (["https://a.example:443", "http://b:80"], ("https://a.example", "http://b")),
        ("http://localhost:3000,*", ("http://localhost:3000", "*")),
        (["http://[::1]:8000", "tauri://localhost"], ("http://[::1]:8000", "tauri://localhost")),
        (["http://a:443"], ("http://a:443",)),
        ("", ()),
    ],
)
def test_origins_are_read_as_browsers_write_them(written: Any, meant: tuple[str, ...]) -> None:
    assert RULES["cors_origins"].parse(written) == meant


@pytest.mark.parametrize(
    "written",
    [
        ["chat.example"],
        ["https://chat.example/"],
        ["https://chat.example/page"],
        ["https://*.example"],
        ["null"],
        ["https://user@chat.example"],
        ["https://a b"],
        ["https://"],
        [7],
        {"a": 1},
    ],
)
def test_what_is_no_origin_stops_the_start(written: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        RULES["cors_origins"].parse(written)
