"""Sharing, chunking, pausing and drafting change no token: the shipped model, F32 throughout.

Elsewhere kernels give slightly other logits for other batch shapes; docs/exactness.md has how often
that changes a token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

import numpy as np
import pytest
from msgspec import structs

from agent.demo_model import corpus
from agent.engine.frames import ContinueCall, EngineOptions, PauseCall, Sampling, Submit
from agent.engine.llama.log import LlamaLog, start_backend
from agent.engine.llama.model import Model
from tests.support.cluster import DEMO_MODEL
from tests.support.engine_bench import EngineBench
from tests.support.engine_invariants import check_idle, checked
from tests.support.near_ties import distance_to_border
from tests.support.sure_prompts import sure_prompts

SLOTS = 8
CONTEXT = 1024
SYSTEM = "You are a helpful assistant who answers briefly and in plain words. " * 3
PROMPTS = 200
MAX_TOKENS = 24
NEAR = 1e-4
"""A draw closer than this to the border of two tokens may fall on either."""


@pytest.fixture(scope="module")
def log() -> LlamaLog:
    return start_backend()


@pytest.fixture(scope="module")
def model(log: LlamaLog) -> Iterator[Model]:
    model = Model(EngineOptions(model_path=str(DEMO_MODEL)), log)
    yield model
    model.close()


def options(**fields: object) -> EngineOptions:
    settings: dict[str, object] = {
        "slots": SLOTS,
        "context_tokens": SLOTS * CONTEXT,
        "threads": 1,
        "cache_type": "f32",
        "flash_attention": "off",
    }
    return EngineOptions(model_path="", **(settings | fields))  # type: ignore[arg-type]  # of any test


PLAIN: dict[str, object] = {
    "slots": 1,
    "context_tokens": CONTEXT,
    "prefix_cache": "off",
    "speculation": "off",
}
BUSY: dict[str, dict[str, object]] = {
    "unified off": {"micro_batch_tokens": 64, "host_cache_bytes": 1 << 24},
    "unified on": {"micro_batch_tokens": 64, "unified_kv": "on", "context_tokens": 2 * CONTEXT},
}


def chat(system: str, user: str) -> str:
    turns = (("system", system), ("user", user)) if system else (("user", user),)
    said = "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns)
    return f"{said}<|im_start|>assistant\n"


def prompts(dice: Random) -> list[str]:
    """Questions of every kind, most behind one of two system prompts, some twice."""
    asked = [*(ask for ask, _ in corpus.facts()), *(ask for ask, _ in sure_prompts())]
    dice.shuffle(asked)
    chosen = asked[: PROMPTS * 9 // 10]
    chosen += dice.sample(chosen, PROMPTS - len(chosen))
    return [chat(dice.choice(("", SYSTEM, SYSTEM[:70])), ask) for ask in chosen]


def alone(model: Model, log: LlamaLog, submits: list[Submit]) -> list[list[int]]:
    """What each call gets of a slot of its own, with nothing shared and nothing drafted."""
    bench = EngineBench(model, log, options(**PLAIN))
    got = []
    for submit in submits:
        bench.submit(submit)
        bench.finish()
        got.append(bench.heard[submit.call].token_ids)
    bench.close()
    return got


def together(bench: EngineBench, submits: list[Submit], dice: Random) -> list[list[int]]:
    """What they get in each other's company, paused and continued at random."""
    waiting = list(submits)
    running: list[int] = []
    while waiting or running:
        while waiting and len(running) < SLOTS:
            submit = waiting.pop(0)
            bench.submit(submit)
            running.append(submit.call)
        if dice.random() < 0.1:
            call = dice.choice(running)
            bench.serving.pause(PauseCall(call=call))
            bench.turn(dice.randrange(1, 4))
            bench.serving.go_on(ContinueCall(call=call))
        bench.turn()
        running = [call for call in running if not bench.heard[call].is_over]
    return [bench.heard[submit.call].token_ids for submit in submits]


@pytest.fixture(scope="module")
def told_alone() -> dict[float, list[list[int]]]:
    """What the calls of a temperature get alone, once found out."""
    return {}


