"""Agents' tokens: for which names and labels they are; no name is taken from a live agent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from agent.balancer_link import BalancerLink
from agent.errors import RegistrationRefused
from agent.settings import BalancerAddress
from tests.support.fake_agent import FakeAgent
from tests.support.introduced import Introduced
from tests.support.keys import SYSTEM, auth, credential, unlimited
from tests.support.running_balancer import RunningBalancer, eventually, running_balancer

NORTH = "token-of-the-north"


@pytest.fixture
async def balancer() -> AsyncIterator[RunningBalancer]:
    keys = auth(
        credential(NORTH, role="system", agents=("north-*",), labels=(("room", "north"),)),
        credential("second", role="system"),
    )
    async with running_balancer(auth=keys, limits=unlimited()) as balancer:
        yield balancer


def _link(balancer: RunningBalancer, listener: Introduced) -> BalancerLink:
    address = BalancerAddress("127.0.0.1", balancer.management_port)
    return BalancerLink(address, listener, token=NORTH)


async def test_a_token_lets_those_agents_in_that_it_is_for(balancer: RunningBalancer) -> None:
    agent = Introduced("north-1", {"room": "north", "gpu": "h100"})
    running = asyncio.create_task(_link(balancer, agent).run())
    await asyncio.wait_for(agent.is_welcome.wait(), 20)
    running.cancel()


@pytest.mark.parametrize(
    ("name", "labels", "said"),
    [
        ("south-1", {"room": "north"}, "is for agents called north-\\*"),
        ("north-1", {}, "--label room=north"),
        ("north-1", {"room": "south"}, "--label room=north"),
    ],
)
async def test_another_agent_is_told_why_and_ends(
    balancer: RunningBalancer, name: str, labels: dict[str, str], said: str
) -> None:
    with pytest.raises(RegistrationRefused, match=said):
        await _link(balancer, Introduced(name, labels)).run()
    assert not balancer.app.wiring.roster.has_agents


@pytest.mark.parametrize("epoch", ["e1", "e2"])
async def test_nobody_takes_the_name_of_an_agent_that_came_with_another_token(
    balancer: RunningBalancer, epoch: str
) -> None:
    async with FakeAgent(balancer.management_port, token=SYSTEM, heartbeat_s=None) as agent:
        thief = FakeAgent(balancer.management_port, token="second", epoch=epoch)
        await thief.open()
        await thief.register()
        assert thief.refusal is not None
        assert "joined with other credentials" in thief.refusal.message
        assert thief.refusal.data == {"reason": "name_taken"}
        await thief.close()
        assert not agent.is_closed.is_set()
        assert balancer.app.wiring.roster.agent("one") is not None


async def test_an_agent_that_connects_again_with_its_own_token_takes_its_old_link_s_place(
    balancer: RunningBalancer,
) -> None:
    async with (
        FakeAgent(balancer.management_port, token=SYSTEM, heartbeat_s=None) as before,
        FakeAgent(balancer.management_port, token=SYSTEM, heartbeat_s=None) as after,
    ):
        await eventually(before.is_closed.is_set, "its old link is closed")
        assert after.refusal is None
