"""LoRA adapters as models of their own, over HTTP."""

from __future__ import annotations

import ollama
import openai

from tests.support.fake_agent import FakeAgent
from tests.support.running_balancer import RunningBalancer

POET = (("poet", 1.0),)


async def test_a_model_with_an_adapter_is_asked_for_by_both_names(
    balancer: RunningBalancer,
) -> None:
    async with FakeAgent(balancer.management_port, adapters=("poet",)) as agent:
        body = (await balancer.chat(model="demo:poet")).json()
        assert body["model"] == "demo:poet"
        assert (agent.started[0].model, agent.started[0].adapters) == ("demo", POET)
        refused = await balancer.chat(model="demo:singer")
        assert (refused.status, refused.error["code"]) == (404, "model_not_found")
        refused = await balancer.post("/v1/embeddings", {"model": "demo:poet", "input": "hi"})
        assert (refused.status, refused.error["param"]) == (400, "model")


async def test_models_with_adapters_are_listed_with_the_model_that_they_are_made_of(
    balancer: RunningBalancer,
) -> None:
    async with (
        FakeAgent(balancer.management_port, name="one", adapters=("poet",)),
        FakeAgent(balancer.management_port, name="two", adapters=("clerk", "poet")),
        openai.AsyncOpenAI(base_url=f"{balancer.url}/v1", api_key="none") as client,
    ):
        rows = (await balancer.get_json(f"{balancer.url}/v1/models"))["data"]
        assert [(row["id"], row.get("parent")) for row in rows] == [
            ("demo", None),
            ("demo:clerk", "demo"),
            ("demo:poet", "demo"),
        ]
        assert not any(row["capabilities"]["embeddings"] for row in rows[1:])
        async with FakeAgent(balancer.management_port, name="merged", model="demo:poet"):
            listed = [model.id async for model in client.models.list()]
        assert listed == ["demo", "demo:clerk", "demo:poet"]


async def test_ollama_s_lists_have_models_with_adapters_too(balancer: RunningBalancer) -> None:
    async with (
        FakeAgent(balancer.management_port, adapters=("clerk", "poet")),
        ollama.AsyncClient(host=balancer.url) as client,
    ):
        listed = (await client.list()).models
        assert [one.model for one in listed] == ["demo:latest", "demo:clerk", "demo:poet"]
        assert len({one.digest for one in listed}) == 3
        parents = [one.details.parent_model for one in listed if one.details]
        assert parents == ["", "demo", "demo"]
        assert [one.model for one in (await client.ps()).models] == [one.model for one in listed]
        shown = await client.show("demo:poet")
        assert shown.details is not None
        assert shown.details.parent_model == "demo"
        assert (await client.chat("demo:poet", [{"role": "user", "content": "hi"}])).done