@pytest.fixture(params=BUSY, ids=lambda name: name.replace(" ", "_"))
def busy(request: pytest.FixtureRequest, model: Model, log: LlamaLog) -> Iterator[EngineBench]:
    bench = checked(EngineBench(model, log, options(**BUSY[request.param])))
    yield bench
    check_idle(bench)
    bench.close()


def submits_of(dice: Random, texts: int, temperature: float, max_tokens: int) -> list[Submit]:
    return [
        Submit(
            call=number,
            prompt=prompt,
            max_tokens=max_tokens,
            sampling=Sampling(temperature=temperature, seed=dice.randrange(1 << 30)),
        )
        for number, prompt in enumerate(prompts(dice)[:texts], start=1)
    ]


def is_near_tie(bench: EngineBench, submit: Submit, one: list[int], other: list[int]) -> bool:
    """Whether two sampled texts part where the draw fell next to a border."""
    if not submit.sampling.temperature:
        return False
    at = next(index for index, pair in enumerate(zip(one, other, strict=False)) if len({*pair}) > 1)
    prompt = bench.model.vocabulary.tokenize(str(submit.prompt))
    tokens = np.concatenate((prompt, np.array(one[:at], dtype=np.int32)))
    distance = distance_to_border(
        bench,
        tokens,
        position=at,
        seed=submit.sampling.seed,
        temperature=submit.sampling.temperature,
    )
    return distance < NEAR


def check_same(
    model: Model,
    log: LlamaLog,
    submits: list[Submit],
    texts: list[list[int]],
    expected: list[list[int]],
) -> int:
    """Texts are the same but for near ties, which are counted."""
    bench = EngineBench(model, log, options(**PLAIN))
    triples = zip(submits, texts, expected, strict=True)
    differ = [triple for triple in triples if triple[1] != triple[2]]
    for submit, text, other in differ:
        assert is_near_tie(bench, submit, text, other)
    bench.close()
    return len(differ)


@pytest.mark.parametrize(
    ("temperature", "texts"), [(0.0, 200), (0.8, 40)], ids=["greedy", "seeded"]
)
def test_prompts_get_in_company_what_they_get_alone(
    busy: EngineBench,
    told_alone: dict[float, list[list[int]]],
    model: Model,
    log: LlamaLog,
    record_property: Callable[[str, object], None],
    temperature: float,
    texts: int,
) -> None:
    dice = Random(41)
    submits = submits_of(dice, texts, temperature, MAX_TOKENS)
    if temperature not in told_alone:
        told_alone[temperature] = alone(model, log, submits)
    expected = told_alone[temperature]
    ties = check_same(model, log, submits, together(busy, submits, dice), expected)
    record_property("near ties", ties)
    usages = [busy.heard[submit.call].ended for submit in submits]
    assert sum(ended.usage.cached_tokens for ended in usages if ended) > texts * 10


@pytest.mark.parametrize("temperature", [0.0, 0.8], ids=["greedy", "seeded"])
def test_twenty_texts_go_on_the_same_after_any_cut(
    model: Model,
    log: LlamaLog,
    record_property: Callable[[str, object], None],
    temperature: float,
) -> None:
    """As on another agent: prompt and tokens so far are prefilled anew, beside seven others."""
    submits = submits_of(Random(43), 20, temperature, 16)
    whole = alone(model, log, submits)
    cuts = [
        structs.replace(submit, resume_ids=tuple(text[:cut]))
        for submit, text in zip(submits, whole, strict=True)
        for cut in range(1, len(text))
    ]
    dice = Random(47)
    dice.shuffle(cuts)
    resumed = [structs.replace(cut, call=number) for number, cut in enumerate(cuts)]
    bench = EngineBench(model, log, options(prefix_cache="off"))
    rests = together(bench, resumed, dice)
    bench.close()
    by_call = {submit.call: text for submit, text in zip(submits, whole, strict=True)}
    ties = check_same(
        model,
        log,
        cuts,
        [[*cut.resume_ids, *rest] for cut, rest in zip(cuts, rests, strict=True)],
        [by_call[cut.call] for cut in cuts],
    )
    record_property("near ties", ties)
