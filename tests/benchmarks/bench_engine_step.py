"""Tokens a second at 1, 4 and 8 slots, and what a step costs outside llama_decode.

`python -m tests.benchmarks.bench_engine_step [--model FILE] [--threads N] [--seconds S]`; about
half a minute. No process boundary: this measures the loop's own work, encoding of frames included.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import agent.demo_model
from agent.engine.frames import EngineOptions, Sampling, Submit, encode
from agent.engine.llama.context import Context
from agent.engine.llama.log import LlamaLog, start_backend
from agent.engine.llama.model import Model
from agent.engine.serving import Serving

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
    """What a run of steps took."""

    steps: int = 0
    tokens: int = 0
    bytes_framed: int = 0
    total_s: float = 0.0
    decode_s: float = 0.0

    def row(self) -> str:
        outside_us = 1e6 * (self.total_s - self.decode_s) / self.steps
        return (
            f"{self.tokens / self.total_s:10.0f} {1e6 * self.decode_s / self.steps:12.0f} "
            f"{outside_us:12.0f} {self.bytes_framed / self.steps:12.0f}"
        )


class TimedContext(Context):
    """A context that knows how long it decoded."""

    decode_s = 0.0

    def decode(self) -> int:
        started = time.perf_counter()
        code = super().decode()
        self.decode_s += time.perf_counter() - started
        return code


def measure(
    context: TimedContext, serving: Serving, sampling: Sampling, seconds: float
) -> Measured:
    """Keep every slot generating for a while."""
    next_call = 0
    for _ in range(context.slots):
        serving.submit(Submit(call=next_call, prompt="Count from 1 to 120.", sampling=sampling))
        next_call += 1
    serving.turn()
    measured = Measured()
    context.decode_s = 0.0
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        step = serving.turn()
        assert step is not None
        measured.bytes_framed += len(encode(step))
        measured.steps += 1
        measured.tokens += len(step.tokens)
        for _ in step.ended:
            serving.submit(Submit(call=next_call, prompt="Count from 1.", sampling=sampling))
            next_call += 1
    measured.total_s = time.perf_counter() - started
    measured.decode_s = context.decode_s
    return measured


def bench(model: Model, log: LlamaLog, slots: int, threads: int, seconds: float) -> None:
    """One table for a number of slots."""
    options = EngineOptions(model_path="", slots=slots, threads=threads)
    for name, sampling in SAMPLINGS.items():
        context = TimedContext(model, options, log)
        serving = Serving(model, context, options)
        serving.warm_up()
        measured = measure(context, serving, sampling, seconds)
        print(f"{slots:5d}  {name:22s}{measured.row()}", flush=True)
        context.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=str(SHIPPED))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.5, help="for each line")
    arguments = parser.parse_args()
    log = start_backend()
    model = Model(EngineOptions(model_path=arguments.model), log)
    print(f"{model.description}, {model.vocabulary.size} tokens, {arguments.threads} thread(s)")
    print(f"slots  {'sampling':22s}  tokens/s  us decoding  us outside  bytes/frame   (a step)")
    for slots in (1, 4, 8):
        bench(model, log, slots, arguments.threads, arguments.seconds)


if __name__ == "__main__":
    main()
