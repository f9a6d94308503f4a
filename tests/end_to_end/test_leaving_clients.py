"""Clients that leave a real cluster: llama.cpp stops working for them at once."""

from __future__ import annotations

import asyncio
import random

import psutil

from tests.support.cluster import Cluster, eventually
from tests.support.leaving_clients import leave_at_random

CLIENTS = 200
AT_ONCE = 40
BODY = {
    "messages": [{"role": "user", "content": "Roll a die 200 times. " * 8}],
    "ignore_eos": True,
}


async def test_two_hundred_clients_that_leave_free_every_slot_and_descriptor(
    cluster: Cluster,
) -> None:
    balancer = cluster.start_balancer()
    cluster.start_agent("one", "--slots", "4")
    process = psutil.Process(balancer.pid)
    dice = random.Random(3)
    room = asyncio.Semaphore(AT_ONCE)

    async def client() -> None:
        async with room:
            await leave_at_random(cluster.inference_port, BODY, dice)

    async def crowd(count: int) -> None:
        async with asyncio.timeout(120):
            await asyncio.gather(*(client() for _ in range(count)))
        await eventually(at_rest, what="every slot is free and nobody waits")

    def at_rest() -> bool:
        return (
            cluster.agents()["one"]["slots"]["used"] == 0
            and cluster.agents()["one"]["slots"]["running"] == 0
            and cluster.metric("paddler_generations_in_flight") == 0
            and cluster.metric("paddler_requests_waiting") == 0
        )

    await crowd(10)
    descriptors = process.num_fds()
    await crowd(CLIENTS)
    await eventually(
        lambda: process.num_fds() <= descriptors, what="descriptors are at their baseline"
    )
    assert cluster.metric("paddler_cancel_to_free_slot_seconds_count") > 0
