"""What a JSON schema costs a busy engine: free text and schema in turn, in this process.

`python -m tests.benchmarks.bench_json_schema [--model NAME|FILE] [--slots N] [--starts N]
[--pairs N] [--tokens N]`. Every slot generates the same number of greedy tokens; a round is timed
from its first decoded token to its last, so prompts do not count. Random weights want no JSON at
all: nearly every token is refused and drawn again under the mask, the dearest case there is.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path

from agent.engine.frames import EngineOptions, Sampling, Submit
from agent.engine.llama.context import Context
from agent.engine.llama.log import LlamaLog, start_backend
from agent.engine.llama.model import Model
from agent.engine.serving import Serving
from protocol.grammar import Grammar
from tests.benchmarks.peers.ratios import Estimate, estimate
from tests.benchmarks.workloads.structured import schema
from tests.support.random_gguf import SIZES, prompt_tokens, random_gguf

SCHEMA = Grammar(kind="json_schema", text=json.dumps(schema()))
GREEDY = Sampling(temperature=0.0, ignore_eos=True)
PROMPT = 32
MOST_TURNS = 100_000


def tokens_per_s(serving: Serving, slots: int, tokens: int, grammar: Grammar | None) -> float:
    """One round: all slots busy from the first token to the last."""
    dice = random.Random(tokens)
    for call in range(slots):
        prompt = tuple(prompt_tokens(dice, PROMPT))
        serving.submit(
            Submit(
                call=call,
                prompt=prompt,
                sampling=GREEDY,
                max_tokens=tokens,
                speculate=False,
                grammar=grammar,
            )
        )
    texts = [""] * slots
    begun = said = 0
    started = ended = 0.0
    for _ in range(MOST_TURNS):
        step = serving.turn()
        assert step is not None, "the engine has nothing to do but its calls have not ended"
        assert not step.refused, step.refused
        assert not step.failed, step.failed
        ended = time.perf_counter()
        for heard in step.tokens:
            texts[heard.call] += heard.text
        if started:
            said += sum(len(heard.token_ids) for heard in step.tokens)
        elif step.tokens:
            begun += len(step.tokens)
            started = ended if begun >= slots else 0.0
        slots -= len(step.ended)
        if slots <= 0:
            break
    if grammar and not all(text.lstrip().startswith("{") for text in texts):
        raise SystemExit(f"the engine does not keep to the schema: {texts[0][:60]!r}")
    return said / (ended - started)


def one_start(
    model: Model, log: LlamaLog, arguments: argparse.Namespace
) -> tuple[list[float], list[float]]:
    """Free and bound rates of one fresh context, in turn."""
    options = EngineOptions(
        model_path="",
        slots=arguments.slots,
        threads=arguments.threads,
        context_tokens=arguments.slots * 512,
    )
    context = Context(model, options, log)
    serving = Serving(model, context, options)
    serving.warm_up()
    free, bound = [], []
    tokens_per_s(serving, arguments.slots, 8, SCHEMA)  # compiles it
    for _ in range(arguments.pairs):
        free.append(tokens_per_s(serving, arguments.slots, arguments.tokens, None))
        bound.append(tokens_per_s(serving, arguments.slots, arguments.tokens, SCHEMA))
    context.close()
    return free, bound


def main() -> None:
    """Two starts of two pairs, unless told otherwise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="small")
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--starts", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=96)
    arguments = parser.parse_args()
    known = arguments.model in SIZES
    path = random_gguf(arguments.model) if known else Path(arguments.model)
    log = start_backend()
    model = Model(EngineOptions(model_path=str(path)), log)
    starts = [one_start(model, log, arguments) for _ in range(arguments.starts)]
    _say("free text [tok/s]", estimate([free for free, _ in starts]))
    _say("JSON schema [tok/s]", estimate([bound for _, bound in starts]))
    ratios = [[b / f for f, b in zip(free, bound, strict=True)] for free, bound in starts]
    _say("JSON schema / free text", estimate(ratios))


def _say(what: str, found: Estimate | None) -> None:
    assert found is not None
    interval = "" if found.low is None else f"  ({found.low:.4g} to {found.high:.4g})"
    print(f"{what:<26}{found.mean:10.4g}{interval}", flush=True)


if __name__ == "__main__":
    main()
