"""How often company, or a cut, changes a text: the shipped and random models in F32, F16 and Q8_0.

`python -m tests.benchmarks.bench_exactness [--texts N]`. Kernels depend on the shape of a batch, so
logits differ a little between a prompt that was prefilled and the same tokens decoded one by one,
and between a step of one slot and one of eight. Measured is what comes of it:

company   texts of eight slots at once, prefixes shared, drafting on, that differ from each alone
cut       continuations after a cut (prefilled anew elsewhere) that differ from the uncut text

Results are no matter of speed: they depend on the model and the kernels of this CPU alone.
"""

from __future__ import annotations

import argparse
import ctypes
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from llama_cpp import llama_cpp as api

from agent.engine.frames import EngineOptions, Sampling, Submit
from agent.engine.llama.log import LlamaLog, start_backend
from agent.engine.llama.model import Model
from tests.soak.churn import SYSTEMS, chat
from tests.support.cluster import DEMO_MODEL
from tests.support.engine_bench import EngineBench
from tests.support.random_gguf import prompt_tokens, random_gguf
from tests.support.sure_prompts import sure_prompts

SLOTS = 8
CONTEXT = 1024
TOKENS = 48
CUTS = (1, 7, 19, 33)
TYPES = {"F16": api.LLAMA_FTYPE_MOSTLY_F16, "Q8_0": api.LLAMA_FTYPE_MOSTLY_Q8_0}
Prompt = str | tuple[int, ...]
SAMPLINGS = {"greedy": 0.0, "seeded": 0.8}


@dataclass
class Rates:
    """Texts that differed, of how many."""

    texts: int = 0
    in_company: int = 0
    continuations: int = 0
    after_cut: int = 0


def requantized(folder: Path, name: str) -> Path:
    """The shipped model with other weights."""
    path = folder / f"demo-{name}.gguf"
    params = api.llama_model_quantize_default_params()
    params.ftype = TYPES[name]
    code = api.llama_model_quantize(
        str(DEMO_MODEL).encode(), str(path).encode(), ctypes.byref(params)
    )
    if code != 0:
        raise RuntimeError(f"llama.cpp could not write {name}: {code}")
    return path


def models(folder: Path) -> Iterator[tuple[str, Path, str]]:
    """Name, file and KV cache type of each."""
    yield "shipped F32, F32 cache, no flash attention", DEMO_MODEL, "f32"
    yield "shipped F32, F16 cache", DEMO_MODEL, "f16"
    yield "shipped F16, F16 cache", requantized(folder, "F16"), "f16"
    yield "shipped Q8_0, F16 cache", requantized(folder, "Q8_0"), "f16"
    yield "shipped Q8_0, Q8_0 cache", requantized(folder, "Q8_0"), "q8_0"
    yield "random tiny-f32, F32 cache, no flash attention", random_gguf("tiny-f32"), "f32"
    for name in ("tiny-f32", "tiny", "tiny-q8_0"):
        yield f"random {name}, F16 cache", random_gguf(name), "f16"


def prompts(path: Path, count: int, dice: Random) -> list[Prompt]:
    if "demo" in path.name:
        # half of it is what it is sure of, half is chance
        asked = [prompt for prompt, _ in sure_prompts()][:60]
        asked += [f"Roll a die {times} times." for times in range(3, 63)]
        return [chat(dice.choice(asked), dice.choice(("", *SYSTEMS[:3]))) for _ in range(count)]
    beginnings = [prompt_tokens(dice, 60) for _ in range(3)]
    return [tuple(dice.choice(beginnings) + prompt_tokens(dice, 10)) for _ in range(count)]


def measured(
    model: Model, log: LlamaLog, options: dict[str, object], asked: list[Prompt], heat: float
) -> Rates:
    alone = EngineBench(model, log, _options(slots=1, prefix_cache="off", **options))
    busy = EngineBench(model, log, _options(slots=SLOTS, **options))
    rates = Rates()
    samplings = [Sampling(temperature=heat, seed=seed) for seed in range(len(asked))]
    whole = [
        alone.call(prompt, sampling=sampling, max_tokens=TOKENS).token_ids
        for prompt, sampling in zip(asked, samplings, strict=True)
    ]
    for first in range(0, len(asked), SLOTS):
        group = range(first, min(first + SLOTS, len(asked)))
        for call in group:
            busy.submit(
                Submit(call=call, prompt=asked[call], sampling=samplings[call], max_tokens=TOKENS)
            )
        busy.finish()
        rates.texts += len(group)
        rates.in_company += sum(busy.heard[call].token_ids != whole[call] for call in group)
    for prompt, sampling, text in zip(asked, samplings, whole, strict=True):
        for cut in (cut for cut in CUTS if cut < len(text)):
            rest = alone.call(
                prompt, sampling=sampling, max_tokens=TOKENS, resume_ids=tuple(text[:cut])
            )
            rates.continuations += 1
            rates.after_cut += rest.token_ids != text[cut:]
    alone.close()
    busy.close()
    return rates


def _options(*, slots: int, **fields: object) -> EngineOptions:
    settings = {"slots": slots, "context_tokens": slots * CONTEXT, "threads": 1} | fields
    return EngineOptions(model_path="", **settings)  # type: ignore[arg-type]  # of any model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=48)
    arguments = parser.parse_args()
    log = start_backend()
    print(f"{'model':44s} {'sampling':8s}  in company  after a cut")
    with tempfile.TemporaryDirectory() as folder:
        for name, path, cache in models(Path(folder)):
            model = Model(EngineOptions(model_path=str(path)), log)
            flash = "off" if cache == "f32" else "auto"
            options: dict[str, object] = {"cache_type": cache, "flash_attention": flash}
            asked = prompts(path, arguments.texts, Random(5))
            for sampling, heat in SAMPLINGS.items():
                rates = measured(model, log, options, asked, heat)
                print(
                    f"{name:44s} {sampling:8s} {rates.in_company:5d}/{rates.texts:<5d}"
                    f" {rates.after_cut:5d}/{rates.continuations:<5d}",
                    flush=True,
                )
            model.close()


if __name__ == "__main__":
    main()
