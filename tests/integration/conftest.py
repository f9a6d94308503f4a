"""Integration tests run on uvloop, as the programs do: its transports behave in their own way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop


def pytest_asyncio_loop_factories(
    config: pytest.Config,  # noqa: ARG001 (pytest-asyncio's signature)
    item: pytest.Item,  # noqa: ARG001 (likewise)
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The one loop of the tests in this folder."""
    return {"uvloop": uvloop.new_event_loop}
