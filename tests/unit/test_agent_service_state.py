"""What an agent tells its service manager, and when it tells it nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agent.engine.standing import LOAD_PATIENCE_S, Standing
from agent.service_state import EXTENSION_S, LEAST_DOUBT_S, ServiceState, can_be_trusted
from protocol.service_manager import ServiceManager
from tests.support.fake_engine import FACTS, FakeEngine
from tests.support.heard_by_manager import HeardByManager


class Told:
    """An agent that tells; the test says how it is."""

    def __init__(self, watchdog_s: float | None = 60.0) -> None:
        self.manager = HeardByManager(watchdog_s=watchdog_s)
        self.engine = FakeEngine()
        self.is_registered = False
        self.trouble = ""
        self.state = ServiceState(
            self.manager,
            self.engine,
            is_registered=lambda: self.is_registered,
            trouble=lambda: self.trouble,
            work=lambda: "",
        )

    async def next(self) -> dict[str, Any]:
        """What it says with its next beat."""
        telling = asyncio.get_running_loop().create_task(self.state.run())
        await asyncio.sleep(0)
        telling.cancel()
        return self.manager.heard[-1]


@pytest.fixture
async def told() -> Told:
    return Told()


@pytest.mark.parametrize(
    ("silent_s", "patience_s", "watchdog_s", "trusted"),
    [
        (0.0, 0.0, 60.0, True),
        (LEAST_DOUBT_S, 30.0, 60.0, True),
        (LEAST_DOUBT_S + 0.1, 30.0, 60.0, False),
        (29.0, 30.0, 2.0, True),
        (29.1, 30.0, 2.0, False),
        (210.0, 240.0, 60.0, True),
        (210.1, 240.0, 60.0, False),
        (29.0, 30.0, None, True),
        (30.1, 30.0, None, False),
    ],
)
def test_an_engine_is_doubted_before_it_is_ended_and_not_over_a_long_step(
    silent_s: float, patience_s: float, watchdog_s: float | None, trusted: bool
) -> None:
    standing = Standing(phase="serving", silent_s=silent_s, patience_s=patience_s)
    assert can_be_trusted(standing, watchdog_s) is trusted


@pytest.mark.parametrize("patience_s", [30.0, 75.0, 1000.0])
@pytest.mark.parametrize("watchdog_s", [2.0, 60.0, 600.0])
def test_the_manager_acts_after_the_engine_s_own_watchdog(
    patience_s: float, watchdog_s: float
) -> None:
    last_word_s = next(
        silent_s
        for silent_s in reversed(range(int(patience_s) + 1))
        if can_be_trusted(
            Standing(phase="serving", silent_s=silent_s, patience_s=patience_s), watchdog_s
        )
    )
    assert last_word_s + 1 + watchdog_s > patience_s


async def test_ready_is_said_once_when_the_model_is_there_and_the_balancer_too(told: Told) -> None:
    assert "ready" not in await told.next()
    told.engine.facts = FACTS
    assert "ready" not in await told.next()
    told.is_registered = True
    assert (await told.next())["ready"]
    assert "ready" not in await told.next()


async def test_a_lost_link_makes_nobody_restart_the_agent(told: Told) -> None:
    told.engine.facts, told.is_registered = FACTS, True
    await told.next()
    told.is_registered = False
    said = await told.next()
    assert said["well"]
    assert said["status"] == "no link to the balancer, dialling"
    told.trouble = "connection refused"
    said = await told.next()
    assert said["status"] == "no link to the balancer, dialling (connection refused)"


async def test_more_time_is_asked_for_until_it_is_ready_and_again_when_it_drains(
    told: Told,
) -> None:
    assert (await told.next())["extend_s"] == EXTENSION_S
    told.engine.facts, told.is_registered = FACTS, True
    assert (await told.next())["ready"]
    assert "extend_s" not in await told.next()
    told.state.stopping()
    assert told.manager.heard[-1]["stopping"]
    assert (await told.next())["extend_s"] == EXTENSION_S


async def test_a_load_that_says_nothing_any_more_gets_no_more_time(told: Told) -> None:
    told.engine.stands = Standing(phase="loading", loaded=0.25, patience_s=LOAD_PATIENCE_S)
    said = await told.next()
    assert said["status"].startswith("loading the model, 25%")
    assert said["extend_s"] == EXTENSION_S
    told.engine.stands = Standing(
        phase="loading", silent_s=LOAD_PATIENCE_S, patience_s=LOAD_PATIENCE_S
    )
    said = await told.next()
    assert "extend_s" not in said
    assert "well" not in said


async def test_an_engine_that_does_not_what_is_due_is_not_well(told: Told) -> None:
    told.engine.facts, told.is_registered = FACTS, True
    told.engine.stands = Standing(phase="serving", silent_s=20.0, patience_s=30.0)
    said = await told.next()
    assert "well" not in said
    assert said["status"] == "the engine has not finished a step for some time"


async def test_what_did_not_change_is_not_told_again(told: Told) -> None:
    assert "status" in await told.next()
    assert "status" not in await told.next()


async def test_without_a_service_manager_nothing_is_told() -> None:
    state = ServiceState(ServiceManager(), FakeEngine(), is_registered=bool, trouble=str, work=str)
    async with asyncio.timeout(1):
        await state.run()
