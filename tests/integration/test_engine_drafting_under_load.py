"""When the engine drafts: not while all slots are busy, nor right after that."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agent.demo_model import DEMO_MODEL_PATH
from agent.engine.frames import EngineOptions, Sampling, Submit
from agent.engine.llama.log import start_backend
from agent.engine.llama.model import Model
from agent.engine.seating import QUIET_TURNS
from tests.support.engine_bench import EngineBench

REPEATING = "one two three four " * 12


@pytest.fixture
def bench() -> Iterator[EngineBench]:
    options = EngineOptions(
        model_path=str(DEMO_MODEL_PATH), slots=2, threads=1, context_tokens=2048, fit="off"
    )
    log = start_backend()
    model = Model(options, log)
    made = EngineBench(model, log, options)
    yield made
    made.close()
    model.close()


def submit(bench: EngineBench, call: int, max_tokens: int) -> None:
    sampling = Sampling(temperature=0.0, ignore_eos=True)
    bench.submit(Submit(call=call, prompt=REPEATING, sampling=sampling, max_tokens=max_tokens))


def drafted(bench: EngineBench, call: int) -> int:
    ended = bench.heard[call].ended
    assert ended is not None
    return ended.timings.drafted_tokens


def test_nothing_is_drafted_while_all_slots_are_busy(bench: EngineBench) -> None:
    for call in (1, 2):
        submit(bench, call, max_tokens=60)
    bench.finish()
    assert [drafted(bench, call) for call in (1, 2)] == [0, 0]


def test_drafting_begins_when_a_slot_has_been_free_for_a_while(bench: EngineBench) -> None:
    submit(bench, 1, max_tokens=10)
    submit(bench, 2, max_tokens=200)
    while bench.heard[1].ended is None:
        bench.turn()
    before = len(bench.heard[2].token_ids)
    bench.turn(QUIET_TURNS - 1)
    assert len(bench.heard[2].token_ids) == before + QUIET_TURNS - 1
    bench.finish()
    assert drafted(bench, 2) > 0


def test_a_call_alone_drafts_at_once(bench: EngineBench) -> None:
    submit(bench, 1, max_tokens=60)
    bench.finish()
    assert drafted(bench, 1) > 0
