"""Both APIs at one address, for clients that know one: the same routes, the same checks."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest
import structlog

from tests.support.fake_agent import FakeAgent
from tests.support.running_balancer import RunningBalancer, running_balancer

STRANGER = {"X-Forwarded-For": "10.0.0.1"}


@pytest.fixture
async def balancer() -> AsyncIterator[RunningBalancer]:
    async with (
        running_balancer(single_port=True) as balancer,
        FakeAgent(balancer.inference_port),
    ):
        yield balancer


async def test_one_address_infers_shows_its_agents_and_takes_them_in(
    balancer: RunningBalancer,
) -> None:
    assert balancer.management_url == balancer.url
    assert (await balancer.chat()).status == 200
    agents = await balancer.get_json(balancer.url + "/agents")
    assert [agent["id"] for agent in agents["data"]] == ["one"]
    async with balancer.session.post(balancer.url + "/v1/agents/one/drain") as drained:
        assert drained.status == 200


async def test_where_both_apis_have_a_path_clients_find_theirs(balancer: RunningBalancer) -> None:
    models = await balancer.get_json(balancer.url + "/v1/models")
    assert models["object"] == "list"
    assert [row["object"] for row in models["data"]] == ["model"]
    brief = await balancer.get_json(balancer.url + "/health")
    assert set(brief) == {"status", "timestamp"}
    detailed = await balancer.get_json(balancer.url + "/health?detailed=true")
    assert "providers" in detailed


async def test_its_document_has_the_routes_of_both(balancer: RunningBalancer) -> None:
    document = await balancer.get_json(balancer.url + "/openapi.json")
    assert {"/v1/chat/completions", "/agents", "/requests/{id}/route"} <= set(document["paths"])
    assert document["info"]["title"] == "Paddler: Inference and management API"


async def test_strangers_may_infer_there_and_do_nothing_else() -> None:
    async with (
        running_balancer(single_port=True, insecure=True) as balancer,
        FakeAgent(balancer.inference_port),
    ):
        body = {"messages": [{"role": "user", "content": "hi"}]}
        assert (await balancer.post("/v1/chat/completions", body, STRANGER)).status == 200
        for method, path in (
            ("GET", "/agents"),
            ("DELETE", "/agents/one"),
            ("POST", "/v1/agents/one/drain"),
            ("GET", "/requests"),
            ("DELETE", "/v2/requests/req_1"),
        ):
            async with balancer.session.request(
                method, balancer.url + path, headers=STRANGER
            ) as refused:
                assert refused.status == 403, path
                error = (await refused.json())["error"]
                assert error["code"] == "insufficient_permissions"


async def test_a_foreign_page_opens_no_agent_s_socket_there(balancer: RunningBalancer) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await balancer.session.ws_connect(
            f"{balancer.url}/agents/connect", origin="http://evil.example"
        )
    assert refused.value.status == 403


async def test_the_line_at_the_start_names_the_address_for_both() -> None:
    with structlog.testing.capture_logs() as logs:
        async with running_balancer(single_port=True) as balancer:
            address = f"127.0.0.1:{balancer.inference_port}"
    listens = next(row for row in logs if row["event"] == "balancer listens")
    assert listens["inference"] == listens["management"] == address
