"""An agent that only introduces itself: the listener of the real link."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from protocol.agent_status import AgentStatus
from protocol.jsonrpc import Notification, Request
from protocol.to_balancer import Register, Welcome


class Introduced:
    """`is_welcome` once the balancer took it."""

    def __init__(self, name: str, labels: Mapping[str, str] | None = None) -> None:
        self._name = name
        self._labels = dict(labels or {})
        self.is_welcome = asyncio.Event()

    def registration(self) -> Register:
        """Without a model."""
        return Register(
            name=self._name,
            epoch="e1",
            protocol_min=1,
            protocol_max=1,
            labels=self._labels,
            status=AgentStatus(seq=1, capacity_version=1, slots_total=0),
        )

    def on_welcome(self, welcome: Welcome) -> None:
        """It is in."""
        del welcome
        self.is_welcome.set()

    def on_message(self, message: Request | Notification) -> None:
        """It does nothing."""

    def on_lost(self) -> None:
        """Nor then."""
