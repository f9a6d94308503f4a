"""What calls got from an engine, gathered from its steps; for tests of the engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from agent.engine.engine import Engine, EngineDeath
from agent.engine.frames import (
    Accepted,
    CallFailed,
    Ended,
    EngineFacts,
    EngineOptions,
    Refused,
    Step,
)
from agent.engine.query_frames import QueryAnswer
from protocol.generation import TokenLogprob

WAIT_LIMIT_S = 60.0


@dataclass
class Heard:
    """One call's story."""

    accepted: Accepted | None = None
    refused: Refused | None = None
    ended: Ended | None = None
    failed: CallFailed | None = None
    token_ids: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    sampler_states: list[tuple[float, ...]] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def is_over(self) -> bool:
        return bool(self.refused or self.ended or self.failed)


class Calls:
    """Every call by its number; checks the order of a call's news as it comes in."""

    def __init__(self) -> None:
        self._calls: dict[int, Heard] = {}
        self.steps: list[Step] = []

    def __getitem__(self, call: int) -> Heard:
        return self._calls.setdefault(call, Heard())

    def forget(self, call: int) -> None:
        """Drop a call that is over, and the steps so far: for runs without end."""
        del self._calls[call]
        del self.steps[:-1]

    def take(self, step: Step) -> None:
        assert not self.steps or step.number >= self.steps[-1].number
        self.steps.append(step)
        for accepted in step.accepted:
            self[accepted.call].accepted = accepted
        for refused in step.refused:
            self[refused.call].refused = refused
        for tokens in step.tokens:
            heard = self[tokens.call]
            assert heard.accepted is not None
            assert not heard.is_over
            heard.token_ids += tokens.token_ids
            heard.texts.append(tokens.text)
            heard.logprobs += tokens.logprobs
            heard.sampler_states.append(tokens.sampler_state)
        for ended in step.ended:
            self[ended.call].ended = ended
        for failed in step.failed:
            self[failed.call].failed = failed

    def are_over(self, calls: Iterable[int]) -> bool:
        return all(self[call].is_over for call in calls)


class Recorder(Calls):
    """An `EngineListener` that one can wait on."""

    def __init__(self) -> None:
        super().__init__()
        self.ready: list[EngineFacts] = []
        self.deaths: list[EngineDeath] = []
        self.answers: dict[int, QueryAnswer] = {}
        self.progress: list[float] = []
        self._changed = asyncio.Event()

    def on_load_progress(self, fraction: float) -> None:
        self.progress.append(fraction)
        self._changed.set()

    def on_ready(self, facts: EngineFacts) -> None:
        self.ready.append(facts)
        self._changed.set()

    def on_step(self, step: Step) -> None:
        self.take(step)
        self._changed.set()

    def on_answer(self, answer: QueryAnswer) -> None:
        self.answers[answer.call] = answer
        self._changed.set()

    def on_died(self, death: EngineDeath) -> None:
        self.deaths.append(death)
        self.steps.clear()  # the next engine counts anew
        self._changed.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for a condition on what was heard."""
        async with asyncio.timeout(WAIT_LIMIT_S):
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    async def over(self, *calls: int) -> None:
        """Wait for the end of calls."""
        await self.until(lambda: self.are_over(calls))


async def polled(holds: Callable[[], bool]) -> None:
    """Wait for what sends no event, such as the end of another's process."""
    async with asyncio.timeout(WAIT_LIMIT_S):
        while not holds():  # noqa: ASYNC110 (there is no event to wait for)
            await asyncio.sleep(0.005)


@asynccontextmanager
async def running_engine(options: EngineOptions) -> AsyncIterator[tuple[Engine, Recorder]]:
    """A real engine process, gone at the end."""
    engine, recorder = Engine(options), Recorder()
    async with asyncio.TaskGroup() as tasks:
        run = tasks.create_task(engine.run(recorder))
        try:
            yield engine, recorder
        finally:
            run.cancel()
