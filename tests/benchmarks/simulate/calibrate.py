"""The simulated engine's numbers, from a short run of a real one."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import linear_regression, median

from llama_cpp import llama_cpp as api

from agent.engine.frames import EngineOptions, Sampling, Submit
from agent.engine.llama.context import Context
from agent.engine.llama.log import LlamaLog, start_backend
from agent.engine.llama.model import Model
from agent.engine.queries import Queries
from agent.engine.serving import Serving
from protocol.prefix_chain import BLOCK_BYTES
from tests.benchmarks.bench_engine_step import SAMPLINGS, Stopwatch, measure
from tests.benchmarks.simulate.speed import Speed

SLOTS = (1, 2, 4, 8)
PROMPT_BLOCKS = 2
PROMPTS = 8


def measured(model_path: Path, *, threads: int, seconds: float) -> Speed:
    """What a step takes with one call and with each further one, and a block of a prompt."""
    log = start_backend()
    model = Model(EngineOptions(model_path=str(model_path)), log)
    steps_ms = [_step_ms(model, log, slots, threads, seconds) for slots in SLOTS]
    fitted = linear_regression([slots - 1 for slots in SLOTS], steps_ms)
    return Speed(
        block_ms=round(_block_ms(model, log, threads), 3),
        token_ms=round(fitted.intercept, 3),
        slot_ms=round(max(fitted.slope, 0.0), 3),
        source=f"{model.description}, {threads} thread(s)",
    )


def _step_ms(model: Model, log: LlamaLog, slots: int, threads: int, seconds: float) -> float:
    options = _options(slots, threads)
    context, queries = Context(model, options, log), Queries(model, options, log)
    serving = Serving(model, context, options)
    serving.warm_up()
    api.llama_decode = watch = Stopwatch()
    try:
        run = measure(serving, queries, slots, watch, SAMPLINGS["greedy"], seconds)
    finally:
        watch.put_back()
        queries.close()
        context.close()
    return 1000 * median(run.total_s)


def _block_ms(model: Model, log: LlamaLog, threads: int) -> float:
    """Prompts that share nothing, each to its first and only token."""
    options = _options(1, threads)
    context = Context(model, options, log)
    serving = Serving(model, context, options)
    serving.warm_up()
    took_ms = []
    for call in range(1, PROMPTS + 1):
        text = f"{call} is the number of this one. " + "Agents dial the balancer at once. " * 40
        prompt = text[: PROMPT_BLOCKS * BLOCK_BYTES]
        started = time.perf_counter()
        sampling = Sampling(temperature=0.0, ignore_eos=True)
        serving.submit(Submit(call=call, prompt=prompt, sampling=sampling, max_tokens=1))
        while serving.has_work:
            serving.turn()
        took_ms.append((time.perf_counter() - started) * 1000)
    context.close()
    return median(took_ms) / PROMPT_BLOCKS


def _options(slots: int, threads: int) -> EngineOptions:
    return EngineOptions(
        model_path="", slots=slots, threads=threads, context_tokens=1024 * slots, speculation="off"
    )
