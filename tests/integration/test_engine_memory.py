"""llama.cpp's memory through its few doors: what is asked of it is checked before it can abort."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from agent.engine.frames import Sampling, Submit
from agent.engine.llama.log import LlamaLog, start_backend
from agent.engine.llama.memory import Memory
from agent.engine.llama.model import Model
from tests.support.engine_bench import EngineBench
from tests.support.engine_benches import NewBench, benches, loaded
from tests.support.engine_invariants import check
from tests.support.tiny_gguf import write_tiny_gguf
from tests.support.tiny_kinds_gguf import WINDOW, write_tiny_kind

GREEDY = Sampling(temperature=0.0, ignore_eos=True)
PROMPT = tuple(range(65, 91)) * 5
OTHER = tuple(range(33, 59)) * 5


@pytest.fixture(scope="module")
def log() -> LlamaLog:
    return start_backend()


@pytest.fixture(scope="module")
def models(log: LlamaLog, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Model]]:
    folder = tmp_path_factory.mktemp("model")
    paths = {
        "ranged": write_tiny_gguf(folder / "tiny.gguf"),
        "window": write_tiny_kind("window", folder / "window.gguf"),
        "recurrent": write_tiny_kind("recurrent", folder / "recurrent.gguf"),
    }
    with loaded(log, paths) as models:
        yield models


@pytest.fixture
def new_bench(models: dict[str, Model], log: LlamaLog) -> Iterator[NewBench]:
    with benches(models, log, check, slots=2, context_tokens=1024, host_cache_bytes=1 << 24) as new:
        yield new


def ask(bench: EngineBench, prompt: tuple[int, ...], max_tokens: int = 8) -> list[int]:
    return bench.call(prompt, sampling=GREEDY, max_tokens=max_tokens).token_ids


@pytest.mark.parametrize(
    "asked",
    [
        lambda memory: memory.forget(2),
        lambda memory: memory.forget(-1),
        lambda memory: memory.forget(0, -1),
        lambda memory: memory.copy(0, 0, 1),
        lambda memory: memory.copy(0, 1, 0),
        lambda memory: memory.copy(0, 2, 1),
        lambda memory: memory.holds(2, 1),
        lambda memory: memory.fewest(2),
        lambda memory: memory.save(2),
        lambda memory: memory.restore(2, np.zeros(9, np.uint8), 1),
        lambda memory: memory.shift(0, -1, 1),
        lambda memory: memory.shift(0, 1, 0),
    ],
)
def test_what_would_abort_llama_cpp_is_refused_first(
    new_bench: NewBench, asked: Callable[[Memory], object]
) -> None:
    with pytest.raises(ValueError, match=r"sequence|position|tokens"):
        asked(new_bench().context.memory)


def test_a_memory_that_cannot_shift_is_not_asked_to(new_bench: NewBench) -> None:
    memory = new_bench("recurrent").context.memory
    assert not memory.can_shift
    with pytest.raises(ValueError, match="cannot drop"):
        memory.shift(0, 1, 1)


def test_a_state_that_is_none_is_not_restored(new_bench: NewBench) -> None:
    bench = new_bench()
    assert not bench.context.memory.restore(0, np.zeros(64, np.uint8), 3)
    assert bench.context.memory.holds(0, 0)


def test_a_saved_window_goes_on_from_its_end_only(new_bench: NewBench) -> None:
    bench = new_bench("window")
    memory = bench.context.memory
    ask(bench, PROMPT, 1)
    state = memory.save(0)
    assert memory.fewest(0) == 0
    assert memory.restore(1, state, len(PROMPT))
    assert memory.fewest(1) == len(PROMPT) - 1
    assert not memory.restore(1, state, len(PROMPT) - WINDOW)
    # nothing of it is left
    assert memory.holds(1, 0)


def test_while_a_copy_waits_for_the_next_decode_nothing_is_saved_or_restored(
    new_bench: NewBench,
) -> None:
    bench = new_bench("window")
    memory, store = bench.context.memory, bench.serving.store
    bench.submit(Submit(call=1, prompt=PROMPT, sampling=GREEDY, max_tokens=30))
    bench.turn(3)
    state = memory.save(0)
    bench.submit(Submit(call=2, prompt=(*PROMPT, 7), sampling=GREEDY, max_tokens=4))
    assert memory.holds(1, len(PROMPT))
    assert not len(memory.save(1))
    store.checkpoint(1, np.array(PROMPT, np.int32))
    assert store.host_bytes_used == 0
    bench.turn()
    assert len(memory.save(1))
    bench.finish()
    assert memory.copy(0, 1, 3)
    assert not memory.restore(1, state, len(PROMPT))
    assert memory.holds(1, 0)
    store.cache.drop(1)


def test_what_llama_cpp_cannot_copy_is_prefilled(
    new_bench: NewBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = new_bench()
    expected = ask(new_bench(prefix_cache="off"), (*PROMPT, 7))
    bench.submit(Submit(call=1, prompt=PROMPT, sampling=GREEDY, max_tokens=30))
    bench.turn(3)
    monkeypatch.setattr(bench.context.memory, "copy", lambda *_: False)
    heard = bench.call((*PROMPT, 7), sampling=GREEDY, max_tokens=8)
    assert heard.token_ids == expected
    assert heard.ended is not None
    assert heard.ended.usage.cached_tokens == 0


def test_what_llama_cpp_cannot_restore_is_prefilled(
    new_bench: NewBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = new_bench(slots=1, context_tokens=512)
    expected = ask(new_bench(prefix_cache="off"), (*PROMPT, 7))
    for prompt in (PROMPT, OTHER):
        ask(bench, prompt)

    monkeypatch.setattr(bench.context.memory, "restore", lambda *_: False)
    heard = bench.call((*PROMPT, 7), sampling=GREEDY, max_tokens=8)
    assert heard.token_ids == expected
    assert heard.ended is not None
    assert heard.ended.usage.cached_tokens == 0


@pytest.mark.parametrize("fault", ["forget", "holds"])
def test_what_llama_cpp_cannot_keep_is_prefilled(
    new_bench: NewBench, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    bench = new_bench(slots=1, context_tokens=512)
    expected = ask(new_bench(prefix_cache="off"), (*PROMPT, 7))
    memory = bench.context.memory
    ask(bench, PROMPT)
    forget, holds = memory.forget, memory.holds
    faults: dict[str, Callable[..., bool]] = {
        "forget": lambda sequence, start=0: not start and forget(sequence),
        "holds": lambda sequence, length: not length and holds(sequence, length),
    }
    monkeypatch.setattr(memory, fault, faults[fault])
    monkeypatch.setattr(bench, "after_turn", lambda: None)
    heard = bench.call((*PROMPT, 7), sampling=GREEDY, max_tokens=8)
    assert heard.token_ids == expected
    # not kept after the end either
    assert memory.holds(0, 0)
    monkeypatch.undo()
    assert ask(bench, (*PROMPT, 7)) == expected


def test_with_all_sequences_in_use_there_is_no_claim(new_bench: NewBench) -> None:
    bench = new_bench()
    for call in range(2):
        bench.submit(Submit(call=call, prompt=PROMPT[call:], sampling=GREEDY, max_tokens=4))
    tokens = np.array(OTHER, np.int32)
    assert bench.serving.store.claim("", tokens, prefilling=frozenset(), expected=1) is None
    bench.finish()


def test_a_saved_state_without_room_in_the_cache_stays_where_it_is(new_bench: NewBench) -> None:
    bench = new_bench(unified_kv="on", context_tokens=512)
    prompt = (*PROMPT[:60], 7)
    expected = ask(new_bench(prefix_cache="off", slots=1), prompt, 4)
    bench.call(PROMPT, sampling=GREEDY, warm=True)
    bench.submit(Submit(call=1, prompt=OTHER * 3, sampling=GREEDY, max_tokens=60))
    bench.turn(3)
    # the call itself has room, the state as a whole has not
    bench.submit(Submit(call=2, prompt=prompt, sampling=GREEDY, max_tokens=4))
    bench.finish()
    assert bench.heard[2].token_ids == expected
    again = bench.call((*PROMPT, 7), sampling=GREEDY, max_tokens=4)
    assert again.ended is not None
    assert again.ended.usage.cached_tokens == len(PROMPT)


def test_without_host_memory_a_warm_prompt_is_warm_as_long_as_nobody_needs_its_place(
    new_bench: NewBench,
) -> None:
    bench = new_bench(host_cache_bytes=0)
    bench.call(PROMPT, sampling=GREEDY, warm=True)
    heard = bench.call((*PROMPT, 7), sampling=GREEDY, max_tokens=4)
    assert heard.ended is not None
    assert heard.ended.usage.cached_tokens == len(PROMPT)


def test_a_saved_state_that_cannot_be_restored_is_tried_once(
    new_bench: NewBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = new_bench(slots=1)
    expected = ask(bench, PROMPT)
    ask(bench, OTHER)
    tried: list[object] = []

    def damaged(*given: object) -> bool:
        tried.append(given)
        return False

    monkeypatch.setattr(bench.context.memory, "restore", damaged)
    assert [ask(bench, prompt) for prompt in (PROMPT, PROMPT)] == [expected, expected]
    assert len(tried) == 1
    monkeypatch.undo()
    ask(bench, OTHER)
    again = bench.call(PROMPT, sampling=GREEDY, max_tokens=8)
    assert again.token_ids == expected
    assert again.ended is not None
    assert again.ended.usage.cached_tokens == len(PROMPT) - 1
