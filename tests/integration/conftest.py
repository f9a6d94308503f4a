"""Integration tests run on uvloop, as the programs do: its transports behave in their own way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest
import uvloop

from tests.support.authority import Authority
from tests.support.fake_agent import FakeAgent
from tests.support.running_balancer import RunningBalancer, running_balancer


def pytest_asyncio_loop_factories(
    config: pytest.Config,  # noqa: ARG001 (pytest-asyncio's signature)
    item: pytest.Item,  # noqa: ARG001 (likewise)
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The one loop of the tests in this folder."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def balancer() -> AsyncIterator[RunningBalancer]:
    """One with the settings as they are; a file that needs others has a fixture of its own."""
    async with running_balancer() as balancer:
        yield balancer


@pytest.fixture
async def agent(balancer: RunningBalancer) -> AsyncIterator[FakeAgent]:
    """A scripted agent of that balancer, called `one`."""
    async with FakeAgent(balancer.management_port) as agent:
        yield agent


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A CA that nobody here trusts."""
    return Authority(tmp_path_factory.mktemp("stranger"))


@pytest.fixture(scope="session")
def encrypted(authority: Authority) -> dict[str, Any]:
    """The settings of a balancer that speaks TLS, and of its client."""
    certificate, key = authority.issue("balancer")
    return {
        "tls_certificate": str(certificate),
        "tls_key": str(key),
        "trust": authority.trust(),
    }
