"""Models whose memory is no plain attention cache: whatever is shared, each call's tokens are those
that it gets alone, without any sharing."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from agent.engine.frames import CancelCall, ContinueCall, EngineOptions, PauseCall, Sampling, Submit
from agent.engine.llama.log import LlamaLog, start_backend
from agent.engine.llama.model import Model
from agent.engine.query_frames import Exported, ExportSequence, Imported, ImportSequence
from tests.support.engine_bench import EngineBench
from tests.support.engine_calls import Heard
from tests.support.engine_invariants import check_idle, checked
from tests.support.tiny_kinds_gguf import WINDOW, Kind, write_tiny_kind

GREEDY = Sampling(temperature=0.0, ignore_eos=True)
SYSTEM = tuple(range(65, 91)) * 5
"""Longer than the window."""
PROMPTS = [tuple((7 * number + index) % 250 for index in range(100)) for number in range(6)]
HOST_BYTES = 1 << 24
KINDS: tuple[Kind, ...] = ("recurrent", "hybrid", "window")

Prompt = tuple[int, ...]
NewBench = Callable[..., EngineBench]
Alone = Callable[[Prompt, int], list[int]]


@pytest.fixture(scope="module")
def log() -> LlamaLog:
    return start_backend()


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    kind: Kind = request.param
    return kind


@pytest.fixture(scope="module")
def model(kind: Kind, log: LlamaLog, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    path = write_tiny_kind(kind, tmp_path_factory.mktemp("model") / f"{kind}.gguf")
    model = Model(EngineOptions(model_path=str(path)), log)
    yield model
    model.close()


def options(**fields: object) -> EngineOptions:
    settings = {"slots": 4, "threads": 1, "cache_type": "f32", "flash_attention": "off"}
    return EngineOptions(model_path="", **(settings | fields))  # type: ignore[arg-type]  # of any test


@pytest.fixture(scope="module")
def alone(model: Model, log: LlamaLog) -> Iterator[Alone]:
    """What a call gets with nobody beside it and nothing cached."""
    bench = EngineBench(model, log, options(slots=1, prefix_cache="off", speculation="off"))
    known: dict[tuple[Prompt, int], list[int]] = {}

    def tokens(prompt: Prompt, max_tokens: int) -> list[int]:
        if (prompt, max_tokens) not in known:
            heard = bench.call(prompt, sampling=GREEDY, max_tokens=max_tokens)
            known[prompt, max_tokens] = heard.token_ids
        return known[prompt, max_tokens]

    yield tokens
    bench.close()


@pytest.fixture(params=["off", "on"], ids=["streams", "unified"])
def new_bench(request: pytest.FixtureRequest, model: Model, log: LlamaLog) -> Iterator[NewBench]:
    """Benches whose state is compared with llama.cpp's after every turn, and at the end."""
    made: list[EngineBench] = []

    def new(**fields: object) -> EngineBench:
        settings = {"unified_kv": request.param, "host_cache_bytes": HOST_BYTES}
        made.append(checked(EngineBench(model, log, options(**(settings | fields)))))
        return made[-1]

    yield new
    for bench in made:
        check_idle(bench)
        bench.close()


def cached(heard: Heard) -> int:
    assert heard.ended is not None, heard
    return heard.ended.usage.cached_tokens


def start(bench: EngineBench, call: int, prompt: Prompt, max_tokens: int = 12) -> None:
    bench.submit(Submit(call=call, prompt=prompt, sampling=GREEDY, max_tokens=max_tokens))


def ask(bench: EngineBench, prompt: Prompt, max_tokens: int = 12) -> Heard:
    return bench.call(prompt, sampling=GREEDY, max_tokens=max_tokens)


def test_a_conversation_that_goes_on_prefills_only_what_is_new(
    new_bench: NewBench, alone: Alone
) -> None:
    bench, prompt, known = new_bench(), SYSTEM, 0
    for turn in range(4):
        heard = ask(bench, prompt)
        assert cached(heard) == known
        assert heard.token_ids == alone(prompt, 12)
        # the last token was never decoded: nothing came behind it
        known = len(prompt) + len(heard.token_ids) - 1
        prompt = (*prompt, *heard.token_ids, turn, 1, 2)


def test_calls_with_a_common_prefix_share_it_once_it_is_known_as_one(
    new_bench: NewBench, alone: Alone, kind: Kind
) -> None:
    bench = new_bench()
    prompts = [(*SYSTEM, number, 1, 2) for number in range(4)]
    heard = [ask(bench, prompt) for prompt in prompts]
    assert [one.token_ids for one in heard] == [alone(prompt, 12) for prompt in prompts]
    # a state as a whole is of use only where another call parted before
    learned = 1 if kind == "window" else 2
    assert [cached(one) for one in heard] == [0] * learned + [len(SYSTEM)] * (4 - learned)


