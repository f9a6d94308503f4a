"""A program that keeps a balancer busy: scripted agents that report, and requests that come again.

In a process of its own, so that who measures something else has no part in it. Ends by itself.
"""

from __future__ import annotations

import argparse
import asyncio
from contextlib import AsyncExitStack, suppress
from typing import Any

import aiohttp
import uvloop

from tests.support.fake_agent import FakeAgent, Script

SLOTS = 8
REPORT_S = 6.4
"""64 agents make ten reports a second."""
TALK = Script(pieces=("word ",) * 100, gap_s=0.5)
_APART_S = 0.02


async def crowd(arguments: argparse.Namespace) -> None:
    """Until its time is over."""
    async with AsyncExitStack() as stack:
        connector = aiohttp.TCPConnector(limit=0)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        for number in range(arguments.agents):
            agent = FakeAgent(
                arguments.management_port,
                name=f"gpu-{number}",
                slots=SLOTS,
                script=TALK,
                heartbeat_s=REPORT_S,
            )
            await stack.enter_async_context(agent)
            await asyncio.sleep(REPORT_S / arguments.agents)
        with suppress(TimeoutError):
            async with asyncio.timeout(arguments.seconds), asyncio.TaskGroup() as tasks:
                for _ in range(arguments.requests):
                    tasks.create_task(_ask_on(session, arguments.inference_port))
                    await asyncio.sleep(_APART_S)


async def _ask_on(session: aiohttp.ClientSession, port: int) -> None:
    """One request after the other."""
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    body: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
    while True:
        async with session.post(url, json=body) as answer:
            async for _ in answer.content.iter_any():
                pass


def main() -> None:
    """Ports and sizes come as arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("management_port", type=int)
    parser.add_argument("inference_port", type=int)
    parser.add_argument("--agents", type=int, default=64)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=300.0, help="it ends after")
    uvloop.run(crowd(parser.parse_args()))


if __name__ == "__main__":
    main()
