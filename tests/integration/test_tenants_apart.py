"""Two tenants on real engines: nothing that one says can be seen by the other, unless isolation is
off; then the same test finds it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import pytest
from msgspec import structs

from agent.engine.engine import Engine
from agent.engine.frames import EngineOptions
from balancer.access import CacheIsolation
from balancer.dispatch.relay import Relay
from balancer.terminal.doctor.canary import Outcome, canary_test
from balancer.terminal.doctor.client import Client
from tests.support.cluster import DEMO_MODEL, eventually
from tests.support.keys import SYSTEM, auth, credential, unlimited
from tests.support.two_agents import Fleet, two_agents

ALICE, BOB = "alice-key", "bob-key"
STEP_TOKENS = 32
TEXT = "A secret that nobody else has ever written down. " * 12
OUTCOMES: dict[CacheIsolation, Outcome] = {"auto": "apart", "off": "shared"}


def engine() -> Engine:
    return Engine(
        EngineOptions(
            model_path=str(DEMO_MODEL),
            slots=2,
            threads=1,
            speculation="off",
            batch_tokens=STEP_TOKENS,
            micro_batch_tokens=STEP_TOKENS,
            host_cache_bytes=1 << 28,
        )
    )


class Tenants:
    """Alice and Bob, clients of a balancer with two agents."""

    def __init__(self, fleet: Fleet, session: aiohttp.ClientSession) -> None:
        self.fleet = fleet
        base = f"http://{fleet.balancer.address_of('inference')}"
        self.alice, self.bob = Client(session, base, ALICE), Client(session, base, BOB)

    def isolate(self, mode: CacheIsolation) -> None:
        """As a reload would."""
        live = self.fleet.balancer.wiring.configuration.live
        live.replace(structs.replace(live.current, cache_isolation=mode))

    @contextmanager
    def only(self, name: str) -> Iterator[None]:
        """The other agent gets nothing new."""
        evacuation = self.fleet.balancer.wiring.dispatcher.evacuation
        [other] = {"one", "two"} - {name}
        evacuation.drain(other, deadline_s=None)
        yield
        evacuation.undrain(other)


@pytest.fixture
async def tenants() -> AsyncIterator[Tenants]:
    settings = {
        "auth": auth(credential(ALICE), credential(BOB)),
        "limits": unlimited(),
    }
    async with (
        two_agents(engine(), engine(), balancer_settings=settings, token=SYSTEM) as fleet,
        aiohttp.ClientSession() as session,
    ):
        yield Tenants(fleet, session)


async def completed(client: Client, begins: str, **more: Any) -> Any:
    body = {"prompt": begins + TEXT, "temperature": 0, "ignore_eos": True, "max_tokens": 8, **more}
    said = await client.post("/v1/completions", body)
    assert said.is_well, said
    return said.body


def cached(body: Any) -> int:
    tokens: int = body["usage"]["prompt_tokens_details"]["cached_tokens"]
    return tokens


@pytest.fixture
def prefilled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How far the prompt was at each prefill step that was told of, of all requests."""
    steps: list[int] = []
    heard = Relay.on_prefill

    def on_prefill(self: Relay, done: int) -> None:
        steps.append(done)
        heard(self, done)

    monkeypatch.setattr(Relay, "on_prefill", on_prefill)
    return steps


async def test_the_canary_of_one_tenant_is_found_by_the_other_only_without_isolation(
    tenants: Tenants, prefilled: list[int]
) -> None:
    for mode, outcome in OUTCOMES.items():
        tenants.isolate(mode)
        with tenants.only("one"):
            canary = await canary_test(tenants.alice, tenants.bob)
            assert canary.outcome == outcome, canary
            assert canary.own_again is not None
            assert canary.own_again.cached_tokens > 100  # there was something to find
            counts = []
            for client in (tenants.alice, tenants.bob):
                prefilled.clear()
                body = await completed(client, mode)
                counts.append((cached(body), len(prefilled)))
        (_, first_steps), (found, other_steps) = counts
        assert first_steps > 3
        assert (found > 100) == (other_steps < first_steps) == (outcome == "shared")


async def test_a_state_that_moves_to_another_agent_stays_its_tenant_s(tenants: Tenants) -> None:
    dispatcher = tenants.fleet.balancer.wiring.dispatcher
    for mode, outcome in OUTCOMES.items():
        tenants.isolate(mode)
        with tenants.only("one"):
            running = asyncio.ensure_future(completed(tenants.alice, mode, max_tokens=150))
            await eventually(
                lambda: dispatcher.generating()["one"] > 8,
                what="Alice's text grows on the first agent",
            )
        dispatcher.evacuation.drain("one", deadline_s=0)
        bodies = [await running, await completed(tenants.alice, mode)]
        bodies.append(await completed(tenants.bob, mode))
        assert {body["_proxy_info"]["provider"] for body in bodies} == {"two"}
        assert cached(bodies[0]) > 100  # it came with its state
        assert cached(bodies[1]) > 100
        assert (cached(bodies[2]) > 100) == (outcome == "shared")
        dispatcher.evacuation.undrain("one")
