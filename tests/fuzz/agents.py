"""The agents behind a balancer that is being fuzzed: they need no model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from protocol.models import ServedModel
from tests.support.fake_agent import FakeAgent

MODEL = ServedModel(name="paddler-demo", context_tokens=2048, embedding_dimensions=3, reranks=True)


@asynccontextmanager
async def two_fake_agents(port: int) -> AsyncIterator[None]:
    """One that serves, and `spare`, which the recorded requests drain and remove."""
    async with (
        FakeAgent(port, model=MODEL, slots=64),
        FakeAgent(port, model=MODEL, name="spare"),
    ):
        yield
