"""What moving a running call's state costs, beside prefilling its tokens again.

`python -m tests.benchmarks.bench_moving [--model NAME] [--tokens N] [--pairs N]`; a minute. Two
agents with an engine process each, one thread an engine; the balancer, both agents and this
program share a process, so that the transfer is over loopback. The call is exported in full swing.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.engine.engine import Engine
from agent.engine.frames import EngineOptions
from balancer.fleet.moving import Move
from balancer.fleet.queries import Answer
from protocol.generation import GenerationRequest
from protocol.jsonrpc import ErrorObject
from protocol.to_agent import ExportedSequence
from tests.support.cluster import eventually
from tests.support.random_gguf import prompt_tokens, random_gguf
from tests.support.two_agents import Fleet, HeardCall, has_tokens, two_agents

GENERATED = 24


@dataclass(frozen=True)
class Timings:
    """Of one move in milliseconds: until the answer, until the last byte left, until it is kept;
    then from the call on the target to its first token there, with and without the state."""

    size_bytes: int
    tokens: int
    export_ms: float
    transfer_ms: float
    import_ms: float
    resume_ms: float
    prefill_ms: float


class _TimedMove(Move):
    """A move that notes when what happened."""

    exported_s = sent_s = 0.0

    def on_answer(self, answer: Answer) -> None:
        self.exported_s = time.perf_counter()
        super().on_answer(answer)

    def take(self, most_bytes: int) -> bytes:
        self.sent_s = time.perf_counter()
        return super().take(most_bytes)


async def first_token_ms(fleet: Fleet, request: GenerationRequest, **more: Any) -> float:
    """From a call on the second agent to its first new token."""
    started = time.perf_counter()
    heard = fleet.call("two", request, **more)
    await eventually(lambda: heard.token_ids or heard.is_over, what="a token")
    assert heard.token_ids, heard
    return 1000 * (time.perf_counter() - started)


async def one_pair(fleet: Fleet, dice: random.Random, tokens: int) -> Timings:
    """Move one call, and go on with it both ways."""
    prompt = tuple(prompt_tokens(dice, tokens))
    request = GenerationRequest(
        prompt=prompt, max_tokens=GENERATED + 200, temperature=0.0, ignore_eos=True
    )
    call: HeardCall = fleet.call("one", request, scope="moved")
    await has_tokens(call, GENERATED)
    ends: list[tuple[ExportedSequence | None, ErrorObject | None]] = []
    started = time.perf_counter()
    move = _TimedMove(
        call.id,
        fleet.link("one"),
        fleet.link("two"),
        release=True,
        cache_scope="moved",
        on_end=lambda *end: ends.append(end),
    )
    await eventually(lambda: ends, what="the move")
    ended = time.perf_counter()
    exported, error = ends[0]
    assert exported is not None, error
    resume = call.resume()
    last = GenerationRequest(
        prompt=prompt,
        max_tokens=len(call.token_ids) + 1,
        temperature=0.0,
        ignore_eos=True,
    )
    resume_ms = await first_token_ms(fleet, last, resume=resume, scope="moved")
    prefill_ms = await first_token_ms(fleet, last, resume=resume, scope="again")
    return Timings(
        size_bytes=exported.size_bytes,
        tokens=exported.tokens,
        export_ms=1000 * (move.exported_s - started),
        transfer_ms=1000 * (move.sent_s - move.exported_s),
        import_ms=1000 * (ended - move.sent_s),
        resume_ms=resume_ms,
        prefill_ms=prefill_ms,
    )


async def measure(path: Path, tokens: int, pairs: int) -> list[Timings]:
    """One after the other, on fresh prompts."""
    options = EngineOptions(
        model_path=str(path),
        slots=2,
        threads=1,
        context_tokens=4 * (tokens + GENERATED + 256),
        host_cache_bytes=1 << 30,
        speculation="off",
    )
    dice = random.Random(1)
    async with two_agents(Engine(options), Engine(options)) as fleet:
        await one_pair(fleet, dice, tokens)
        return [await one_pair(fleet, dice, tokens) for _ in range(pairs)]


def main(arguments: list[str] | None = None) -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="small", help="a size of tests.support.random_gguf")
    parser.add_argument("--tokens", type=int, default=1000)
    parser.add_argument("--pairs", type=int, default=5)
    given = parser.parse_args([] if arguments is None else arguments)
    rows = asyncio.run(measure(random_gguf(given.model), given.tokens, given.pairs))
    print(f"{rows[0].tokens} tokens, {rows[0].size_bytes / 1e6:.2f} MB, medians of {len(rows)}")
    for name in ("export_ms", "transfer_ms", "import_ms", "resume_ms", "prefill_ms"):
        values = sorted(getattr(row, name) for row in rows)
        spread = f"{values[0]:8.1f} to {values[-1]:.1f}"
        print(f"{name:12} {statistics.median(values):8.1f}   {spread}")


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
