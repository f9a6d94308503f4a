"""Rows that llama.cpp reduces give the tokens that whole rows give: real llama.cpp, tiny models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from llama_cpp import llama_cpp as api
from msgspec import structs

from agent.chat.tool_calls.table import TOOL_FORMATS
from agent.engine.frames import EngineOptions, Sampling, Submit
from agent.engine.llama.arrays import Floats
from agent.engine.llama.context import Context
from agent.engine.llama.log import LlamaLog, start_backend
from agent.engine.llama.model import Model
from agent.engine.sampling.reduced import MOST_TOP_K_ASLEEP
from agent.grammar.tools import ToolGrammar, ToolSchema
from protocol.grammar import Grammar
from tests.support.engine_bench import EngineBench
from tests.support.engine_benches import EXACT, NewBench, benches, loaded
from tests.support.tiny_gguf import write_tiny_gguf
from tests.support.tiny_kinds_gguf import Kind, write_tiny_kind

SLOTS = 4
TOKENS = 40
KINDS: tuple[Kind, ...] = ("recurrent", "hybrid", "window")
"""Of memory: their batches are split, and their outputs come back in another order."""
GREEDY = Sampling(temperature=0.0)
PROMPTS = ("hello world", "abc", "the quick brown fox", "x", "one two three", "zzzz")
FEW: dict[str, Sampling] = {
    "greedy": GREEDY,
    "top_k": Sampling(seed=3, top_k=40),
    "the common chain": Sampling(seed=4, top_k=40, top_p=0.95, min_p=0.05, temperature=0.8),
    "top_k and typical_p": Sampling(seed=5, top_k=100, typical_p=0.9),
    "top_k and XTC": Sampling(seed=6, top_k=20, xtc_probability=0.5, xtc_threshold=0.02),
    "the largest top_k": Sampling(seed=7, top_k=128, temperature=1.5),
}
WHOLE: dict[str, dict[str, Any]] = {
    "penalties": {"sampling": Sampling(temperature=0.0, repeat_penalty=1.5)},
    "DRY": {"sampling": Sampling(temperature=0.0, dry_multiplier=2.0, dry_allowed_length=1)},
    "bias": {"sampling": Sampling(temperature=0.0, logit_bias=((97, 3.0),))},
    "logprobs": {"sampling": Sampling(temperature=0.0, top_logprobs=3)},
    "no end": {"sampling": Sampling(temperature=0.0, ignore_eos=True)},
    "a late end": {"sampling": GREEDY, "min_tokens": 5},
    "a grammar": {"sampling": GREEDY, "grammar": Grammar(kind="regex", text="[a-z ]{50}")},
    "mirostat": {"sampling": Sampling(seed=8, top_k=40, mirostat=2)},
    "top_p alone": {"sampling": Sampling(seed=9, top_p=0.9)},
    "a large top_k": {"sampling": Sampling(seed=10, top_k=129)},
}


@pytest.fixture(scope="module")
def log() -> LlamaLog:
    return start_backend()


@pytest.fixture(scope="module")
def models(log: LlamaLog, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Model]]:
    folder: Path = tmp_path_factory.mktemp("models")
    paths = {"tiny": write_tiny_gguf(folder / "tiny.gguf", seed=5)}
    for kind in KINDS:
        write_tiny_kind(kind, folder / f"{kind}.gguf")
        paths[kind] = folder / f"{kind}.gguf"
    with loaded(log, paths) as models:
        yield models


@pytest.fixture
def new_bench(models: dict[str, Model], log: LlamaLog) -> Iterator[NewBench]:
    with benches(models, log, slots=SLOTS, speculation="off") as new:
        yield new


def reduced(bench: EngineBench) -> frozenset[int]:
    """The sequences whose rows are reduced."""
    assert bench.context.samplers is not None
    return bench.context.samplers.sequences


def heard_of(bench: EngineBench, submits: list[Submit]) -> list[tuple[object, ...]]:
    """What calls get when as many as there are slots are served at once, the others behind them."""
    waiting, running = list(submits), list[Submit]()
    while waiting or running:
        while waiting and len(running) < SLOTS:
            running.append(waiting.pop(0))
            bench.submit(running[-1])
        bench.turn()
        running = [one for one in running if not bench.heard[one.call].is_over]
    heard = [bench.heard[submit.call] for submit in submits]
    assert all(one.ended is not None for one in heard)
    return [(one.token_ids, one.text, one.logprobs) for one in heard]


def few(sampling: Sampling) -> list[Submit]:
    return [
        Submit(call=number, prompt=prompt, sampling=sampling, max_tokens=TOKENS + number)
        for number, prompt in enumerate(PROMPTS, start=1)
    ]


def mixed() -> list[Submit]:
    """Calls of all kinds, so that each slot has several kinds, one after the other."""
    fields: list[dict[str, Any]] = [{"sampling": sampling} for sampling in FEW.values()]
    whole = list(WHOLE.values())
    between = [one for pair in zip(whole, fields * 2, strict=False) for one in pair]
    return [
        Submit(call=number, prompt=PROMPTS[number % 6], max_tokens=9 + 5 * (number % 4), **one)
        for number, one in enumerate(between * 2, start=1)
    ]


def without_whole_rows(bench: EngineBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever looks at a whole row from here on sees none."""
    logits = bench.context.logits

    def nothing() -> Floats:
        return np.full_like(logits(), np.nan)

    monkeypatch.setattr(bench.context, "logits", nothing)


