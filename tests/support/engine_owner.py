"""A process that owns an engine, to be killed by a test: `python -m … MODEL`.

It prints the engine's pid as soon as there is one, and "serving" when a long answer is on its way.
"""

from __future__ import annotations

import asyncio
import sys

import structlog

from agent.engine.engine import Engine
from agent.engine.frames import EngineOptions, Sampling, Submit
from tests.support.engine_calls import Recorder, polled


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


async def own(model_path: str) -> None:
    engine = Engine(EngineOptions(model_path=model_path, slots=1, threads=1))
    recorder = Recorder()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(engine.run(recorder))
        await polled(lambda: engine.pid is not None)
        say(str(engine.pid))
        await recorder.until(lambda: bool(recorder.ready))
        for call in range(1_000_000):
            engine.send(Submit(call=call, prompt="on and on", sampling=Sampling(ignore_eos=True)))
            await recorder.until(lambda call=call: bool(recorder[call].token_ids))  # type: ignore[misc]  # default binds
            if call == 0:
                say("serving")
            await recorder.over(call)


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(own(sys.argv[1]))
