"""Who may call what: keys in their headers, roles on routes, models, networks, agents' tokens."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, get_args

import pytest
from websockets.exceptions import InvalidStatus

from balancer.http.exchange import Port
from balancer.http.routes import ROUTES
from balancer.policy.identity.principal import Principal, has_role
from tests.support.fake_agent import FakeAgent
from tests.support.keys import (
    ADMIN,
    BY_ROLE,
    PUBLIC,
    SYSTEM,
    USER,
    auth,
    bearer,
    credential,
    unlimited,
)
from tests.support.running_balancer import RunningBalancer, running_balancer

CHAT = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
async def balancer() -> AsyncIterator[RunningBalancer]:
    keys = auth(
        credential("old", expires_s=1.0),
        credential("elsewhere", networks=("10.0.0.0/8",)),
        credential("here", networks=("127.0.0.0/8", "::1/128")),
        credential("other-model", models=("another", "third")),
        credential("embedder", classes=("embeddings", "models")),
    )
    async with running_balancer(auth=keys, limits=unlimited()) as balancer:
        yield balancer


@pytest.fixture
async def agent(balancer: RunningBalancer) -> AsyncIterator[FakeAgent]:
    async with FakeAgent(balancer.management_port, token=SYSTEM) as agent:
        yield agent


_ROW = re.compile(r"^\| (\w+) \| `(\w+) (\S+)` \| (\w+) \| (\w+) \|$", re.MULTILINE)


def _documented() -> dict[tuple[str, str, str], tuple[str, str]]:
    """Role and class by port, method and path."""
    text = (Path(__file__).parents[2] / "docs/reference/access.md").read_text()
    return {(port, method, path): (role, of) for port, method, path, role, of in _ROW.findall(text)}


def test_every_route_is_in_the_table_of_roles() -> None:
    rows = {(port, route.method, route.path) for route in ROUTES for port in route.ports}
    documented = _documented()
    assert rows == set(documented)
    for route in ROUTES:
        for port in route.ports:
            assert documented[port, route.method, route.path][1] == route.limit_class


@pytest.mark.parametrize("key", [None, *BY_ROLE.values()])
@pytest.mark.parametrize("port", get_args(Port))
async def test_every_route_lets_in_the_roles_that_it_says_and_no_others(
    balancer: RunningBalancer, port: Port, key: str | None
) -> None:
    role: Any = next((role for role, one in BY_ROLE.items() if one == key), "public")
    base = balancer.url if port == "inference" else balancer.management_url
    wrong, documented = [], _documented()
    for route in ROUTES:
        if port not in route.ports:
            continue
        needed: Any = documented[port, route.method, route.path][0]
        may = has_role(Principal(tenant="t", role=role), needed)
        for path in (route.path, *route.aliases):
            # nothing is drained, removed or asked for by a body that is none
            url = base + re.sub(r"{.*?}", "nothing", path)
            headers = {} if key is None else bearer(key)
            async with balancer.session.request(
                route.method,
                url,
                headers=headers,
                data=b"no JSON" if route.method != "GET" else b"",
            ) as answer:
                status = answer.status
                code = (await answer.json())["error"] if status in (401, 403) else ""
            expected = () if may else ((401,) if key is None else (403,))
            if (status in (401, 403)) == may or (expected and status not in expected):
                wrong.append((route.method, path, status, code))
    assert not wrong


@pytest.mark.parametrize(
    "headers",
    [
        bearer(USER),
        {"Authorization": f"bearer  {USER}"},
        {"X-API-Key": USER},
        {"x-api-key": USER, "Authorization": "Basic bm9ib2R5OnNlY3JldA=="},
        bearer("here"),
    ],
)
async def test_a_key_may_stand_where_clients_put_it(
    balancer: RunningBalancer,
    agent: FakeAgent,  # noqa: ARG001 (it answers)
    headers: dict[str, str],
) -> None:
    assert (await balancer.post("/v1/chat/completions", CHAT, headers)).status == 200


async def test_the_header_for_keys_can_have_another_name() -> None:
    from_file = auth()
    async with running_balancer(
        auth=type(from_file)(api_keys=from_file.api_keys, api_key_header="X-Team-Key")
    ) as balancer:
        for header, status in (("X-API-Key", 401), ("X-Team-Key", 200)):
            async with balancer.session.get(
                balancer.url + "/v1/models", headers={header: USER}
            ) as answer:
                assert answer.status == status


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "missing_credentials"),
        ({"Authorization": "Basic bm9ib2R5OnNlY3JldA=="}, "missing_credentials"),
        (bearer("wrong"), "invalid_api_key"),
        (bearer(""), "invalid_api_key"),
        (bearer("ä" * 10), "invalid_api_key"),
        (bearer(USER + "x"), "invalid_api_key"),
        (bearer("x" * 5000), "invalid_api_key"),
        ({"X-API-Key": "wrong", "Cookie": f"key={USER}"}, "invalid_api_key"),
        (bearer("elsewhere"), "invalid_api_key"),
        (bearer("old"), "token_expired"),
    ],
)
async def test_without_a_good_key_the_answer_is_401_with_its_reason(
    balancer: RunningBalancer, headers: dict[str, str], code: str
) -> None:
    answer = await balancer.post("/v1/chat/completions", CHAT, headers)
    assert (answer.status, answer.error["code"]) == (401, code)
    assert answer.error["type"] == "authentication_error"
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert answer.error["legacy_codes"][0] == "AUTHENTICATION_FAILED"
    assert USER not in answer.body.decode()


async def test_a_key_of_other_models_is_refused_by_name(
    balancer: RunningBalancer, agent: FakeAgent
) -> None:
    for body, words in (
        (CHAT, "has to say which `model`; it may use another, third"),
        ({**CHAT, "model": "demo"}, "may not use the model 'demo'; it may use another, third"),
    ):
        answer = await balancer.post("/v1/chat/completions", body, bearer("other-model"))
        assert (answer.status, answer.error["code"]) == (403, "model_not_allowed")
        assert answer.error["message"] == f"this key {words}"
        assert answer.error["details"]["allowed"] == ["another", "third"]
    for path, more in (
        ("/v1/embeddings", {"input": "hi"}),
        ("/tokenize", {"content": "hi"}),
        ("/v1/rerank", {"query": "hi", "documents": ["a"]}),
        ("/v1/completions", {"prompt": ["a", "b"], "n": 2}),
    ):
        answer = await balancer.post(path, {"model": "demo", **more}, bearer("other-model"))
        assert (answer.status, answer.error["code"]) == (403, "model_not_allowed"), path
    assert not agent.started
    assert not agent.asked


async def test_a_key_of_some_routes_may_call_these_alone(balancer: RunningBalancer) -> None:
    refused = await balancer.post("/v1/chat/completions", CHAT, bearer("embedder"))
    assert (refused.status, refused.error["code"]) == (403, "insufficient_permissions")
    async with balancer.session.get(
        balancer.url + "/v1/models", headers=bearer("embedder")
    ) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(("token", "status"), [("", 401), ("wrong", 401), (ADMIN, 403)])
async def test_only_a_token_of_role_system_is_an_agent_s(
    balancer: RunningBalancer, token: str, status: int
) -> None:
    with pytest.raises(InvalidStatus) as caught:
        async with FakeAgent(balancer.management_port, token=token):
            raise AssertionError("it was let in")
    assert caught.value.response.status_code == status


async def test_without_credentials_health_tells_only_that_it_lives(
    balancer: RunningBalancer,
) -> None:
    for url in (balancer.url, balancer.management_url):
        brief = await balancer.get_json(f"{url}/health")
        assert set(brief) == {"status", "timestamp"}
        async with balancer.session.get(
            f"{url}/health?detailed=true", headers=bearer(USER)
        ) as answer:
            assert answer.status == 403
        async with balancer.session.get(
            f"{url}/health?detailed=true", headers=bearer(ADMIN)
        ) as answer:
            assert "services" in await answer.json()


async def test_an_address_that_sends_wrong_keys_is_heard_less_but_who_was_right_goes_on(
    balancer: RunningBalancer, agent: FakeAgent
) -> None:
    assert agent
    assert (await balancer.post("/v1/chat/completions", CHAT, bearer(USER))).status == 200
    statuses = [
        (await balancer.post("/v1/chat/completions", CHAT, bearer(f"guess-{number}"))).status
        for number in range(70)
    ]
    assert statuses == [401] * 60 + [429] * 10
    # a right guess is not told from a wrong one any more
    late = await balancer.post("/v1/chat/completions", CHAT, bearer("here"))
    assert (late.status, late.error["code"]) == (429, "rate_limit_exceeded")
    assert 0 < int(late.headers["Retry-After"]) <= 60
    assert (await balancer.post("/v1/chat/completions", CHAT, bearer(USER))).status == 200


async def test_calls_over_a_live_socket_need_the_same_role(balancer: RunningBalancer) -> None:
    for key, status in ((PUBLIC, 403), (USER, 403), (ADMIN, 101)):
        async with balancer.session.get(
            balancer.management_url + "/ws/control",
            headers={
                **bearer(key),
                "Connection": "Upgrade",
                "Upgrade": "websocket",
                "Sec-WebSocket-Version": "13",
                "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            },
        ) as answer:
            assert answer.status == status
            answer.close()


async def _signed_in(balancer: RunningBalancer) -> tuple[dict[str, str], str]:
    """The cookie's header, and the session's token."""
    async with balancer.session.post(
        balancer.management_url + "/session", json={"key": ADMIN}
    ) as answer:
        assert answer.status == 201
        cookie = answer.cookies["paddler_session"]
        assert cookie["httponly"]
        assert cookie["samesite"] == "Strict"
        balancer.session.cookie_jar.clear()
        return {"Cookie": f"paddler_session={cookie.value}"}, (await answer.json())["csrf_token"]


async def test_a_browser_signs_in_with_a_key_and_out_again(balancer: RunningBalancer) -> None:
    url = balancer.management_url
    assert await balancer.get_json(f"{url}/session") == {
        "object": "session",
        "is_needed": True,
        "is_open": False,
    }
    cookie, token = await _signed_in(balancer)
    async with balancer.session.get(f"{url}/agents", headers=cookie) as answer:
        assert answer.status == 200
    async with balancer.session.get(f"{url}/session", headers=cookie) as answer:
        assert (await answer.json())["csrf_token"] == token
    for headers, status in ((cookie, 403), ({**cookie, "X-CSRF-Token": token}, 200)):
        async with balancer.session.put(
            f"{url}/log-level", json={"level": "info"}, headers=headers
        ) as answer:
            assert answer.status == status
    async with balancer.session.delete(
        f"{url}/session", headers={**cookie, "X-CSRF-Token": token}
    ) as answer:
        assert answer.status == 200
    async with balancer.session.get(f"{url}/agents", headers=cookie) as answer:
        assert answer.status == 401


async def test_the_cookie_opens_nothing_on_the_inference_port(balancer: RunningBalancer) -> None:
    cookie, token = await _signed_in(balancer)
    answer = await balancer.post("/v1/chat/completions", CHAT, {**cookie, "X-CSRF-Token": token})
    assert answer.status == 401


@pytest.mark.parametrize(("key", "status"), [(USER, 403), ("wrong", 401), ("old", 401)])
async def test_only_a_key_of_an_operator_signs_in(
    balancer: RunningBalancer, key: str, status: int
) -> None:
    async with balancer.session.post(
        balancer.management_url + "/session", json={"key": key}
    ) as answer:
        assert answer.status == status
        assert not answer.cookies
