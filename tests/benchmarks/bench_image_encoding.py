"""What encoding an image costs the streams beside it: in the engine, and in a process of its own.

`python -m tests.benchmarks.bench_image_encoding [--size base|large] [--threads N]`. Four streams
decode; now and then an image of random pixels is encoded with as many threads: as part of a call,
which is what the engine does; by its own thread between two steps, by another process on the same
cores, and by one on cores of its own. The ratio is that of the largest gap between two tokens of a
stream to the longest time that encoding one of the images took.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from agent.engine.frames import CancelCall, EngineOptions, Sampling, Submit
from agent.engine.llama.log import LlamaLog, start_backend
from agent.engine.llama.model import Model
from agent.engine.llama.projector import Image, Projector
from tests.support.engine_bench import EngineBench
from tests.support.media_files import MediaFiles, picture
from tests.support.random_gguf import models_folder, random_gguf
from tests.support.tiny_projector_gguf import BASE, LARGE, Shape, write_tiny_projector

STREAMS = 4
STEPS = 120
SHAPES = {"base": BASE, "large": LARGE}
MODEL_WIDTH = 768


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SHAPES, default="base")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--images", type=int, default=3)
    given = parser.parse_args(arguments)
    cores = sorted(os.sched_getaffinity(0))
    ours = cores[: given.threads]
    others = cores[given.threads : 2 * given.threads]
    os.sched_setaffinity(0, ours)
    projector_path = projector_file(given.size, SHAPES[given.size])
    options = EngineOptions(
        model_path=str(random_gguf("small")),
        mmproj_path=str(projector_path),
        slots=STREAMS,
        context_tokens=STREAMS * 2048,
        threads=given.threads,
        gpu_layers=0,
        prefix_cache="off",
        speculation="off",
    )
    log = start_backend()
    model = Model(options, log)
    projector = Projector(model, options, log)
    bench = EngineBench(model, log, options)
    print(f"{given.size}: {SHAPES[given.size].tokens} tokens an image, {given.threads} threads")
    report("nothing encoded", steps(bench), [])
    report("in a call", *steps_with_calls(model, projector, log, options, given.images))
    report("in the engine", *steps_with_images(bench, projector, given.images))
    with encoder(options, ours) as asked:
        report("own process, same cores", *steps_beside(bench, asked, given.images))
    if len(others) == given.threads:
        with encoder(options, others) as asked:
            report("own process, other cores", *steps_beside(bench, asked, given.images))


def projector_file(name: str, shape: Shape) -> Path:
    """Made once and kept."""
    path = models_folder() / f"projector-{name}-{MODEL_WIDTH}.gguf"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tiny_projector(path.with_suffix(".new"), shape=shape, model_width=MODEL_WIDTH)
        path.with_suffix(".new").rename(path)
    return path


def report(what: str, gaps_ms: list[float], encode_ms: list[float]) -> None:
    gaps = np.array(gaps_ms)
    line = f"{what:26} gap p50 {np.median(gaps):6.1f} ms, p99 {np.quantile(gaps, 0.99):7.1f} ms, "
    line += f"max {gaps.max():7.1f} ms"
    if encode_ms:
        line += f", encode {np.mean(encode_ms):7.1f} ms (max {max(encode_ms):7.1f})"
        line += f", ratio {gaps.max() / max(encode_ms):.3f}"
    print(line, flush=True)


def started(bench: EngineBench) -> None:
    """Four streams that go on for longer than anything is measured."""
    for call in range(STREAMS):
        sampling = Sampling(temperature=0.0, ignore_eos=True)
        prompt = tuple(range(300, 316))
        bench.submit(Submit(call=call, prompt=prompt, sampling=sampling, max_tokens=2000))
    bench.turn(10)


def ended(bench: EngineBench) -> None:
    for call in range(STREAMS):
        bench.serving.cancel(CancelCall(call=call))
        bench.turn()
        bench.heard.forget(call)


def step_ms(bench: EngineBench) -> float:
    before = time.perf_counter()
    bench.turn()
    return 1000 * (time.perf_counter() - before)


def steps(bench: EngineBench) -> list[float]:
    started(bench)
    gaps = [step_ms(bench) for _ in range(STEPS)]
    ended(bench)
    return gaps


def steps_with_calls(
    model: Model, projector: Projector, log: LlamaLog, options: EngineOptions, images: int
) -> tuple[list[float], list[float]]:
    """A fifth call brings an image: what is between two tokens of the first stream."""
    bench = EngineBench(model, log, replace(options, slots=STREAMS + 1), projector)
    files = MediaFiles()
    started(bench)
    gaps: list[float] = []
    encoded: list[float] = []
    for number in range(images):
        gaps += [step_ms(bench) for _ in range(STEPS // images - 1)]
        call = STREAMS + number
        medium = files.image(picture(number, width=640, height=480), at=0)
        greedy = Sampling(temperature=0.0, ignore_eos=True)
        bench.submit(Submit(call=call, prompt="?", media=(medium,), sampling=greedy, max_tokens=8))
        while (ended_call := bench.heard[call].ended) is None:
            gaps.append(gap_ms(bench))
        encoded.append(ended_call.timings.encode_ms)
    ended(bench)
    files.close()
    bench.close()
    return gaps, encoded


def gap_ms(bench: EngineBench) -> float:
    """Until the first stream's next token."""
    before, tokens = time.perf_counter(), len(bench.heard[0].token_ids)
    while len(bench.heard[0].token_ids) == tokens:
        bench.turn()
    return 1000 * (time.perf_counter() - before)


def steps_with_images(
    bench: EngineBench, projector: Projector, images: int
) -> tuple[list[float], list[float]]:
    """An image is encoded between two steps: the gap is both."""
    started(bench)
    gaps: list[float] = []
    encoded: list[float] = []
    for number in range(images):
        gaps += [step_ms(bench) for _ in range(STEPS // images - 1)]
        encoded.append(encode_ms(projector, number))
        gaps.append(encoded[-1] + step_ms(bench))
    ended(bench)
    return gaps, encoded


def steps_beside(
    bench: EngineBench, asked: Connection, images: int
) -> tuple[list[float], list[float]]:
    """Steps while another process encodes, from the asking to the answer."""
    started(bench)
    gaps: list[float] = []
    encoded: list[float] = []
    for number in range(images):
        asked.send(number)
        while not asked.poll():
            gaps.append(step_ms(bench))
        encoded.append(asked.recv())
    ended(bench)
    return gaps, encoded


def encode_ms(projector: Projector, seed: int) -> float:
    parts = (Image(picture(seed, width=640, height=480)),)
    pieces = projector.pieces(parts)
    before = time.perf_counter()
    projector.embeddings(parts, pieces, 0)
    return 1000 * (time.perf_counter() - before)


@contextmanager
def encoder(options: EngineOptions, cores: list[int]) -> Iterator[Connection]:
    """A process that encodes an image for each number that it is sent."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=encode_until_none, args=(options, cores, theirs))
    process.start()
    ours.recv()
    try:
        yield ours
    finally:
        ours.send(None)
        process.join()


def encode_until_none(options: EngineOptions, cores: list[int], asked: Connection) -> None:
    os.sched_setaffinity(0, cores)
    log = start_backend()
    projector = Projector(Model(options, log), options, log)
    encode_ms(projector, 99)
    asked.send(None)
    while (seed := asked.recv()) is not None:
        asked.send(encode_ms(projector, seed))


if __name__ == "__main__":
    main()
