"""The log probabilities of a prompt's own tokens: a tiny random model."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from agent.engine import prompt_scores
from agent.engine.frames import Sampling, Submit
from agent.engine.llama.log import LlamaLog, start_backend
from agent.engine.llama.model import Model
from protocol.generation import MAX_PROMPT_LOGPROBS, TokenLogprob
from protocol.refusals import RefusalCode
from tests.support.engine_bench import EngineBench
from tests.support.engine_benches import NewBench, benches, loaded
from tests.support.engine_calls import Heard
from tests.support.tiny_gguf import write_tiny_gguf

PROMPT = tuple(range(65, 91)) * 4
GREEDY = Sampling(temperature=0.0, ignore_eos=True)
SCORED = Sampling(temperature=0.0, ignore_eos=True, top_logprobs=3)


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


def score(bench: EngineBench, prompt: tuple[int, ...], **fields: object) -> Heard:
    settings = {"sampling": SCORED, "max_tokens": 1, "prompt_logprobs": True}
    return bench.call(prompt, **(settings | fields))


def cached(heard: Heard) -> int:
    assert heard.ended is not None
    return heard.ended.usage.cached_tokens


def assert_alike(some: list[TokenLogprob], others: list[TokenLogprob]) -> None:
    assert [one.token_id for one in some] == [one.token_id for one in others]
    assert [one.logprob for one in some] == pytest.approx([one.logprob for one in others], abs=2e-3)
    for one, other in zip(some, others, strict=True):
        assert [top.logprob for top in one.top] == pytest.approx(
            [top.logprob for top in other.top], abs=2e-3
        )


@pytest.mark.parametrize("unified_kv", ["off", "on"])
def test_a_prompt_s_tokens_are_as_likely_as_when_they_were_generated(
    new_bench: NewBench, unified_kv: str
) -> None:
    bench = new_bench(unified_kv=unified_kv)
    sampled = Sampling(temperature=1.0, seed=5, ignore_eos=True, top_logprobs=3)
    said = bench.call(PROMPT, sampling=sampled, max_tokens=24)
    heard = score(bench, (*PROMPT, *said.token_ids))
    assert len(heard.token_ids) == 1
    assert [one.token_id for one in heard.logprobs] == [
        *PROMPT, *said.token_ids, *heard.token_ids
    ]  # fmt: skip
    first = heard.logprobs[0]
    assert (first.logprob, first.top) == (0.0, ())
    assert_alike(heard.logprobs[len(PROMPT) : -1], said.logprobs)


def test_a_prompt_is_scored_in_chunks_beside_streams_that_stay_as_they_were(
    new_bench: NewBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = score(new_bench(), PROMPT).logprobs
    streamed = new_bench().call(PROMPT, sampling=GREEDY, max_tokens=30).token_ids
    for rows in (1, 7):
        monkeypatch.setattr("agent.engine.intake.rows_at_once", lambda *_, rows=rows: rows)
        bench = new_bench()
        bench.submit(Submit(call=1, prompt=PROMPT, sampling=GREEDY, max_tokens=30))
        bench.turn(2)
        heard = score(bench, PROMPT)
        bench.finish()
        assert bench.heard[1].token_ids == streamed
        assert_alike(heard.logprobs, alone)


def test_rows_stay_whole_where_llama_cpp_reduces_those_of_others(new_bench: NewBench) -> None:
    expected = score(new_bench(), PROMPT).logprobs
    bench = new_bench(backend_sampling="on", speculation="off")
    assert bench.context.samplers is not None
    assert bench.context.most_outputs == 1
    bench.submit(Submit(call=1, prompt=PROMPT, sampling=GREEDY, max_tokens=30))
    bench.turn(2)
    assert_alike(score(bench, PROMPT).logprobs, expected)


def test_nothing_is_taken_from_the_cache_or_left_there(new_bench: NewBench) -> None:
    bench = new_bench()
    bench.call(PROMPT, sampling=GREEDY, max_tokens=2)
    assert cached(score(bench, PROMPT)) == 0
    other = tuple(reversed(PROMPT))
    score(bench, other)
    after = bench.call(other, sampling=GREEDY, max_tokens=1)
    assert cached(after) == 0
    again = bench.call(PROMPT, sampling=GREEDY, max_tokens=1)
    assert cached(again) == len(PROMPT) - 1
    assert score(bench, other).logprobs == score(bench, other).logprobs


def test_its_cells_are_free_when_it_is_over(new_bench: NewBench) -> None:
    bench = new_bench(unified_kv="on")
    score(bench, PROMPT)
    cells = bench.serving.store.cells
    assert cells is not None
    assert cells.free == cells.capacity
    bench.call(PROMPT, sampling=GREEDY, max_tokens=2)
    assert cells.free < cells.capacity


def test_who_gives_way_while_it_is_scored_has_every_token_once(new_bench: NewBench) -> None:
    expected = score(new_bench(), PROMPT).logprobs
    bench = new_bench(unified_kv="on", batch_tokens=16, micro_batch_tokens=16)
    bench.submit(Submit(call=1, prompt=PROMPT[:40], sampling=GREEDY, max_tokens=40, priority=1))
    bench.submit(Submit(call=2, prompt=PROMPT, sampling=SCORED, max_tokens=3, prompt_logprobs=True))
    bench.turn(4)
    seat = bench.serving.seating.scheduler.seat_of(2)
    assert seat is not None
    assert 0 < seat.cached < len(PROMPT)
    assert bench.serving.seating.suspend_one()
    assert bench.serving.seating.scheduler.seat_of(2) is None
    bench.finish()
    heard = bench.heard[2]
    assert len(heard.logprobs) == len(PROMPT) + 3
    assert_alike(heard.logprobs[: len(PROMPT)], expected[: len(PROMPT)])


def test_who_resumes_is_told_nothing_of_its_prompt_again(new_bench: NewBench) -> None:
    heard = score(new_bench(), PROMPT, max_tokens=4, resume_ids=(1, 2), resume_emitted_chars=None)
    assert len(heard.logprobs) == 2


def test_an_end_token_has_its_log_probability_too(new_bench: NewBench, model: Model) -> None:
    end = model.vocabulary.end_tokens[0]
    sampling = Sampling(temperature=0.0, top_logprobs=1, logit_bias=((end, 100.0),))
    heard = score(new_bench(), PROMPT, sampling=sampling, max_tokens=5)
    assert heard.token_ids == [end]
    assert len(heard.logprobs) == len(PROMPT) + 1
    assert heard.logprobs[-1].token_id == end


def test_a_prompt_with_more_than_can_be_told_is_refused(new_bench: NewBench) -> None:
    bench = new_bench(context_tokens=4 * 4096)
    most = MAX_PROMPT_LOGPROBS // 21
    sampling = Sampling(temperature=0.0, top_logprobs=20)
    heard = score(bench, (65,) * (most + 1), sampling=sampling)
    assert heard.refused is not None
    assert (heard.refused.code, heard.refused.facts) == (
        RefusalCode.UNSUPPORTED, {"param": "prompt"},
    )  # fmt: skip
    assert str(most) in heard.refused.message


def test_rows_are_bounded_by_what_they_take_and_by_what_there_is_room_for() -> None:
    assert prompt_scores.rows_at_once(2**15, 512) == 128
    assert prompt_scores.rows_at_once(2**15, 1) == 1
    assert prompt_scores.rows_at_once(2**30, 512) == 1


def test_rows_that_come_again_are_not_counted_twice() -> None:
    scores = prompt_scores.PromptScores(
        np.array([1, 2, 3], dtype=np.int32), top_logprobs=0, pieces=[b"a", b"b", b"c", b"d"], rows=8
    )
    rows = np.zeros((3, 4), dtype=np.float32)
    scores.take(rows[:1], 0)
    scores.take(rows, 0)
    assert scores.is_complete
    assert [one.token_id for one in scores.told()] == [1, 2, 3]
    assert scores.told()[1].logprob == pytest.approx(-np.log(4))
