"""An event loop whose clock jumps to the next timer instead of waiting for it.

Tests of timeouts run at once and with exact times: nothing in them depends on the machine.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec

P = ParamSpec("P")


class _JumpingSelector(selectors.SelectSelector):
    """Never waits; what it was asked to wait is added to the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1000.0
        self.settling: list[asyncio.Future[None]] = []

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self.settling and timeout != 0:
            for waiter in self.settling:
                waiter.set_result(None)
            self.settling.clear()
            return super().select(0)
        if timeout is None:
            raise AssertionError("every task waits and no timer is set: the test would hang")
        self.now_s += max(0.0, timeout)
        return super().select(0)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop for code without sockets and threads."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now_s

    async def settled(self) -> None:
        """Wait until every other task waits."""
        waiter = self.create_future()
        self._jumping.settling.append(waiter)
        await waiter

    def stand_still(self, seconds: float) -> None:
        """The clock goes on, as if the process had been stopped, and no timer is served."""
        self._jumping.now_s += seconds


def in_virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an async test to its end on a loop of its own."""

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run


async def settle() -> None:
    """Let every task run until all of them wait; no time passes, where time is virtual."""
    loop = asyncio.get_running_loop()
    if isinstance(loop, VirtualTimeLoop):
        await loop.settled()
        return
    for _ in range(20):
        await asyncio.sleep(0)
