"""The real agent in the test's own process, on whatever engine the test gives it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from agent.app import App
from agent.engine.engine import EngineDoor
from agent.settings import BalancerAddress, Settings

_LOOP = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
ENDLESS_FOR_HI = "{% if messages[0].content|lower == 'hi' %}" + _LOOP + "{% endif %}"
"""A chat template that is prepared at once, and rendered until its time is up."""


@asynccontextmanager
async def running_agent(
    address: BalancerAddress, engine: EngineDoor, *, name: str = "agent-1", **settings: Any
) -> AsyncIterator[App]:
    """An agent from its start to its end; it is stopped at once when the test is done."""
    given = {"model_path": Path("fake.gguf"), **settings}
    app = App(Settings(balancer=address, **given), engine, name=name)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(app.run())
        try:
            yield app
        finally:
            app.stop()
            app.stop()
            async with asyncio.timeout(20):
                await asyncio.wait([running])
