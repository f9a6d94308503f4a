"""A short form of `make fuzz`, in the suite."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.fuzz.agents import two_fake_agents
from tests.fuzz.campaign import campaign, fault_of
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


@pytest.mark.parametrize(
    ("came", "why"),
    [
        (b"", ""),
        (b"HTTP/1.1 200 OK\r\n\r\n{}", ""),
        (b'HTTP/1.1 503 Service Unavailable\r\n\r\n{"error":{"code":"no_agents"}}', ""),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "status 503 without an error body"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n{}HTTP/1.1 500 X\r\n\r\n", "status 500"),
        (b'HTTP/1.1 200 OK\r\n\r\ndata: {"code":"internal_error"}', "an internal error"),
        (b"HTTP/2.0 200 OK\r\n\r\n", "no HTTP"),
    ],
)
def test_a_bad_answer_is_a_fault(came: bytes, why: str) -> None:
    assert fault_of(came) == why
