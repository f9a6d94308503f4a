"""A call that asked for it goes on when its share of the context is full, without older tokens."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from agent.engine.frames import CancelCall, Sampling, Submit
from agent.engine.llama.log import LlamaLog, start_backend
from agent.engine.llama.model import Model
from agent.engine.query_frames import Exported, ExportSequence, QueryRefused
from protocol.refusals import RefusalCode
from tests.support.engine_bench import EngineBench
from tests.support.engine_benches import NewBench, benches, loaded
from tests.support.engine_calls import Heard
from tests.support.tiny_gguf import write_tiny_gguf
from tests.support.tiny_kinds_gguf import write_tiny_kind

GREEDY = Sampling(temperature=0.0, ignore_eos=True)
PROMPT = tuple(range(65, 91))
SHARE = 64


@pytest.fixture(scope="module")
def log() -> LlamaLog:
    return start_backend()


@pytest.fixture(scope="module")
def models(log: LlamaLog, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Model]]:
    folder = tmp_path_factory.mktemp("model")
    paths = {
        "ranged": write_tiny_gguf(folder / "tiny.gguf"),
        "one layer": write_tiny_gguf(folder / "one.gguf", layers=1),
        "window": write_tiny_kind("window", folder / "window.gguf"),
        "recurrent": write_tiny_kind("recurrent", folder / "recurrent.gguf"),
    }
    with loaded(log, paths) as models:
        yield models


@pytest.fixture
def new_bench(models: dict[str, Model], log: LlamaLog) -> Iterator[NewBench]:
    with benches(models, log, slots=2, context_tokens=2 * SHARE, host_cache_bytes=1 << 24) as new:
        yield new


def ask(bench: EngineBench, prompt: tuple[int, ...] = PROMPT, **fields: object) -> Heard:
    settings = {"sampling": GREEDY, "max_tokens": 300, "context_shift": True}
    return bench.call(prompt, **(settings | fields))


def ending(heard: Heard) -> tuple[str, int]:
    assert heard.ended is not None
    return heard.ended.finish_reason, heard.ended.usage.completion_tokens


def test_the_default_is_to_end_with_the_context(new_bench: NewBench) -> None:
    heard = ask(new_bench(), context_shift=False)
    assert ending(heard) == ("length", SHARE - len(PROMPT))


@pytest.mark.parametrize("kind", ["ranged", "window"])
def test_a_call_that_asked_for_it_goes_on_past_its_context(new_bench: NewBench, kind: str) -> None:
    bench = new_bench(kind)
    ended = ask(bench, context_shift=False)
    shifted = ask(bench)
    assert ending(shifted) == ("length", 300)
    # up to there nothing is different
    assert shifted.token_ids[: len(ended.token_ids)] == ended.token_ids
    assert max(step.kv_cells_used for step in bench.heard.steps) <= SHARE


def test_with_no_cap_of_its_own_the_cap_is_still_the_context(new_bench: NewBench) -> None:
    assert ending(ask(new_bench(), max_tokens=None)) == ("length", SHARE - len(PROMPT))


def test_shifting_beside_others_with_and_without_drafts_changes_nobody_s_tokens(
    new_bench: NewBench,
) -> None:
    plain = new_bench(prefix_cache="off", speculation="off")
    alone = {call: ask(plain, (*PROMPT, call)).token_ids for call in range(2)}
    other = ask(plain, (*PROMPT, 9), max_tokens=30, context_shift=False).token_ids
    bench = new_bench(slots=3, context_tokens=3 * SHARE)
    for call in range(2):
        bench.submit(
            Submit(
                call=call, prompt=(*PROMPT, call), sampling=GREEDY, max_tokens=300,
                context_shift=True,
            )
        )  # fmt: skip
    while not bench.heard[0].is_over:
        bench.turn(7)
        assert ask_beside(bench, (*PROMPT, 9)) == other
    bench.finish()
    assert {call: bench.heard[call].token_ids for call in range(2)} == alone


def ask_beside(bench: EngineBench, prompt: tuple[int, ...]) -> list[int]:
    """A call among those that run; its tokens."""
    call = 100 + len(bench.heard.steps)
    bench.submit(Submit(call=call, prompt=prompt, sampling=GREEDY, max_tokens=30))
    while not bench.heard[call].is_over:
        bench.turn()
    return bench.heard[call].token_ids


def test_what_was_shifted_is_nobody_s_prefix(new_bench: NewBench) -> None:
    bench = new_bench(slots=1, context_tokens=SHARE)
    shifted = ask(bench)
    longest = (*PROMPT, *shifted.token_ids)[: SHARE - 4]
    again = ask(bench, longest, context_shift=False)
    assert again.ended is not None
    assert again.ended.usage.cached_tokens == 0
    fresh = ask(new_bench(prefix_cache="off"), longest, context_shift=False)
    assert again.token_ids == fresh.token_ids


def test_the_prompt_is_kept_and_what_follows_it_is_dropped_by_halves(new_bench: NewBench) -> None:
    bench = new_bench(speculation="off")
    bench.submit(Submit(call=1, prompt=PROMPT, sampling=GREEDY, max_tokens=300, context_shift=True))
    lengths: list[int] = []
    while not bench.heard[1].is_over:
        bench.turn()
        lengths.append(bench.heard.steps[-1].kv_cells_used)
    drops = [(one, other) for one, other in pairwise(lengths) if 0 < other < one]
    after = SHARE - (SHARE - len(PROMPT)) // 2 + 1
    assert drops
    assert set(drops) == {(SHARE, after)}


def test_a_shifted_call_can_be_cancelled_and_leaves_nothing(new_bench: NewBench) -> None:
    bench = new_bench(speculation="off")
    bench.submit(Submit(call=1, prompt=PROMPT, sampling=GREEDY, max_tokens=300, context_shift=True))
    bench.turn(2 * SHARE)
    bench.serving.cancel(CancelCall(call=1))
    bench.turn()
    assert not any(bench.serving.store.cache.length(sequence) for sequence in range(2))


def test_a_call_resumed_behind_its_context_goes_on(new_bench: NewBench) -> None:
    whole = ask(new_bench())
    bench = new_bench()
    before = SHARE - len(PROMPT)
    for cut in (1, before - 1, before):
        rest = ask(bench, resume_ids=tuple(whole.token_ids[:cut]))
        assert whole.token_ids[:cut] + rest.token_ids == whole.token_ids
    # behind a shift it may go on otherwise, but it does go on
    rest = ask(bench, resume_ids=tuple(whole.token_ids[:250]))
    assert ending(rest) == ("length", 300)
    assert len(rest.token_ids) == 50


def test_in_a_single_layer_what_is_shifted_is_what_its_tokens_alone_would_give(
    new_bench: NewBench,
) -> None:
    # keys and values of the first layer have seen nothing but their own token: only a wrong
    # position, or a token that should not be there, can make a difference
    whole = ask(new_bench("one layer")).token_ids
    bench = new_bench("one layer")
    assert len(set(whole)) > 10
    for cut in range(1, 300, 13):
        rest = ask(bench, resume_ids=tuple(whole[:cut])).token_ids
        assert whole[:cut] + rest == whole


def test_what_was_shifted_is_not_moved_elsewhere(new_bench: NewBench, tmp_path: Path) -> None:
    bench = new_bench()
    bench.submit(Submit(call=1, prompt=PROMPT, sampling=GREEDY, max_tokens=300, context_shift=True))
    command = ExportSequence(call=9, target=1, path=str(tmp_path / "state"), most_bytes=1 << 30)
    bench.turn(3)
    assert isinstance(bench.serving.moved(command), Exported)
    bench.turn(2 * SHARE)
    refused = bench.serving.moved(command)
    assert isinstance(refused, QueryRefused)
    assert "shifted" in refused.message
    bench.serving.cancel(CancelCall(call=1))
    bench.turn()


@pytest.mark.parametrize(("kind", "unified"), [("recurrent", "off"), ("ranged", "on")])
def test_where_a_memory_cannot_be_shifted_the_wish_is_refused(
    new_bench: NewBench, kind: str, unified: str
) -> None:
    bench = new_bench(kind, unified_kv=unified)
    refused = ask(bench).refused
    assert refused is not None
    assert refused.code == RefusalCode.UNSUPPORTED
    assert refused.facts["param"] == "context_shift"
    assert "leave it out" in refused.message