def test_an_answer_is_made_again_from_the_prompt_that_is_cached(
    new_bench: NewBench, alone: Alone
) -> None:
    bench = new_bench()
    first, again = ask(bench, SYSTEM), ask(bench, SYSTEM)
    assert cached(again) == len(SYSTEM) - 1
    assert first.token_ids == again.token_ids == alone(SYSTEM, 12)


def test_calls_that_come_at_once_get_what_they_get_alone(new_bench: NewBench, alone: Alone) -> None:
    bench = new_bench(micro_batch_tokens=32)
    prompts = [(*SYSTEM, number, 1, 2) for number in range(4)]
    for number, prompt in enumerate(prompts):
        start(bench, number, prompt)
    bench.finish()
    assert [bench.heard[number].token_ids for number in range(4)] == [
        alone(prompt, 12) for prompt in prompts
    ]
    assert [cached(bench.heard[number]) for number in range(4)] == [0, *[len(SYSTEM)] * 3]


def test_two_that_wait_for_a_third_part_from_it_in_different_places(
    new_bench: NewBench, alone: Alone
) -> None:
    bench = new_bench(micro_batch_tokens=32)
    prompts = [SYSTEM, (*SYSTEM[:100], 1, 2), (*SYSTEM[:60], 1, 2)]
    for number, prompt in enumerate(prompts):
        start(bench, number, prompt)
    bench.finish()
    heard = [bench.heard[number] for number in range(3)]
    assert [one.token_ids for one in heard] == [alone(prompt, 12) for prompt in prompts]
    assert [cached(one) for one in heard] == [0, 100, 60]


def test_a_conversation_that_gave_way_comes_back_from_host_memory(
    new_bench: NewBench, alone: Alone, kind: Kind
) -> None:
    bench = new_bench(slots=2, context_tokens=1024)
    first = [ask(bench, prompt) for prompt in PROMPTS]
    longer = [(*prompt, *heard.token_ids, 1) for prompt, heard in zip(PROMPTS, first, strict=True)]
    again = [ask(bench, prompt) for prompt in longer]
    assert [one.token_ids for one in again] == [alone(prompt, 12) for prompt in longer]
    # what is kept of a state that is a whole: the prompt but for its last token
    least = 99 if kind != "window" else 111
    assert all(cached(one) >= least for one in again)


def test_without_host_memory_there_is_nothing_to_learn_and_nothing_wrong(
    new_bench: NewBench, alone: Alone
) -> None:
    bench = new_bench(slots=2, host_cache_bytes=0)
    for prompt in (*PROMPTS, *PROMPTS[:3], SYSTEM, (*SYSTEM, 1), (*SYSTEM, 2)):
        assert ask(bench, prompt).token_ids == alone(prompt, 12)


def test_a_warm_prompt_is_there_for_others(new_bench: NewBench, alone: Alone) -> None:
    bench = new_bench(slots=1, context_tokens=512)
    assert bench.call(SYSTEM, sampling=GREEDY, warm=True).token_ids == []
    for prompt in PROMPTS:
        ask(bench, prompt, 1)
    heard = ask(bench, (*SYSTEM, 9))
    assert cached(heard) >= len(SYSTEM) - 1
    assert heard.token_ids == alone((*SYSTEM, 9), 12)


def test_a_warm_prompt_goes_last(new_bench: NewBench) -> None:
    probe = new_bench(slots=1, context_tokens=512)
    probe.call(SYSTEM, sampling=GREEDY, warm=True)
    room = 2 * probe.serving.store.host_bytes_used
    bench = new_bench(slots=1, context_tokens=512, host_cache_bytes=room)
    bench.call(SYSTEM, sampling=GREEDY, warm=True)
    for prompt in PROMPTS * 2:
        ask(bench, prompt, 1)
    assert cached(ask(bench, (*SYSTEM, 9), 1)) >= len(SYSTEM) - 1


def test_cancelled_and_paused_calls_leave_nothing_wrong_behind(
    new_bench: NewBench, alone: Alone
) -> None:
    bench = new_bench(micro_batch_tokens=32)
    start(bench, 1, (*SYSTEM, 1), 40)
    bench.turn(2)
    start(bench, 2, (*SYSTEM, 2), 40)
    bench.serving.cancel(CancelCall(call=1))
    bench.turn(3)
    bench.serving.pause(PauseCall(call=2))
    start(bench, 3, (*SYSTEM, 3), 40)
    bench.turn(9)
    bench.serving.cancel(CancelCall(call=3))
    start(bench, 4, (*SYSTEM, 3), 40)
    # gone before it was ever decoded
    start(bench, 5, (*SYSTEM, 5), 40)
    bench.serving.cancel(CancelCall(call=5))
    start(bench, 6, (*SYSTEM, 5), 40)
    bench.turn()
    bench.serving.go_on(ContinueCall(call=2))
    bench.finish()
    assert bench.heard[2].token_ids == alone((*SYSTEM, 2), 40)
    assert bench.heard[4].token_ids == alone((*SYSTEM, 3), 40)
    assert bench.heard[6].token_ids == alone((*SYSTEM, 5), 40)


