"""Calls that wait, give way and come back: whatever happens to them there, none is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.engine import seating
from agent.engine.frames import CancelCall, ContinueCall, PauseCall, Sampling, Submit
from agent.engine.llama.log import LlamaLog, start_backend
from agent.engine.llama.model import Model
from protocol.refusals import RefusalCode
from tests.support.engine_bench import EngineBench
from tests.support.engine_benches import NewBench, benches, loaded
from tests.support.tiny_gguf import write_tiny_gguf
from tests.support.tiny_lora_gguf import write_tiny_lora

GREEDY = Sampling(temperature=0.0, ignore_eos=True)
SYSTEM = tuple(range(65, 91)) * 8
PROMPTS = [tuple((7 * number + index) % 250 for index in range(150)) for number in range(6)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("model")


@pytest.fixture(scope="module")
def log() -> LlamaLog:
    return start_backend()


@pytest.fixture(scope="module")
def model(log: LlamaLog, folder: Path) -> Iterator[Model]:
    path = write_tiny_gguf(folder / "tiny.gguf")
    with loaded(log, {"tiny": path}) as models:
        yield models["tiny"]


@pytest.fixture
def new_bench(model: Model, log: LlamaLog) -> Iterator[NewBench]:
    with benches({"tiny": model}, log, slots=4) as new:
        yield new


def start(bench: EngineBench, call: int, prompt: tuple[int, ...], **fields: object) -> None:
    settings = {"sampling": GREEDY, "max_tokens": 8}
    bench.submit(Submit(call=call, prompt=prompt, **(settings | fields)))  # type: ignore[arg-type]  # of any test


def reason(bench: EngineBench, call: int) -> str:
    ended = bench.heard[call].ended
    assert ended is not None
    return ended.finish_reason


def test_a_call_can_be_cancelled_while_it_waits_for_a_prefix(new_bench: NewBench) -> None:
    bench = new_bench(micro_batch_tokens=32)
    start(bench, 1, (*SYSTEM, 1))
    bench.turn()
    start(bench, 2, (*SYSTEM, 2))
    start(bench, 3, (*SYSTEM, 3))
    bench.turn()
    bench.serving.cancel(CancelCall(call=2))
    bench.finish()
    assert [reason(bench, call) for call in (1, 2, 3)] == ["length", "cancelled", "length"]
    assert bench.heard[2].token_ids == []


def crowd(bench: EngineBench, *, first: int = 1) -> None:
    """Two calls that cannot both have the cells they need, the second less important."""
    start(bench, first, PROMPTS[1][:100], max_tokens=250, priority=1)
    start(bench, first + 1, PROMPTS[2][:100], max_tokens=250)


def until_suspended(bench: EngineBench) -> None:
    while len(list(bench.serving.seating.scheduler)) == 2:
        bench.turn()


def test_who_stands_still_for_others_is_told_with_each_step(new_bench: NewBench) -> None:
    bench = new_bench(unified_kv="on", context_tokens=512, micro_batch_tokens=32)
    start(bench, 1, (*SYSTEM, 1), max_tokens=1)
    bench.turn()
    start(bench, 2, (*SYSTEM, 2), max_tokens=1)
    assert waiting(bench) == (2,)
    bench.finish()
    crowd(bench, first=3)
    until_suspended(bench)
    assert waiting(bench) == (4,)
    bench.finish()
    bench.submit(Submit(call=5, prompt=(1, 2), max_tokens=2))
    assert waiting(bench) == ()
    bench.finish()


def test_who_waits_for_a_prompt_that_is_kept_warm_is_told_to_go_on_with_it(
    new_bench: NewBench,
) -> None:
    bench = new_bench(micro_batch_tokens=32)
    start(bench, -1, SYSTEM, warm=True)
    bench.turn()
    start(bench, 2, (*SYSTEM, 2), max_tokens=1)
    assert waiting(bench) == ()
    bench.finish()
    told = [part.done for step in bench.heard.steps for part in step.prefill if part.call == 2]
    assert told == sorted(set(told))
    assert len(told) > len(SYSTEM) // 32 - 3
    ended = bench.heard[2].ended
    assert ended is not None
    assert ended.usage.cached_tokens >= len(SYSTEM) - 1


def waiting(bench: EngineBench) -> tuple[int, ...]:
    """What the next step says."""
    step = bench.serving.turn()
    assert step is not None
    bench.heard.take(step)
    return step.waiting


def test_a_call_can_be_cancelled_while_others_have_its_cells(new_bench: NewBench) -> None:
    bench = new_bench(unified_kv="on", context_tokens=512)
    crowd(bench)
    until_suspended(bench)
    bench.serving.cancel(CancelCall(call=2))
    bench.finish()
    assert [reason(bench, call) for call in (1, 2)] == ["length", "cancelled"]


def test_a_call_paused_while_others_have_its_cells_comes_back_when_it_is_continued(
    new_bench: NewBench,
) -> None:
    bench = new_bench(unified_kv="on", context_tokens=512)
    crowd(bench)
    until_suspended(bench)
    bench.serving.pause(PauseCall(call=2))
    while not bench.heard[1].is_over:
        bench.turn()
    bench.turn(3)
    assert not bench.serving.has_work
    bench.serving.go_on(ContinueCall(call=2))
    bench.finish()
    plain = new_bench(prefix_cache="off", slots=1)
    alone = plain.call(PROMPTS[2][:100], sampling=GREEDY, max_tokens=250)
    assert bench.heard[2].token_ids == alone.token_ids


def test_paused_calls_give_way_to_one_that_needs_their_cells(new_bench: NewBench) -> None:
    bench = new_bench(unified_kv="on", context_tokens=512)
    crowd(bench)
    until_suspended(bench)
    bench.serving.pause(PauseCall(call=1))
    bench.finish()
    assert [bench.heard[call].is_over for call in (1, 2)] == [False, True]
    bench.serving.go_on(ContinueCall(call=1))
    bench.finish()
    plain = new_bench(prefix_cache="off", slots=1)
    for call in (1, 2):
        alone = plain.call(PROMPTS[call][:100], sampling=GREEDY, max_tokens=250)
        assert bench.heard[call].token_ids == alone.token_ids


def test_new_calls_are_taken_while_all_that_gave_way_are_paused(new_bench: NewBench) -> None:
    bench = new_bench(unified_kv="on", context_tokens=512, slots=3)
    crowd(bench)
    until_suspended(bench)
    bench.serving.pause(PauseCall(call=2))
    while not bench.heard[1].is_over:
        bench.turn()
    for call in (3, 4, 5):
        start(bench, call, PROMPTS[call][:20])
    bench.serving.go_on(ContinueCall(call=2))
    bench.finish()
    assert [reason(bench, call) for call in (2, 3, 4)] == ["length"] * 3
    refused = bench.heard[5].refused
    assert refused is not None, "the slot of the one that gave way was given to another"
    assert refused.code == RefusalCode.NO_FREE_SLOT


def test_one_that_gave_way_moves_nothing_in_the_cache_until_there_may_be_room(
    new_bench: NewBench,
) -> None:
    bench = new_bench(unified_kv="on", context_tokens=512, host_cache_bytes=1 << 24)
    crowd(bench)
    until_suspended(bench)
    bench.turn()
    before = len(bench.heard.steps)
    while not bench.heard[1].is_over:
        bench.turn()
    steps = bench.heard.steps[before:-1]
    assert len(steps) > 5
    assert not any(step.cache for step in steps)
    bench.finish()


@pytest.mark.parametrize("host_bytes", [0, 1 << 24])
def test_what_a_call_prefilled_itself_is_not_told_as_cached_when_it_comes_back(
    new_bench: NewBench, host_bytes: int
) -> None:
    bench = new_bench(unified_kv="on", context_tokens=512, host_cache_bytes=host_bytes)
    crowd(bench)
    bench.finish()
    ended = bench.heard[2].ended
    assert ended is not None
    assert ended.usage.cached_tokens == 0


def test_a_call_without_room_costs_nobody_a_cached_prefix(new_bench: NewBench) -> None:
    bench = new_bench(unified_kv="on", context_tokens=512)
    for prompt in PROMPTS[:2]:
        bench.call(prompt[:100], sampling=GREEDY, max_tokens=4)
    start(bench, 1, PROMPTS[2], max_tokens=8)
    bench.turn()
    start(bench, 2, PROMPTS[3] + PROMPTS[4] + PROMPTS[5])
    bench.turn()
    refused = bench.heard[2].refused
    assert refused is not None
    assert refused.code == RefusalCode.NO_FREE_SLOT
    bench.finish()
    ended = [
        bench.call((*prompt[:100], 7), sampling=GREEDY, max_tokens=1).ended
        for prompt in PROMPTS[:2]
    ]
    assert [one.usage.cached_tokens for one in ended if one is not None] == [100, 100]


def test_a_call_that_waits_for_a_prefix_can_give_way_too(new_bench: NewBench) -> None:
    bench = new_bench(unified_kv="on", context_tokens=512, micro_batch_tokens=32)
    start(bench, 1, PROMPTS[3][:120], max_tokens=300, priority=2)
    bench.turn(230)
    start(bench, 2, (*SYSTEM[:60], 1), max_tokens=20, priority=1)
    start(bench, 3, (*SYSTEM[:60], 2), max_tokens=20)
    bench.turn()
    assert bench.serving.seating.suspend_one()
    bench.finish()
    plain = new_bench(prefix_cache="off", slots=1)
    for call in (2, 3):
        alone = plain.call((*SYSTEM[:60], call - 1), sampling=GREEDY, max_tokens=20)
        assert bench.heard[call].token_ids == alone.token_ids


def test_one_that_is_alone_gives_way_to_nobody_and_is_tried_again(new_bench: NewBench) -> None:
    bench = new_bench(unified_kv="on", context_tokens=512)
    expected = bench.call(SYSTEM, sampling=GREEDY, max_tokens=8).token_ids
    decode, codes = bench.context.decode, iter([1])
    bench.context.decode = lambda: next(codes, 0) or decode()  # type: ignore[method-assign]  # a fault put in
    again = bench.call(SYSTEM, sampling=GREEDY, max_tokens=8)
    assert again.failed is None
    assert again.token_ids == expected


def test_adapter_sets_that_nobody_uses_are_forgotten(
    new_bench: NewBench, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_tiny_lora(folder / "lora.gguf")
    bench = new_bench(adapters=(("poet", str(path)),), prefix_cache="off")
    expected = {
        scale: bench.call(
            SYSTEM[:30], sampling=GREEDY, max_tokens=8, adapters=(("poet", scale),)
        ).token_ids
        for scale in (0.5, 1.0, 1.5)
    }
    monkeypatch.setattr(seating, "MAX_GROUPS", 2)
    bench.call(SYSTEM[:30], sampling=GREEDY, max_tokens=1, adapters=(("poet", 9.0),))
    for call, scale in enumerate(expected):
        start(bench, call, SYSTEM[:30], adapters=(("poet", scale),))
        bench.turn()
    bench.finish()
    assert [bench.heard[call].token_ids for call in range(3)] == list(expected.values())
