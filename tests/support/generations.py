"""A dispatcher with a recording sink: start generations, look at what became of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal

from balancer.dispatch.dispatcher import Dispatcher, Flow, Outcome
from balancer.errors import BalancerError
from balancer.fleet.roster import Roster
from balancer.observability.metrics import Metrics
from balancer.policy.identity.principal import Principal
from balancer.settings import LiveSettings, Settings
from protocol.generation import GenerationRequest, StepDelta, TokenLogprob
from protocol.to_agent import Committed
from tests.support.memory_agent import MemoryAgent
from tests.support.virtual_time import settle

ANYONE = Principal(tenant="127.0.0.1", role="admin")


class RecordingSink:
    """Keeps the text; it can be told what to raise on."""

    def __init__(self, *, breaks_on: Literal["", "committed", "tokens"] = "") -> None:
        self.flow: Flow | None = None
        self.text = ""
        self.agents: list[str] = []
        self.logprobs: list[TokenLogprob] = []
        self._breaks_on = breaks_on

    def attach(self, flow: Flow) -> None:
        assert self.flow is None, "attached twice"
        self.flow = flow

    def on_committed(self, agent: str, committed: Committed) -> None:
        assert committed.prompt_tokens
        if self._breaks_on == "committed":
            raise RuntimeError("a defect of the sink")
        self.agents.append(agent)

    def on_tokens(
        self,
        token_ids: tuple[int, ...],
        delta: StepDelta,
        logprobs: tuple[TokenLogprob, ...],
    ) -> None:
        if self._breaks_on == "tokens":
            raise RuntimeError("a defect of the sink")
        assert token_ids
        self.text += delta if isinstance(delta, str) else "".join(map(str, delta))
        self.logprobs += logprobs


class Generation:
    """One request and its client's view of it."""

    def __init__(self, task: asyncio.Task[Outcome], sink: RecordingSink) -> None:
        self.task = task
        self.sink = sink

    @property
    def flow(self) -> Flow:
        assert self.sink.flow
        return self.sink.flow

    @property
    def outcome(self) -> Outcome:
        """How it ended well."""
        return self.task.result()

    @property
    def error(self) -> BalancerError:
        """How it ended badly."""
        error = self.task.exception()
        assert isinstance(error, BalancerError), error
        return error

    async def leave(self) -> None:
        """The client goes away."""
        self.task.cancel()
        await settle()


class Balancer:
    """Roster and dispatcher as app.py puts them together, on the running loop's clock."""

    def __init__(
        self,
        *,
        settings: Settings | None = None,
        wall_clock: Callable[[], float] = lambda: 1_700_000_000.5,
    ) -> None:
        self.settings = LiveSettings(settings or Settings())
        self.metrics = Metrics()
        now = asyncio.get_running_loop().time
        self.roster = Roster(settings=self.settings, metrics=self.metrics, now=now)
        self.dispatcher = Dispatcher(
            roster=self.roster,
            settings=self.settings,
            metrics=self.metrics,
            now=now,
            wall_clock=wall_clock,
        )
        self._tasks: set[asyncio.Task[Outcome]] = set()

    def agent(
        self,
        name: str = "one",
        *,
        slots: int = 4,
        model: str | None = "demo",
        aliases: tuple[str, ...] = (),
        resume_key: str = "same",
        kv_key: str = "",
        adapters: tuple[str, ...] = (),
    ) -> MemoryAgent:
        """Connect an agent."""
        return MemoryAgent(
            self.roster,
            name,
            slots=slots,
            model=model,
            aliases=aliases,
            resume_key=resume_key,
            kv_key=kv_key,
            adapters=adapters,
        ).register()

    async def ask(
        self,
        model: str = "demo",
        *,
        prompt: str = "hi",
        timeout_s: float | None = None,
        body_bytes: int = 100,
        sink: RecordingSink | None = None,
        request_id: str = "req_1",
    ) -> Generation:
        """Start a generation and let it come as far as it can."""
        sink = sink or RecordingSink()
        coroutine = self.dispatcher.generate(
            GenerationRequest(model=model, prompt=prompt),
            ANYONE,
            sink,
            request_id=request_id,
            timeout_s=timeout_s,
            body_bytes=body_bytes,
        )
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        await settle()
        return Generation(task, sink)

    def sample(self, name: str, **labels: str) -> float:
        """A metric's value."""
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


def now() -> float:
    return asyncio.get_running_loop().time()


async def finish_all(agent: MemoryAgent) -> None:
    """Work until nothing is left to do."""
    while agent.unanswered or agent.running:
        agent.answer()
        for call in tuple(agent.running):
            agent.finish(call)
    await settle()
