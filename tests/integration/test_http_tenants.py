"""What is kept for one tenant is unknown to another, and what is cached has a scope."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from protocol.prefix_chain import HASH_BYTES, PrefixChain
from tests.support.fake_agent import FakeAgent
from tests.support.keys import ADMIN, SYSTEM, auth, bearer, credential, unlimited
from tests.support.running_balancer import RunningBalancer, running_balancer

ALICE, COLLEAGUE, BOB = "alice-key", "colleague-key", "bob-key"
UNKNOWN = "resp_00000000000000000000000000000000"
LONG = "a question that takes several blocks to be asked. " * 50


@pytest.fixture
async def balancer() -> AsyncIterator[RunningBalancer]:
    keys = auth(
        credential(ALICE, tenant="team-a"),
        credential(COLLEAGUE, tenant="team-a"),
        credential(BOB),
    )
    async with running_balancer(auth=keys, limits=unlimited()) as balancer:
        yield balancer


@pytest.fixture
async def agent(balancer: RunningBalancer) -> AsyncIterator[FakeAgent]:
    async with FakeAgent(balancer.management_port, token=SYSTEM) as agent:
        yield agent


async def answered(
    balancer: RunningBalancer, key: str, method: str, path: str, body: Any = None
) -> tuple[int, str]:
    """Status and text, without what is of this very request."""
    async with balancer.session.request(
        method, balancer.url + path, json=body, headers=bearer(key)
    ) as answer:
        text = await answer.text()
        return answer.status, text.replace(answer.headers["X-Paddler-Request-Id"], "[ours]")


async def test_what_is_stored_for_one_tenant_is_unknown_to_another_by_every_route(
    balancer: RunningBalancer,
    agent: FakeAgent,  # noqa: ARG001 (it answers)
) -> None:
    asked = {"model": "demo", "input": "hi"}
    kept = (await balancer.post("/v1/responses", asked, bearer(ALICE))).json()["id"]
    chat = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
    resumable = {"X-Paddler-Resumable": "1", **bearer(ALICE)}
    stream = await balancer.post("/v1/chat/completions", chat, resumable)
    stream_id = stream.headers["X-Paddler-Request-Id"]
    tries = [
        ("GET", "/v1/responses/{}", None, kept),
        ("GET", "/v1/responses/{}/input_items", None, kept),
        ("POST", "/v1/responses/{}/cancel", None, kept),
        ("POST", "/v1/responses", {**asked, "previous_response_id": "{}"}, kept),
        ("POST", "/v1/responses/input_tokens", {**asked, "previous_response_id": "{}"}, kept),
        ("GET", "/v1/streams/{}", None, stream_id),
        ("DELETE", "/v1/responses/{}", None, kept),
    ]
    for method, path, body, real in tries:
        said = []
        for tried, key in ((real, BOB), (real, ADMIN), (UNKNOWN, BOB), (real, COLLEAGUE)):
            filled = body and {**body, "previous_response_id": tried}
            status, text = await answered(balancer, key, method, path.format(tried), filled)
            said.append((status, text.replace(tried, "[tried]")))
        others, an_admins, unknown, own = said
        assert others == an_admins == unknown, (method, path)
        assert unknown[0] == 404
        assert own[0] != 404, (method, path)


async def test_a_call_carries_its_tenant_s_scope_and_no_name_of_it(
    balancer: RunningBalancer, agent: FakeAgent
) -> None:
    body = {"model": "demo", "prompt": LONG, "n": 2}
    for key in (ALICE, COLLEAGUE, BOB):
        await balancer.post("/v1/completions", body, bearer(key))
    calls = agent.started
    scopes = [call.cache_scope for call in calls]
    assert scopes == [scopes[0]] * 4 + [scopes[4]] * 2
    assert len({"", *scopes}) == 3
    assert not any(name in scope for scope in scopes for name in ("team", "bob", "key"))
    for call in calls:
        assert len(call.prefix_chain) > 2 * HASH_BYTES
        assert call.prefix_chain == PrefixChain.of(call, cache_scope=call.cache_scope).packed
    assert len({call.prefix_chain[:HASH_BYTES] for call in calls}) == 2


async def test_the_first_key_that_is_made_keeps_its_tenant_from_all_before_it() -> None:
    async with (
        running_balancer() as balancer,
        FakeAgent(balancer.management_port) as agent,
    ):
        await balancer.post("/v1/completions", {"prompt": "hi"})
        url = balancer.management_url + "/keys"
        async with balancer.session.post(url, json={"name": "a", "role": "admin"}) as answer:
            key = (await answer.json())["key"]
        assert (await answered(balancer, key, "GET", "/v1/models"))[0] == 200
        assert agent.started[0].cache_scope == ""
        token = await system_key(balancer, key)
        async with FakeAgent(balancer.management_port, name="two", token=token) as other:
            said = await balancer.post("/v1/completions", {"prompt": "hi"}, bearer(key))
        assert said.status == 200, said
        assert other.started[0].cache_scope


async def system_key(balancer: RunningBalancer, admin: str) -> str:
    """A key for agents, made by an admin."""
    url, body = balancer.management_url + "/keys", {"name": "agents", "role": "system"}
    async with balancer.session.post(url, json=body, headers=bearer(admin)) as answer:
        return str((await answer.json())["key"])


@pytest.mark.parametrize(
    ("settings", "is_isolated"),
    [
        ({}, False),
        ({"cache_isolation": "tenant"}, True),
        ({"auth": auth(), "cache_isolation": "off"}, False),
        ({"auth": auth()}, True),
    ],
)
async def test_tenants_have_scopes_where_somebody_signs_in_or_it_is_set(
    settings: dict[str, Any], is_isolated: bool
) -> None:
    async with (
        running_balancer(**settings) as balancer,
        FakeAgent(balancer.management_port, token=SYSTEM) as agent,
    ):
        await balancer.post("/v1/completions", {"prompt": "hi"}, bearer(ADMIN))
        assert bool(agent.started[0].cache_scope) == is_isolated
        url = balancer.management_url + "/config/status"
        async with balancer.session.get(url, headers=bearer(ADMIN)) as answer:
            assert (await answer.json())["cache_isolated"] == is_isolated