def test_a_call_that_went_elsewhere_goes_on_here(new_bench: NewBench, alone: Alone) -> None:
    bench = new_bench()
    whole = alone(SYSTEM, 30)
    ask(bench, SYSTEM, 30)
    for cut in (1, 12, 29):
        resumed = bench.call(SYSTEM, sampling=GREEDY, max_tokens=30, resume_ids=tuple(whole[:cut]))
        assert whole[:cut] + resumed.token_ids == whole


def test_a_call_that_moves_takes_its_state_with_it(
    new_bench: NewBench, alone: Alone, tmp_path: Path
) -> None:
    goes, takes = new_bench(speculation="off"), new_bench(speculation="off")
    start(goes, 1, SYSTEM, 30)
    goes.turn(12)
    path = str(tmp_path / "state")
    moved = goes.serving.moved(ExportSequence(call=9, target=1, path=path, most_bytes=1 << 30))
    assert isinstance(moved, Exported)
    said = tuple(goes.heard[1].token_ids)
    goes.serving.cancel(CancelCall(call=1))
    goes.turn()
    ask(takes, PROMPTS[0])
    known = (*SYSTEM, *said)[: moved.tokens]
    command = ImportSequence(
        call=9, scope="", token_ids=known, path=path, size_bytes=moved.size_bytes
    )
    # a second time nothing is lost
    assert isinstance(takes.serving.moved(command), Imported)
    assert isinstance(takes.serving.moved(command), Imported)
    rest = takes.call(SYSTEM, sampling=GREEDY, max_tokens=30, resume_ids=said)
    assert [*said, *rest.token_ids] == alone(SYSTEM, 30)
    assert cached(rest) == len(SYSTEM)


def test_drafts_are_for_memory_that_can_be_cut_only(
    new_bench: NewBench, alone: Alone, kind: Kind
) -> None:
    bench = new_bench(slots=1, context_tokens=512)
    # what it says to this is what it said: its own answers are the likeliest drafts
    answer = alone(SYSTEM, 60)
    prompt = (*SYSTEM, *answer, *SYSTEM)
    assert ask(bench, prompt, 60).token_ids == alone(prompt, 60)
    longest = max(len(tokens.token_ids) for step in bench.heard.steps for tokens in step.tokens)
    assert longest == 1 or kind == "window"


def test_when_cells_run_out_calls_give_way_and_come_back_unharmed(
    new_bench: NewBench, alone: Alone
) -> None:
    bench = new_bench(context_tokens=512)
    lengths = {1: 80, 2: 80, 3: 60, 4: 30}
    for call, length in lengths.items():
        start(bench, call, PROMPTS[call][:40], length)
    bench.finish()
    for call, length in lengths.items():
        assert bench.heard[call].token_ids == alone(PROMPTS[call][:40], length)


def test_a_decode_that_fails_harms_nobody_it_does_not_have_to(
    new_bench: NewBench, alone: Alone
) -> None:
    bench = new_bench(micro_batch_tokens=32)
    decode, codes = bench.context.decode, iter([0, 0, -3, 0, -3, 0, 0, 0, 0, 1])

    def failing() -> int:
        return next(codes, 0) or decode()

    bench.context.decode = failing  # type: ignore[method-assign]  # the one thing that is not real
    for number in range(3):
        start(bench, number, (*SYSTEM, number), 30)
    bench.finish()
    told = [bench.heard[number] for number in range(3)]
    for number, heard in enumerate(told):
        assert heard.token_ids == alone((*SYSTEM, number), 30)[: len(heard.token_ids)]
    assert sum(heard.failed is not None for heard in told) <= 1


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_under_churn_every_call_gets_what_it_gets_alone(
    new_bench: NewBench, alone: Alone, seed: int
) -> None:
    dice = random.Random(seed)
    bench = new_bench(context_tokens=2048, micro_batch_tokens=64, host_cache_bytes=1 << 18)
    asked: dict[int, tuple[Prompt, int]] = {}
    for call in range(40):
        heard = [one for one in asked if bench.heard[one].ended]
        if heard and dice.random() < 0.4:
            before = dice.choice(heard)
            prompt = (*asked[before][0], *bench.heard[before].token_ids, call)[-330:]
        else:
            prompt = (*SYSTEM[: dice.choice([40, 90, 130])], *dice.choice(PROMPTS)[:30], call)
        asked[call] = prompt, dice.choice([1, 10, 40, 90])
        start(bench, call, *asked[call])
        bench.turn(dice.choice([0, 1, 5, 40]))
        if dice.random() < 0.2:
            bench.serving.cancel(CancelCall(call=dice.choice(list(asked))))
    bench.finish()
    for call, (prompt, max_tokens) in asked.items():
        got = bench.heard[call].token_ids
        assert got == alone(prompt, max_tokens)[: len(got)]
    assert sum(cached(bench.heard[call]) for call in asked if bench.heard[call].ended) > 0


def test_the_window_is_shorter_than_what_is_shared() -> None:
    assert len(SYSTEM) > 2 * WINDOW
    assert np.unique(SYSTEM).size == 26
