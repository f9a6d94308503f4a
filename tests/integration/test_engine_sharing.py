"""What calls share in the KV cache, what is kept for later, what gives way: a tiny random model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agent.engine.frames import CancelCall, PauseCall, Sampling, Step, Submit
from agent.engine.llama.log import LlamaLog, start_backend
from agent.engine.llama.model import Model
from tests.support.engine_bench import EngineBench
from tests.support.engine_benches import NewBench, benches, loaded
from tests.support.engine_calls import Heard
from tests.support.tiny_gguf import write_tiny_gguf

GREEDY = Sampling(temperature=0.0, ignore_eos=True)
SYSTEM = tuple(range(65, 91)) * 8
PREFIXES = [tuple((7 * number + index) % 250 for index in range(150)) for number in range(6)]


@pytest.fixture(scope="module")
def log() -> LlamaLog:
    return start_backend()


@pytest.fixture(scope="module")
def model(log: LlamaLog, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    path = write_tiny_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf")
    with loaded(log, {"tiny": path}) as models:
        yield models["tiny"]


@pytest.fixture
def new_bench(model: Model, log: LlamaLog) -> Iterator[NewBench]:
    with benches({"tiny": model}, log, slots=4) as new:
        yield new


@pytest.fixture(params=["off", "on"], ids=["streams", "unified"])
def bench(request: pytest.FixtureRequest, new_bench: NewBench) -> EngineBench:
    return new_bench(unified_kv=request.param)


def cached(heard: Heard) -> int:
    assert heard.ended is not None
    return heard.ended.usage.cached_tokens


def start(bench: EngineBench, call: int, prompt: tuple[int, ...], **fields: object) -> None:
    settings = {"sampling": GREEDY, "max_tokens": 8}
    bench.submit(Submit(call=call, prompt=prompt, **(settings | fields)))  # type: ignore[arg-type]  # of any test


def test_a_conversation_that_goes_on_prefills_only_what_is_new(bench: EngineBench) -> None:
    first = bench.call(SYSTEM, sampling=GREEDY, max_tokens=8)
    second = bench.call((*SYSTEM, *first.token_ids, 1, 2, 3), sampling=GREEDY, max_tokens=8)
    # the last token was never decoded: nothing came behind it
    assert cached(second) == len(SYSTEM) + len(first.token_ids) - 1


def test_what_is_cached_of_a_prompt_is_known_when_its_call_is_accepted(bench: EngineBench) -> None:
    bench.call(SYSTEM, sampling=GREEDY, max_tokens=1)
    again = bench.call((*SYSTEM, 1, 2), sampling=GREEDY, max_tokens=1)
    assert again.accepted is not None
    assert again.accepted.cached_tokens == cached(again) == len(SYSTEM)


def test_calls_that_come_at_once_prefill_their_common_prefix_once(bench: EngineBench) -> None:
    for call in range(4):
        start(bench, call, (*SYSTEM, call))
    bench.finish()
    assert [cached(bench.heard[call]) for call in range(4)] == [0, *[len(SYSTEM)] * 3]
    alone = bench.call((*SYSTEM, 2), sampling=GREEDY, max_tokens=8)
    assert alone.token_ids == bench.heard[2].token_ids


@pytest.mark.parametrize("what", ["cancelled", "paused"])
def test_who_waits_for_a_prefix_goes_on_when_the_other_stops(
    new_bench: NewBench, what: str
) -> None:
    bench = new_bench(micro_batch_tokens=32)
    start(bench, 1, (*SYSTEM, 1))
    bench.turn()
    start(bench, 2, (*SYSTEM, 2))
    bench.turn()
    if what == "cancelled":
        bench.serving.cancel(CancelCall(call=1))
    else:
        bench.serving.pause(PauseCall(call=1))
    while not bench.heard[2].is_over:
        bench.turn()
    assert 0 < cached(bench.heard[2]) < len(SYSTEM)
    bench.serving.cancel(CancelCall(call=1))
    bench.finish()


def test_nothing_is_shared_across_scopes(bench: EngineBench) -> None:
    bench.call(SYSTEM, sampling=GREEDY, max_tokens=8, scope="alice")
    other = bench.call((*SYSTEM, 5), sampling=GREEDY, max_tokens=8, scope="bob")
    same = bench.call((*SYSTEM, 5, 6), sampling=GREEDY, max_tokens=8, scope="alice")
    assert (cached(other), cached(same)) == (0, len(SYSTEM))


def test_without_a_prefix_cache_every_prompt_is_prefilled(new_bench: NewBench) -> None:
    bench = new_bench(prefix_cache="off")
    bench.call(SYSTEM, sampling=GREEDY, max_tokens=8)
    assert cached(bench.call((*SYSTEM, 1), sampling=GREEDY, max_tokens=8)) == 0


def test_prefixes_that_gave_way_come_back_from_host_memory(new_bench: NewBench) -> None:
    bench = new_bench(slots=2, host_cache_bytes=1 << 24)
    first = [bench.call(prompt, sampling=GREEDY, max_tokens=8) for prompt in PREFIXES]
    again = [bench.call((*prompt, 1), sampling=GREEDY, max_tokens=8) for prompt in PREFIXES]
    assert [cached(heard) for heard in first] == [0] * 6
    assert [cached(heard) for heard in again] == [len(prompt) for prompt in PREFIXES]
    plain = new_bench(prefix_cache="off")
    alone = [plain.call((*prompt, 1), sampling=GREEDY, max_tokens=8) for prompt in PREFIXES]
    assert [heard.token_ids for heard in again] == [heard.token_ids for heard in alone]


def test_host_memory_is_bounded(new_bench: NewBench) -> None:
    bench = new_bench(slots=1, host_cache_bytes=1 << 24)
    for prompt in PREFIXES[:2]:
        bench.call(prompt, sampling=GREEDY, max_tokens=1)
    one_entry = bench.serving.store.host_bytes_used
    small = new_bench(slots=1, host_cache_bytes=2 * one_entry)
    for prompt in PREFIXES:
        small.call(prompt, sampling=GREEDY, max_tokens=1)
        assert small.serving.store.host_bytes_used <= 2 * one_entry
    assert small.serving.store.host_bytes_used > one_entry


def test_a_warm_prompt_generates_nothing_and_is_there_for_others(new_bench: NewBench) -> None:
    bench = new_bench(slots=1, host_cache_bytes=1 << 24)
    warmed = bench.call(SYSTEM, sampling=GREEDY, warm=True)
    assert warmed.token_ids == []
    assert warmed.ended is not None
    assert warmed.ended.usage.completion_tokens == 0
    for prompt in PREFIXES:
        bench.call(prompt, sampling=GREEDY, max_tokens=1)
    assert cached(bench.call((*SYSTEM, 9), sampling=GREEDY, max_tokens=1)) == len(SYSTEM)


def test_a_warm_prompt_is_there_for_every_scope_and_what_follows_it_is_not(
    new_bench: NewBench,
) -> None:
    bench = new_bench(slots=2, host_cache_bytes=1 << 24)
    bench.call(SYSTEM, sampling=GREEDY, warm=True)
    prompt = (*SYSTEM, *PREFIXES[1])

    def found(scope: str) -> int:
        return cached(bench.call(prompt, sampling=GREEDY, max_tokens=1, scope=scope))

    assert [found(scope) for scope in ("alice", "bob", "")] == [len(SYSTEM)] * 3
    assert found("alice") > len(SYSTEM)


def test_when_cells_run_out_calls_give_way_and_come_back_unharmed(new_bench: NewBench) -> None:
    bench = new_bench(unified_kv="on", context_tokens=512, host_cache_bytes=1 << 24)
    lengths = {1: 200, 2: 150, 3: 60, 4: 30}
    for call, length in lengths.items():
        start(bench, call, PREFIXES[call][:40], max_tokens=length)
    bench.finish()
    plain = new_bench(prefix_cache="off", slots=1)
    for call, length in lengths.items():
        heard = bench.heard[call]
        assert heard.ended is not None
        assert (heard.ended.finish_reason, len(heard.token_ids)) == ("length", length)
        alone = plain.call(PREFIXES[call][:40], sampling=GREEDY, max_tokens=length)
        assert heard.token_ids == alone.token_ids


def test_the_least_important_gives_way_first(new_bench: NewBench) -> None:
    bench = new_bench(unified_kv="on", context_tokens=512)
    start(bench, 1, PREFIXES[1][:100], max_tokens=200, priority=0)
    start(bench, 2, PREFIXES[2][:100], max_tokens=200, priority=5)
    bench.finish()
    ends = {call: at for at, step in enumerate(bench.heard.steps) for call in _ended(step)}
    assert ends[2] < ends[1]


def test_a_prompt_beside_whose_cells_are_in_use_is_refused_for_now(new_bench: NewBench) -> None:
    bench = new_bench(unified_kv="on", context_tokens=512)
    start(bench, 1, tuple(PREFIXES[1]) * 3, max_tokens=40)
    bench.turn(2)
    start(bench, 2, tuple(PREFIXES[2]), max_tokens=40)
    bench.turn()
    refused = bench.heard[2].refused
    assert refused is not None
    assert "no room" in refused.message
    bench.finish()
    start(bench, 3, tuple(PREFIXES[2]), max_tokens=40)
    bench.finish()
    assert bench.heard[3].ended is not None


def test_the_news_of_the_cache_add_up_to_what_it_holds(new_bench: NewBench) -> None:
    bench = new_bench(slots=2, host_cache_bytes=60_000)
    told: dict[int, int] = {}
    for prompt in (*PREFIXES, *PREFIXES[:3], SYSTEM, (*SYSTEM, 1)):
        bench.call(prompt, sampling=GREEDY, max_tokens=4)
    for step in bench.heard.steps:
        for news in step.cache:
            told[news.holder] = news.tokens
    cache = bench.serving.store.cache
    held = {holder: cache.length(holder) for holder in cache.tree if cache.length(holder)}
    assert {holder: tokens for holder, tokens in told.items() if tokens} == held


def _ended(step: Step) -> list[int]:
    return [ended.call for ended in step.ended]