@pytest.mark.parametrize("kind", FEW)
def test_busy_slots_get_the_tokens_of_whole_rows_and_no_whole_row_is_looked_at(
    new_bench: NewBench, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    expected = heard_of(new_bench(), few(FEW[kind]))
    bench = new_bench(backend_sampling="on")
    without_whole_rows(bench, monkeypatch)
    assert heard_of(bench, few(FEW[kind])) == expected
    assert reduced(bench) == frozenset(range(SLOTS))


def sleeping(sampling: Sampling, trigger: str) -> list[Submit]:
    """Calls that a grammar binds from a sign on that some of them write sooner or later."""
    grammar = Grammar(kind="regex", text="[0-9]{3}", trigger=trigger)
    return [structs.replace(submit, grammar=grammar) for submit in few(sampling)]


@pytest.mark.parametrize("kind", FEW)
def test_rows_are_reduced_until_a_grammar_wakes_up_and_the_tokens_stay_the_same(
    new_bench: NewBench, kind: str
) -> None:
    free = "".join(str(one[1]) for one in heard_of(new_bench(), few(FEW[kind])))
    trigger = max(filter(str.isascii, free), key=free.count)
    expected = heard_of(new_bench(), sleeping(FEW[kind], trigger))
    assert any(str(one[1])[-3:].isdigit() for one in expected)
    bench = new_bench(backend_sampling="on")
    were_reduced: set[frozenset[int]] = set()
    bench.after_turn = lambda: were_reduced.add(reduced(bench))
    assert heard_of(bench, sleeping(FEW[kind], trigger)) == expected
    takes_few = FEW[kind].top_k <= MOST_TOP_K_ASLEEP
    assert (len(were_reduced) > 1) is takes_few


def test_a_call_that_may_call_tools_has_reduced_rows_like_free_text(
    new_bench: NewBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = ToolSchema("f", '{"type":"object"}', binds=False, place=0)
    form = TOOL_FORMATS["hermes"].form
    tools = ToolGrammar(form, (tool,), must_call=False, several=True)
    submits = [structs.replace(submit, tools=tools) for submit in few(GREEDY)]
    expected = heard_of(new_bench(), submits)
    bench = new_bench(backend_sampling="on")
    without_whole_rows(bench, monkeypatch)
    assert heard_of(bench, submits) == expected


@pytest.mark.parametrize("unified", ["off", "on"])
@pytest.mark.parametrize("memory", ["tiny", *KINDS])
def test_calls_of_all_kinds_beside_and_behind_each_other_get_the_tokens_of_whole_rows(
    new_bench: NewBench, memory: str, unified: str
) -> None:
    expected = heard_of(new_bench(memory, unified_kv=unified), mixed())
    bench = new_bench(memory, unified_kv=unified, backend_sampling="on")
    assert heard_of(bench, mixed()) == expected


@pytest.mark.parametrize("kind", WHOLE)
def test_a_call_that_needs_more_has_whole_rows_and_the_next_one_reduced_ones_again(
    new_bench: NewBench, kind: str
) -> None:
    fields = {"max_tokens": 12, **WHOLE[kind]}
    plain = new_bench(slots=1)
    expected = [plain.call(max_tokens=12, sampling=GREEDY), plain.call(**fields)]
    bench = new_bench(slots=1, backend_sampling="on")
    first = bench.call(max_tokens=12, sampling=GREEDY)
    assert reduced(bench) == {0}
    then = bench.call(**fields)
    assert reduced(bench) == frozenset()
    last = bench.call(max_tokens=12, sampling=GREEDY)
    assert reduced(bench) == {0}
    assert [heard.token_ids for heard in (first, then)] == [one.token_ids for one in expected]
    assert then.logprobs == expected[1].logprobs
    assert last.token_ids == first.token_ids


@pytest.mark.parametrize("kind", FEW)
def test_a_call_goes_on_elsewhere_with_the_other_kind_of_rows(
    new_bench: NewBench, kind: str
) -> None:
    plain, bench = new_bench(slots=1), new_bench(slots=1, backend_sampling="on")
    whole = plain.call(sampling=FEW[kind], max_tokens=TOKENS)
    for cut in (1, 7, 23):
        resumed: dict[str, Any] = {"resume_ids": tuple(whole.token_ids[:cut]), "max_tokens": TOKENS}
        for other in (bench, plain):
            heard = other.call(sampling=FEW[kind], **resumed)
            assert heard.token_ids == whole.token_ids[cut:]


def test_long_prompts_beside_running_streams_give_the_same_first_tokens(
    new_bench: NewBench,
) -> None:
    def submits() -> list[Submit]:
        sampling = (GREEDY, FEW["the common chain"], GREEDY, Sampling(seed=1))
        return [
            Submit(call=at, prompt="ab " * (20 * at), sampling=sampling[at % 4], max_tokens=at * 3)
            for at in range(1, 8)
        ]

    expected = heard_of(new_bench(micro_batch_tokens=16), submits())
    bench = new_bench(micro_batch_tokens=16, backend_sampling="on")
    assert heard_of(bench, submits()) == expected


def test_a_prompt_that_is_kept_warm_changes_no_sampler(new_bench: NewBench) -> None:
    bench = new_bench(slots=1, backend_sampling="on")
    bench.call(sampling=GREEDY, max_tokens=3)
    bench.call("warm this prompt, please", warm=True)
    assert reduced(bench) == {0}
    bench.call("another one", sampling=Sampling(seed=1), max_tokens=3)
    bench.call("warm this prompt as well", warm=True)
    assert reduced(bench) == frozenset()


@pytest.mark.parametrize("unified_kv", ["off", "on"])
def test_at_the_start_the_rows_of_all_sequences_are_reduced(
    new_bench: NewBench, unified_kv: Literal["off", "on"]
) -> None:
    bench = new_bench(backend_sampling="on", unified_kv=unified_kv)
    assert reduced(bench) == frozenset(range(bench.context.memory.sequences))


def test_without_a_gpu_it_is_off_unless_it_is_asked_for(new_bench: NewBench) -> None:
    assert new_bench().context.samplers is None
    assert new_bench(backend_sampling="off").context.samplers is None
    assert new_bench(backend_sampling="on").context.samplers is not None


def test_speculation_goes_first(new_bench: NewBench) -> None:
    assert new_bench(backend_sampling="on", speculation="auto").context.samplers is None


def test_where_llama_cpp_refuses_the_engine_goes_on_without_and_says_so_once(
    new_bench: NewBench, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    expected = heard_of(new_bench(), few(GREEDY))
    capfd.readouterr()
    monkeypatch.setattr(api, "llama_set_sampler", lambda *_: False)
    bench = new_bench(backend_sampling="on")
    assert bench.context.samplers is None
    assert heard_of(bench, few(GREEDY)) == expected
    told = capfd.readouterr().err
    assert told.count("backend sampling is off") == 1
    assert "leave --backend-sampling out to have speculation again" in told


def test_where_the_device_lacks_the_operation_it_is_off_too(
    new_bench: NewBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # llama.cpp takes such a chain, and would then hand out rows that nobody reduced
    monkeypatch.setattr(api, "llama_sampler_name", lambda _: b"-top-k")
    bench = new_bench(backend_sampling="on")
    assert bench.context.samplers is None
    assert bench.call(sampling=GREEDY, max_tokens=5).token_ids


def test_a_vocabulary_smaller_than_what_comes_back_is_no_trouble(
    log: LlamaLog, models: dict[str, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.engine.llama.backend_samplers.CANDIDATES", 1 << 20)
    settings: dict[str, Any] = {**EXACT, "slots": 1, "speculation": "off"}
    options = EngineOptions(model_path="", backend_sampling="on", **settings)
    context = Context(models["tiny"], options, log)
    context.warm_up()
    assert context.samplers is not None
    assert context.samplers.sequences == {0}
    context.close()
