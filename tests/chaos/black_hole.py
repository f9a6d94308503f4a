"""One of four agents swallows what it is given: it always looks idle, so everything would go there.

The balancer is a real process, the agents speak the link over real sockets, and the three good ones
take a tenth of a second for an answer.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import aiohttp
from msgspec import structs
from websockets.exceptions import WebSocketException

from protocol.agent_status import AgentStatus
from protocol.jsonrpc import Request
from protocol.refusals import RefusalCode
from protocol.to_agent import GenerateTokens
from tests.support.cluster import Cluster
from tests.support.fake_agent import FakeAgent, Script

Form = Literal["refuses", "says it is full", "fails", "dies"]
FORMS: tuple[Form, ...] = ("refuses", "says it is full", "fails", "dies")
"""It refuses at once; it has no room although it says it has; it accepts and fails at once; its
connection ends with each request, and it is back at once."""

GOOD_AGENTS, SLOTS, CLIENTS = 3, 8, 16
GOOD = Script(pieces=("What ", "was ", "asked"), gap_s=0.03)
BACK_AFTER_S = 0.05
HOLE = "hole"
LEARNT_AFTER_S = 2.0


@dataclass
class Swallowed:
    """What became of the requests, and when which agent was given one."""

    form: Form
    answered: int = 0
    failures: list[str] = field(default_factory=list)
    starts: list[tuple[float, str]] = field(default_factory=list)
    """Seconds since the first request, and the agent."""
    seconds: float = 0.0

    @property
    def swallowed(self) -> int:
        """Calls that the black hole was given."""
        return sum(name == HOLE for _, name in self.starts)

    def share(self, since_s: float, until_s: float = float("inf")) -> float:
        """The black hole's share of the calls that were started in that time."""
        names = [name for at_s, name in self.starts if since_s <= at_s < until_s]
        return names.count(HOLE) / len(names) if names else 0.0


class _Noted(FakeAgent):
    """Tells what it is given."""

    def __init__(self, port: int, *, on_start: Callable[[str], None], **more: Any) -> None:
        super().__init__(port, **more)
        self._on_start = on_start

    async def _take(self, message: Any) -> None:
        if isinstance(message, Request) and isinstance(message.params, GenerateTokens):
            self._on_start(self.name)
        await super()._take(message)


class _Boasting(_Noted):
    """Says in every heartbeat that it has more room than before."""

    def status(self) -> AgentStatus:
        status = super().status()
        return structs.replace(status, capacity_version=status.seq)


class _Mortal(_Noted):
    """Its connection ends with the first call."""

    def __init__(self, port: int, **more: Any) -> None:
        super().__init__(port, **more)
        self.has_died = asyncio.Event()

    async def _take(self, message: Any) -> None:
        await super()._take(message)
        if isinstance(message, Request):
            self.kill()
            self.has_died.set()


async def black_hole(
    folder: Path,
    form: Form,
    *,
    requests: int = 2000,
    policy: str = "prefix_aware",
) -> Swallowed:
    """Ask so many short questions of three good agents and a black hole."""
    cluster, outcome = Cluster(folder), Swallowed(form)
    began_s = 0.0

    def on_start(name: str) -> None:
        outcome.starts.append((time.monotonic() - began_s, name))

    try:
        await asyncio.to_thread(
            cluster.start_balancer, "--heartbeat-interval", "0.5", "--policy", policy
        )
        async with AsyncExitStack() as stack:
            port = cluster.management_port
            for number in range(GOOD_AGENTS):
                good = _Noted(
                    port, name=f"good-{number}", slots=SLOTS, script=GOOD, on_start=on_start
                )
                await stack.enter_async_context(good)
            await stack.enter_async_context(_hole(port, form, on_start))
            began_s = time.monotonic()
            async with aiohttp.ClientSession(cluster.inference_url) as session:
                await _ask_all(session, requests, outcome)
            outcome.seconds = time.monotonic() - began_s
    finally:
        await asyncio.to_thread(cluster.close)
    return outcome


@asynccontextmanager
async def _hole(port: int, form: Form, on_start: Callable[[str], None]) -> AsyncIterator[None]:
    facts: dict[str, Any] = {"name": HOLE, "slots": SLOTS, "on_start": on_start}
    if form == "dies":
        living = asyncio.create_task(_keep_coming_back(port, facts))
        try:
            yield
        finally:
            living.cancel()
            with suppress(asyncio.CancelledError):
                await living
        return
    scripts = {
        "refuses": Script(refuse_with=RefusalCode.ENGINE_FAILED),
        "says it is full": Script(refuse_with=RefusalCode.NO_FREE_SLOT),
        "fails": Script(pieces=(), fail_with=RefusalCode.ENGINE_FAILED),
    }
    kind = _Boasting if form == "says it is full" else _Noted
    async with kind(port, script=scripts[form], **facts):
        yield


async def _keep_coming_back(port: int, facts: dict[str, Any]) -> None:
    """As a supervisor would restart it, only faster."""
    life = 0
    while True:
        life += 1
        agent = _Mortal(port, epoch=f"life {life}", **facts)
        try:
            # a balancer that has not seen the end of the last life yet refuses the name
            with suppress(OSError, WebSocketException):
                await agent.open()
                await agent.register()
                if agent.refusal is None:
                    await agent.has_died.wait()
            await asyncio.sleep(BACK_AFTER_S)
        finally:
            with suppress(OSError, WebSocketException):
                await agent.close()


async def _ask_all(session: aiohttp.ClientSession, requests: int, outcome: Swallowed) -> None:
    numbers = iter(range(requests))

    async def client() -> None:
        for number in numbers:
            await _ask(session, number, outcome)

    async with asyncio.TaskGroup() as group:
        for _ in range(CLIENTS):
            group.create_task(client())


async def _ask(session: aiohttp.ClientSession, number: int, outcome: Swallowed) -> None:
    body = {"model": "demo", "messages": [{"role": "user", "content": f"Question {number}"}]}
    try:
        async with session.post("/v1/chat/completions", json=body) as answer:
            text = await answer.text()
            if answer.status == 200 and "What was asked" in text:
                outcome.answered += 1
            else:
                outcome.failures.append(f"HTTP {answer.status}: {text[:300]}")
    except (aiohttp.ClientError, TimeoutError) as error:
        outcome.failures.append(f"{type(error).__name__}: {error}")


def black_hole_words(outcome: Swallowed) -> str:
    """The figures, and the first few failures."""
    asked = outcome.answered + len(outcome.failures)
    steps = [0.0, 0.25, 0.5, 1.0, 2.0]
    shares = ", ".join(
        f"{begin:g}-{end:g} s {outcome.share(begin, end):.1%}"
        for begin, end in itertools.pairwise(steps)
    )
    lines = [
        f"a black hole that {outcome.form}: {asked} requests in {outcome.seconds:.1f} s, "
        f"{len(outcome.failures)} failed ({len(outcome.failures) / max(asked, 1):.2%}); it was "
        f"given {outcome.swallowed} of {len(outcome.starts)} calls: {shares}, "
        f"after that {outcome.share(LEARNT_AFTER_S):.2%}"
    ]
    return "\n  ".join(lines + outcome.failures[:5])
