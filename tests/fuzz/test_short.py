"""A short form of `make fuzz`, in the suite."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.fuzz.agents import two_fake_agents
from tests.fuzz.campaign import campaign
from tests.fuzz.mutations import Mutator
from tests.fuzz.recorded import recorded_requests
from tests.support.running_balancer import eventually, running_balancer

INPUTS = 2000


async def test_no_bytes_make_a_balancer_fail_and_it_serves_on_afterwards() -> None:
    unhandled: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    async with (
        running_balancer(slow_body_timeout_s=1.0, queue_timeout_s=2.0) as balancer,
        two_fake_agents(balancer.management_port),
    ):
        tally = await campaign(
            {"inference": balancer.inference_port, "management": balancer.management_port},
            inputs=INPUTS,
            seed=1,
        )
        assert tally.faults == []
        assert unhandled == []
        assert tally.sent == INPUTS
        assert {200, 400, 404, 405} <= set(tally.statuses)
        await eventually(lambda: balancer.is_at_rest, "nothing runs any more")
        assert (await balancer.chat()).status == 200


def test_an_input_can_be_made_again_by_its_number() -> None:
    recorded = recorded_requests()
    inputs = [Mutator(recorded, seed=3).input(number) for number in range(200)]
    assert inputs == [Mutator(recorded, seed=3).input(number) for number in range(200)]
    assert len(set(inputs)) > 150
    assert {port for port, _ in inputs} == {"inference", "management"}
