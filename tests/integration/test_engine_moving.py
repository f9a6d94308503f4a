"""A running call moves to another engine with its KV state, and goes on bit for bit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from agent.engine.frames import Sampling, Submit
from agent.engine.llama.log import LlamaLog, start_backend
from agent.engine.llama.model import Model
from agent.engine.query_frames import (
    Exported,
    ExportSequence,
    Imported,
    ImportSequence,
    QueryAnswer,
    QueryRefused,
)
from tests.support.engine_bench import EngineBench
from tests.support.engine_benches import NewBench, benches, loaded
from tests.support.engine_invariants import check_idle
from tests.support.tiny_gguf import write_tiny_gguf

PROMPT = tuple(range(60, 100)) * 3
TOKENS = 40
SAMPLINGS = {
    "greedy": Sampling(temperature=0.0, ignore_eos=True),
    "seeded": Sampling(seed=7, ignore_eos=True, repeat_penalty=1.1),
    "mirostat": Sampling(seed=7, ignore_eos=True, mirostat=2),
}


@pytest.fixture(scope="module")
def log() -> LlamaLog:
    return start_backend()


@pytest.fixture(scope="module")
def model(log: LlamaLog, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    path = write_tiny_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf")
    with loaded(log, {"tiny": path}) as models:
        yield models["tiny"]


def finished_and_idle(bench: EngineBench) -> None:
    bench.finish()
    check_idle(bench)


@pytest.fixture
def new_bench(model: Model, log: LlamaLog) -> Iterator[NewBench]:
    options = {"slots": 2, "host_cache_bytes": 1 << 24, "speculation": "off"}
    types = {"cache_type": "f16", "flash_attention": "auto"}
    with benches({"tiny": model}, log, finished_and_idle, **options, **types) as new:
        yield new


@contextmanager
def blob() -> Iterator[str]:
    """A file that is gone when nobody has it open, by a path that another process can open."""
    descriptor = os.memfd_create("state")
    yield f"/proc/{os.getpid()}/fd/{descriptor}"
    os.close(descriptor)


def moved(bench: EngineBench, path: str, call: int, most_bytes: int = 1 << 30) -> QueryAnswer:
    return bench.serving.moved(
        ExportSequence(call=9, target=call, path=path, most_bytes=most_bytes)
    )


@pytest.mark.parametrize("cache", ["f16", "f32", "q8_0"])
@pytest.mark.parametrize("unified", ["off", "on"])
@pytest.mark.parametrize("name", SAMPLINGS)
def test_a_moved_call_goes_on_as_if_it_had_stayed(
    new_bench: NewBench, name: str, unified: str, cache: str
) -> None:
    fields = {"unified_kv": unified, "cache_type": cache}
    stays, goes, takes = (new_bench(**fields) for _ in range(3))
    submit = Submit(call=1, prompt=PROMPT, sampling=SAMPLINGS[name], max_tokens=TOKENS)
    for bench in (stays, goes):
        bench.submit(submit)
    stays.finish()
    while len(goes.heard[1].token_ids) < 15:
        goes.turn()
    so_far = goes.heard[1].token_ids
    states = [part.sampler_state for step in goes.heard.steps for part in step.tokens]
    with blob() as path:
        sent = moved(goes, path, 1)
        assert isinstance(sent, Exported)
        # the last token was sampled, and not yet decoded
        assert sent.tokens == len(PROMPT) + len(so_far) - 1
        answer = takes.serving.moved(
            ImportSequence(
                call=2,
                scope="",
                token_ids=(*PROMPT, *so_far)[: sent.tokens],
                path=path,
                size_bytes=sent.size_bytes,
            )
        )
    assert answer == Imported(call=2)
    takes.submit(
        Submit(
            call=1,
            prompt=PROMPT,
            sampling=SAMPLINGS[name],
            max_tokens=TOKENS,
            resume_ids=tuple(so_far),
            resume_emitted_chars=len(goes.heard[1].text),
            resume_sampler_state=states[-1],
        )
    )
    takes.finish()
    assert so_far + takes.heard[1].token_ids == stays.heard[1].token_ids
    assert goes.heard[1].text + takes.heard[1].text == stays.heard[1].text
    ended = takes.heard[1].ended
    assert ended is not None
    assert ended.usage.cached_tokens == len(PROMPT)


def test_the_call_that_was_exported_goes_on_unharmed(new_bench: NewBench) -> None:
    stays, goes = new_bench(), new_bench()
    for bench in (stays, goes):
        bench.submit(Submit(call=1, prompt=PROMPT, sampling=SAMPLINGS["greedy"], max_tokens=20))
        bench.turn(5)
    with blob() as path:
        moved(goes, path, 1)
    for bench in (stays, goes):
        bench.finish()
    assert goes.heard[1].token_ids == stays.heard[1].token_ids


def test_a_released_call_ends_with_its_export_and_says_no_token_more(new_bench: NewBench) -> None:
    bench = new_bench()
    bench.submit(Submit(call=1, prompt=PROMPT, sampling=SAMPLINGS["mirostat"], max_tokens=20))
    bench.turn(5)
    so_far = bench.heard[1].token_ids
    states = [part.sampler_state for step in bench.heard.steps for part in step.tokens]
    with blob() as path:
        release = ExportSequence(call=9, target=1, path=path, most_bytes=1 << 30, release=True)
        sent = bench.serving.moved(release)
        again = bench.serving.moved(release)
    bench.finish()
    assert isinstance(sent, Exported)
    assert sent.token_ids == (*PROMPT, *so_far)[: sent.tokens]
    assert sent.sampler_state == states[-1]
    assert bench.heard[1].token_ids == so_far
    ended = bench.heard[1].ended
    assert ended is not None
    assert ended.finish_reason == "cancelled"
    assert isinstance(again, QueryRefused)


def test_a_refused_release_leaves_the_call_alone(new_bench: NewBench) -> None:
    bench = new_bench()
    bench.submit(Submit(call=1, prompt=PROMPT, sampling=SAMPLINGS["greedy"], max_tokens=20))
    bench.turn(3)
    small = ExportSequence(call=9, target=1, path="/dev/null", most_bytes=10, release=True)
    refused = bench.serving.moved(small)
    bench.finish()
    assert isinstance(refused, QueryRefused)
    assert refused.facts == {"reason": "too_large"}
    assert len(bench.heard[1].token_ids) == 20


def test_what_is_imported_twice_takes_the_room_of_once(new_bench: NewBench) -> None:
    goes, takes = new_bench(), new_bench()
    goes.submit(Submit(call=1, prompt=PROMPT, sampling=SAMPLINGS["greedy"], max_tokens=20))
    goes.turn(5)
    with blob() as path:
        sent = moved(goes, path, 1)
        assert isinstance(sent, Exported)
        for scope, entries in (("", 1), ("", 1), ("other", 2)):
            command = ImportSequence(
                call=2,
                scope=scope,
                token_ids=sent.token_ids,
                path=path,
                size_bytes=sent.size_bytes,
            )
            assert takes.serving.moved(command) == Imported(call=2)
            assert takes.serving.store.host_bytes_used == entries * sent.size_bytes


def test_an_import_that_takes_the_room_of_others_is_one_all_the_same(new_bench: NewBench) -> None:
    goes = new_bench()
    goes.submit(Submit(call=1, prompt=PROMPT, sampling=SAMPLINGS["greedy"], max_tokens=20))
    goes.turn(5)
    with blob() as path:
        sent = moved(goes, path, 1)
        assert isinstance(sent, Exported)
        takes = new_bench(host_cache_bytes=sent.size_bytes)
        for scope in ("a", "b"):
            command = ImportSequence(
                call=2,
                scope=scope,
                token_ids=sent.token_ids,
                path=path,
                size_bytes=sent.size_bytes,
            )
            assert takes.serving.moved(command) == Imported(call=2)


def test_what_cannot_be_exported_is_refused_with_the_reason(new_bench: NewBench) -> None:
    bench = new_bench()
    bench.submit(Submit(call=1, prompt=PROMPT, sampling=SAMPLINGS["greedy"], max_tokens=20))
    bench.turn(3)
    with blob() as path:
        answers = [
            moved(bench, path, 77),
            moved(bench, path, 1, most_bytes=100),
            moved(bench, "/proc/self/fd/none", 1),
        ]
    messages = [answer.message for answer in answers if isinstance(answer, QueryRefused)]
    for message, words in zip(messages, ("no tokens", "allowed are 100", "written"), strict=True):
        assert words in message


def test_what_cannot_be_imported_is_refused_with_the_reason(new_bench: NewBench) -> None:
    bench, without = new_bench(), new_bench(host_cache_bytes=0)
    with blob() as path:
        np.zeros(100, dtype=np.uint8).tofile(path)
        whole = ImportSequence(call=1, scope="", token_ids=(1, 2, 3), path=path, size_bytes=100)
        short = ImportSequence(call=1, scope="", token_ids=(1, 2, 3), path=path, size_bytes=101)
        answers = [without.serving.moved(whole), bench.serving.moved(short)]
    messages = [answer.message for answer in answers if isinstance(answer, QueryRefused)]
    for message, words in zip(messages, ("no room", "damaged"), strict=True):
        assert words in message


def test_a_state_that_is_none_costs_a_prefill_and_no_more(new_bench: NewBench) -> None:
    bench = new_bench()
    alone = bench.call(PROMPT, sampling=SAMPLINGS["greedy"], max_tokens=5, scope="other")
    with blob() as path:
        np.zeros(1000, dtype=np.uint8).tofile(path)
        bench.serving.moved(
            ImportSequence(call=1, scope="", token_ids=PROMPT, path=path, size_bytes=1000)
        )
    heard = bench.call((*PROMPT, 5), sampling=SAMPLINGS["greedy"], max_tokens=5)
    assert heard.ended is not None
    assert heard.ended.usage.cached_tokens == 0
    again = bench.call(PROMPT, sampling=SAMPLINGS["greedy"], max_tokens=5, scope="third")
    assert again.token_ids == alone.token_ids
