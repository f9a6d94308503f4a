"""A balancer and a scripted agent on a thread of their own: calls to a browser block the test's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from tests.support.fake_agent import FakeAgent
from tests.support.running_balancer import RunningBalancer, running_balancer

PATIENCE_S = 30.0
_T = TypeVar("_T")


class LentBalancer:
    """What runs on the other thread; coroutines are handed over by `run`."""

    def __init__(self, balancer: RunningBalancer, agent: FakeAgent) -> None:
        self.balancer = balancer
        self.agent = agent
        self.ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    @property
    def inference_url(self) -> str:
        """Where clients go."""
        return self.balancer.url

    @property
    def management_url(self) -> str:
        """Where operators go."""
        return self.balancer.management_url

    def run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Its result, once it has one."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(PATIENCE_S)

    def end(self) -> None:
        """Let the thread come to its end."""
        self._loop.call_soon_threadsafe(self.ended.set)


@contextmanager
def lent_balancer(
    agent: Callable[[int], FakeAgent] = FakeAgent, **settings: Any
) -> Iterator[LentBalancer]:
    """Both, until the block ends; `agent`: makes the scripted one for the management port."""
    ready: Future[LentBalancer] = Future()
    with ThreadPoolExecutor(1) as thread:
        serving = thread.submit(asyncio.run, _serve(ready, agent, settings))
        lent = ready.result(PATIENCE_S)
        try:
            yield lent
        finally:
            lent.end()
            serving.result(PATIENCE_S)


async def _serve(
    ready: Future[LentBalancer],
    agent: Callable[[int], FakeAgent],
    settings: dict[str, Any],
) -> None:
    try:
        async with (
            running_balancer(**settings) as balancer,
            agent(balancer.management_port) as scripted,
        ):
            lent = LentBalancer(balancer, scripted)
            ready.set_result(lent)
            await lent.ended.wait()
    except BaseException as error:
        if not ready.done():
            ready.set_exception(error)
        raise
