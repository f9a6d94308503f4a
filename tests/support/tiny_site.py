"""A balancer whose only agent runs a real engine, on a small model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from agent.engine.engine import Engine
from agent.engine.frames import EngineOptions
from agent.settings import BalancerAddress
from tests.support.running_agent import running_agent
from tests.support.running_balancer import RunningBalancer, eventually, running_balancer


@asynccontextmanager
async def tiny_site(path: Path, **options: Any) -> AsyncIterator[RunningBalancer]:
    """Once the model of this file is served, with numbers that depend on nothing beside them."""
    exact: dict[str, Any] = {"threads": 1, "cache_type": "f32", "flash_attention": "off"}
    engine = Engine(EngineOptions(model_path=str(path), **(exact | options)))
    async with running_balancer() as balancer:
        there = BalancerAddress("127.0.0.1", balancer.management_port)
        async with running_agent(there, engine, model_path=path):
            roster = balancer.app.wiring.roster
            await eventually(
                lambda: any(agent.slots_free for agent in roster.agents()), "the agent serves"
            )
            yield balancer
