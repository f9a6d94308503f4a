"""Choices of the shipped model, over HTTP, with real engines: what they are, and what they cost."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from agent.engine.engine import Engine
from agent.engine.frames import EngineOptions
from balancer.policy.choices import seed_of_choice
from tests.support.cluster import DEMO_MODEL, eventually
from tests.support.two_agents import Fleet, two_agents

SLOTS = 2
PROMPT = "Once upon a time there was a list of words. " * 12
BODY = {
    "prompt": PROMPT, "max_tokens": 40, "ignore_eos": True, "temperature": 0.9, "seed": 11,
}  # fmt: skip


def engine() -> Engine:
    """One whose numbers do not depend on what else is computed in the same step."""
    return Engine(
        EngineOptions(
            model_path=str(DEMO_MODEL),
            slots=SLOTS,
            threads=1,
            cache_type="f32",
            flash_attention="off",
            host_cache_bytes=1 << 28,
        )
    )


class Site:
    """Two agents behind a balancer, and a client of it."""

    def __init__(self, fleet: Fleet, engines: list[Engine], client: aiohttp.ClientSession) -> None:
        self.fleet = fleet
        self.engines = dict(zip(("one", "two"), engines, strict=True))
        self._client = client
        self._url = f"http://{fleet.balancer.address_of('inference')}/v1/completions"

    async def complete(self, **more: Any) -> Any:
        """A text completion as JSON."""
        async with self._client.post(self._url, json={**BODY, **more}) as answer:
            body = await answer.json()
            assert answer.status == 200, body
            return body

    async def stream(self, **more: Any) -> dict[int, str]:
        """The text of each choice of a stream; it must have ended well."""
        texts: dict[int, str] = {}
        body = {**BODY, **more, "stream": True}
        async with self._client.post(self._url, json=body) as answer:
            lines = (await answer.text()).splitlines()
        events = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
        assert events[-1] == "[DONE]", events[-1]
        for event in map(json.loads, events[:-1]):
            for choice in event["choices"]:
                texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
        return texts


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    engines = [engine(), engine()]
    async with two_agents(*engines) as fleet, aiohttp.ClientSession() as client:
        yield Site(fleet, engines, client)


def texts_of(body: Any) -> list[str]:
    return [choice["text"] for choice in body["choices"]]


async def alone(site: Site, count: int, **more: Any) -> list[str]:
    """What as many single requests with the documented seeds get."""
    return [
        texts_of(await site.complete(**{**more, "seed": seed_of_choice(11, choice)}))[0]
        for choice in range(count)
    ]


async def test_choices_are_what_single_requests_with_their_seeds_get(site: Site) -> None:
    count = 2 * SLOTS + 1  # more than there are slots
    single = await alone(site, count)
    whole = await site.complete(n=count)
    again = await site.complete(n=count)
    assert texts_of(whole) == texts_of(again) == single
    assert len(set(single)) > 1
    assert await site.stream(n=count) == dict(enumerate(single))
    usage = whole["usage"]
    first = await site.complete()
    assert usage["prompt_tokens"] == first["usage"]["prompt_tokens"]
    assert usage["completion_tokens"] == 40 * count


async def test_the_prompt_of_choices_is_computed_once_by_each_agent_that_has_some(
    site: Site,
) -> None:
    count = 2 * SLOTS
    prompt = "Nobody ever asked this before. " * 20
    whole = await site.complete(n=count, prompt=prompt, max_tokens=8)
    assert whole["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    prompt_tokens = whole["usage"]["prompt_tokens"]
    wiring = site.fleet.balancer.wiring
    routes = wiring.dispatcher.routes(whole["_proxy_info"]["request_id"])
    agents = {decision.chosen for route in routes for decision in route.decisions}
    cached = wiring.metrics.registry.get_sample_value("paddler_tokens_total", {"kind": "cached"})
    # all but the last token, whose logits everyone needs
    assert cached == (count - len(agents)) * (prompt_tokens - 1)


async def test_an_engine_that_is_killed_under_a_stream_of_choices_is_not_noticed(
    site: Site,
) -> None:
    given = {"max_tokens": 150}
    single = await alone(site, SLOTS, **given)
    task = asyncio.ensure_future(site.stream(n=SLOTS, **given))
    dispatcher = site.fleet.balancer.wiring.dispatcher

    def busy() -> str | None:
        """An agent that has given tokens to a choice."""
        rows = dispatcher.requests()
        return next((row.agent for row in rows if row.completion_tokens > 5), None)

    name = await eventually(busy, what="a choice has tokens")
    pid = site.engines[name].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert await task == dict(enumerate(single))
    metrics = site.fleet.balancer.wiring.metrics.registry
    moves = metrics.get_sample_value("paddler_generation_moves_total", {"reason": "engine_died"})
    assert moves
