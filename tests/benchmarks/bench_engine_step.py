"""Tokens a second at 1, 4 and 8 slots, and what a step costs outside llama_decode.

`python -m tests.benchmarks.bench_engine_step [--model FILE] [--threads N] [--seconds S]`; about
half a minute. What is measured is the worker's loop: a turn, its frame's encoding, the system calls
that send it and look for commands. Its socket is read in this process, outside of the time counted.
"Outside" is the median over the steps and holds what measuring llama_decode costs, too.
"""

from __future__ import annotations

import argparse
import os
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from llama_cpp import llama_cpp as api

import agent.demo_model
from agent.engine.channel import Channel
from agent.engine.frames import (
    HEADER_BYTES,
    EngineOptions,
    Sampling,
    Step,
    Submit,
    event_decoder,
)
from agent.engine.llama.context import Context
from agent.engine.llama.log import LlamaLog, start_backend
from agent.engine.llama.model import Model
from agent.engine.queries import Queries
from agent.engine.serving import Serving
from agent.engine.worker import received, turn

SHIPPED = Path(agent.demo_model.__file__).with_name("paddler-demo.gguf")
SAMPLINGS = {
    "greedy": Sampling(temperature=0.0, ignore_eos=True),
    "temperature 1": Sampling(ignore_eos=True),
    "top_p 0.9": Sampling(top_p=0.9, ignore_eos=True),
    "top_k 40, top_p 0.9": Sampling(top_k=40, top_p=0.9, ignore_eos=True),
    "logprobs 5": Sampling(temperature=0.0, ignore_eos=True, top_logprobs=5),
}


@dataclass
class Measured:
    """What the steps of a run took."""

    tokens: int = 0
    bytes_framed: int = 0
    total_s: list[float] = field(default_factory=list)
    decode_s: list[float] = field(default_factory=list)

    def row(self) -> str:
        pairs = zip(self.total_s, self.decode_s, strict=True)
        outside_s = median(total - decode for total, decode in pairs)
        tokens_per_step = self.tokens / len(self.total_s)
        return (
            f"{self.tokens / sum(self.total_s):10.0f} {1e6 * median(self.decode_s):12.0f} "
            f"{1e6 * outside_s:12.0f} {1e6 * outside_s / tokens_per_step:10.1f} "
            f"{100 * outside_s / median(self.total_s):8.1f} "
            f"{self.bytes_framed / len(self.total_s):12.0f}"
        )


class Stopwatch:
    """In place of llama_decode, to know what it takes."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._decode = api.llama_decode

    def put_back(self) -> None:
        """Be there no more."""
        api.llama_decode = self._decode

    def __call__(self, context: Any, batch: Any) -> int:
        started = time.perf_counter()
        code: int = self._decode(context, batch)
        self.seconds += time.perf_counter() - started
        return code


def measure(
    serving: Serving,
    queries: Queries,
    slots: int,
    watch: Stopwatch,
    sampling: Sampling,
    seconds: float,
) -> Measured:
    """Keep every slot generating for a while."""
    ours, theirs = socket.socketpair()
    channel, measured = Channel(ours, os.getppid()), Measured()
    next_call, until = 0, time.perf_counter() + seconds

    def submit() -> None:
        nonlocal next_call
        next_call += 1
        serving.submit(Submit(call=next_call, prompt="Count from 1 to 120.", sampling=sampling))

    for _ in range(slots):
        submit()
    serving.turn()
    while time.perf_counter() < until or not measured.total_s:
        watch.seconds, started = 0.0, time.perf_counter()
        turn(channel, serving, queries)
        assert not received(channel)
        took_s = time.perf_counter() - started
        sent = theirs.recv(1 << 20)
        step = event_decoder.decode(sent[HEADER_BYTES:])
        assert isinstance(step, Step)
        if not step.prefill and not step.accepted:
            measured.total_s.append(took_s)
            measured.decode_s.append(watch.seconds)
            measured.tokens += len(step.tokens)
            measured.bytes_framed += len(sent)
        for _ in step.ended:
            submit()
    ours.close()
    theirs.close()
    return measured


def bench(model: Model, log: LlamaLog, slots: int, threads: int, seconds: float) -> None:
    """One table for a number of slots."""
    api.llama_decode = watch = Stopwatch()
    options = EngineOptions(
        model_path="", slots=slots, threads=threads, context_tokens=512 * slots, speculation="off"
    )
    queries = Queries(model, options, log)
    for name, sampling in SAMPLINGS.items():
        context = Context(model, options, log)
        serving = Serving(model, context, options)
        serving.warm_up()
        measured = measure(serving, queries, slots, watch, sampling, seconds)
        print(f"{slots:5d}  {name:22s}{measured.row()}", flush=True)
        context.close()
    queries.close()
    watch.put_back()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=str(SHIPPED))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.5, help="for each line")
    arguments = parser.parse_args()
    log = start_backend()
    model = Model(EngineOptions(model_path=arguments.model), log)
    print(f"{model.description}, {model.vocabulary.size} tokens, {arguments.threads} thread(s)")
    columns = "  tokens/s  us decoding  us outside   us/token  percent  bytes/frame   (a step)"
    print(f"slots  {'sampling':22s}{columns}")
    for slots in (1, 4, 8):
        bench(model, log, slots, arguments.threads, arguments.seconds)


if __name__ == "__main__":
    main()
