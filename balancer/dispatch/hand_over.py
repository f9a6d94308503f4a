"""A running call's KV state on its way to the agent that goes on with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from balancer.fleet.agent_link import AgentLink
from balancer.fleet.moving import Move
from protocol.jsonrpc import CallId, ErrorObject
from protocol.to_agent import ExportedSequence

LONGEST_S = 30.0
"""Then the call goes on without it."""


class HandOver:
    """Begun at once. `on_end` is called once, whether the state arrived or not; never after
    `cancel`."""

    def __init__(
        self,
        call: CallId,
        source: AgentLink,
        target: AgentLink,
        *,
        cache_scope: str,
        on_end: Callable[[], None],
    ) -> None:
        self._on_end = on_end
        self._is_over = False
        self._move = Move(
            call, source, target, release=True, cache_scope=cache_scope, on_end=self._moved
        )
        self._timer = asyncio.get_running_loop().call_later(LONGEST_S, self._end)

    def cancel(self) -> None:
        """Something else became of the call."""
        self._is_over = True
        self._timer.cancel()
        self._move.cancel()

    def _moved(self, _exported: ExportedSequence | None, _problem: ErrorObject | None) -> None:
        self._end()

    def _end(self) -> None:
        if not self._is_over:
            self.cancel()
            self._on_end()
