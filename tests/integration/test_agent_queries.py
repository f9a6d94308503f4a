"""Queries through the agent: to the engine, back to the balancer, and what ends them early."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest
from msgspec import Struct, structs

from agent.engine.engine import Engine
from agent.engine.frames import CancelCall, EngineOptions
from agent.engine.query_frames import (
    DetokenizeCall,
    Detokenized,
    EmbedCall,
    Embedded,
    QueryAnswer,
    QueryCall,
    QueryRefused,
    RerankCall,
    Reranked,
    TokenizeCall,
    Tokenized,
)
from protocol.chat import Message
from protocol.codec import decode_result, encode_request
from protocol.embeddings import Embeddings, InputError, Scores, Text, TokenIds
from protocol.generation import GenerationRequest
from protocol.jsonrpc import ErrorResponse, Response
from protocol.refusals import RefusalCode
from protocol.to_agent import Cancel, Detokenize, Embed, Rerank, Tokenize
from protocol.to_balancer import Goodbye
from protocol.transfers import MAX_TRANSFER_BYTES
from tests.support.cluster import eventually
from tests.support.fake_balancer import FakeBalancer, fake_balancer
from tests.support.fake_engine import FakeEngine
from tests.support.running_agent import running_agent
from tests.support.tiny_embedding_gguf import WIDTH, bert_rows, bert_weights, write_tiny_bert
from tests.support.tiny_gguf import write_tiny_gguf

EMBED = Embed(inputs=("a", "b"))
TOO_LONG = (InputError(1, -32002, "too long"),)


@pytest.fixture
async def balancer() -> AsyncIterator[FakeBalancer]:
    async with fake_balancer() as balancer:
        yield balancer


async def asked(engine: FakeEngine, count: int = 1) -> list[QueryCall]:
    """The queries that the engine was given, once there are so many."""

    def queries() -> list[QueryCall]:
        return [command for command in engine.commands if isinstance(command, QueryCall)]

    await eventually(lambda: len(queries()) >= count, what="the engine is asked")
    return queries()


async def result(balancer: FakeBalancer, call: int | str, kind: type[Struct]) -> Struct:
    answer = await balancer.answered(call)
    assert isinstance(answer, Response), answer
    return decode_result(answer.result, kind)


async def refusal(balancer: FakeBalancer, call: int | str) -> int:
    answer = await balancer.answered(call)
    assert isinstance(answer, ErrorResponse), answer
    return answer.error.code


def embedded(call: int, vectors: bytes, dimensions: int = 1) -> Embedded:
    return Embedded(
        call=call,
        pooling="mean",
        dimensions=dimensions,
        rows=(1, 0),
        tokens=(3, 9),
        vectors=vectors,
        errors=TOO_LONG,
    )


CASES: list[tuple[Struct, QueryCall, Callable[[int], QueryAnswer], Struct]] = [
    (
        Embed(inputs=("a", (1, 2)), pooling="last", normalize=False, dimensions=2),
        EmbedCall(call=0, inputs=("a", (1, 2)), pooling="last", normalize=False, dimensions=2),
        lambda call: embedded(call, b"1234"),
        Embeddings(
            pooling="mean",
            dimensions=1,
            rows=(1, 0),
            tokens=(3, 9),
            vectors=b"1234",
            errors=TOO_LONG,
        ),
    ),
    (
        Rerank(query="q", documents=("a", "b")),
        RerankCall(call=0, query="q", documents=("a", "b")),
        lambda call: Reranked(call=call, scores=(0.5, None), tokens=(3, 9), errors=TOO_LONG),
        Scores(scores=(0.5, None), tokens=(3, 9), errors=TOO_LONG),
    ),
    (
        Tokenize(text="a", add_special=True, parse_special=False, with_pieces=True),
        TokenizeCall(call=0, text="a", add_special=True, parse_special=False, with_pieces=True),
        lambda call: Tokenized(call=call, token_ids=(1, 2), pieces=("a", "\xff")),
        TokenIds(token_ids=(1, 2), pieces=("a", "\xff")),
    ),
    (
        Detokenize(token_ids=(1, 2), show_special=True),
        DetokenizeCall(call=0, token_ids=(1, 2), show_special=True),
        lambda call: Detokenized(call=call, text="a"),
        Text(text="a"),
    ),
]


@pytest.mark.parametrize(("question", "command", "answer", "expected"), CASES)
async def test_a_query_goes_to_the_engine_and_its_answer_to_the_balancer(
    balancer: FakeBalancer,
    question: Struct,
    command: QueryCall,
    answer: Callable[[int], QueryAnswer],
    expected: Struct,
) -> None:
    engine = FakeEngine()
    async with running_agent(balancer.address, engine):
        await balancer.has_slots(4)
        call = await balancer.ask(question)
        [query] = await asked(engine)
        assert query == structs.replace(command, call=query.call)
        engine.answer(answer(query.call))
        assert await result(balancer, call, type(expected)) == expected
    assert balancer.data == {}


async def test_a_refusal_of_the_engine_is_one_of_the_agent(balancer: FakeBalancer) -> None:
    engine = FakeEngine()
    async with running_agent(balancer.address, engine):
        await balancer.has_slots(4)
        call = await balancer.ask(EMBED)
        [query] = await asked(engine)
        facts: dict[str, int | str] = {"param": "dimensions"}
        engine.answer(QueryRefused(call=query.call, code=-32005, message="no", facts=facts))
        answer = await balancer.answered(call)
    assert isinstance(answer, ErrorResponse)
    assert (answer.error.code, answer.error.data) == (RefusalCode.UNSUPPORTED, facts)


async def test_an_answer_that_is_too_big_for_the_link_is_a_refusal_and_no_end_of_the_link(
    balancer: FakeBalancer,
) -> None:
    engine = FakeEngine()
    async with running_agent(balancer.address, engine):
        await balancer.has_slots(4)
        call = await balancer.ask(Detokenize(token_ids=(1, 2)))
        other = await balancer.ask(Detokenize(token_ids=(1, 2)))
        first, second = await asked(engine, 2)
        engine.answer(Detokenized(call=first.call, text="x" * MAX_TRANSFER_BYTES))
        assert await refusal(balancer, call) == RefusalCode.UNSUPPORTED
        engine.answer(Detokenized(call=second.call, text="y"))
        assert await result(balancer, other, Text) == Text(text="y")


async def test_big_vectors_come_apart_from_their_answer(balancer: FakeBalancer) -> None:
    engine = FakeEngine()
    vectors = bytes(range(256)) * 4096 * 3
    async with running_agent(balancer.address, engine):
        await balancer.has_slots(4)
        call = await balancer.ask(EMBED)
        [query] = await asked(engine)
        engine.answer(embedded(query.call, vectors, dimensions=len(vectors) // 4))
        answer = await result(balancer, call, Embeddings)
        await balancer.until(lambda: call in balancer.data, "the vectors")
    assert isinstance(answer, Embeddings)
    assert (answer.vectors, answer.vectors_follow) == (b"", len(vectors))
    assert balancer.data == {call: vectors}


async def test_big_vectors_of_a_call_whose_id_is_a_text_are_in_their_answer(
    balancer: FakeBalancer,
) -> None:
    """A piece's header has room for a number only."""
    engine = FakeEngine()
    vectors = bytes(600_000)
    async with running_agent(balancer.address, engine):
        await balancer.has_slots(4)
        await balancer.say(encode_request("request-1", EMBED))
        [query] = await asked(engine)
        engine.answer(embedded(query.call, vectors))
        answer = await result(balancer, "request-1", Embeddings)
    assert isinstance(answer, Embeddings)
    assert answer.vectors == vectors
    assert balancer.data == {}


async def test_tokens_do_not_wait_behind_big_vectors(balancer: FakeBalancer) -> None:
    engine = FakeEngine()
    async with running_agent(balancer.address, engine):
        await balancer.has_slots(4)
        call = await balancer.ask(EMBED)
        [query] = await asked(engine)
        engine.answer(embedded(query.call, bytes(16 * 1024 * 1024)))
        running = await balancer.call(GenerationRequest(prompt="hi"))
        await balancer.finished(running)
        assert call not in balancer.data
        await balancer.until(lambda: call in balancer.data, "the vectors")


async def test_a_cancelled_query_is_answered_so_and_the_engine_s_answer_dropped(
    balancer: FakeBalancer,
) -> None:
    engine = FakeEngine()
    async with running_agent(balancer.address, engine):
        await balancer.has_slots(4)
        call = await balancer.ask(EMBED)
        [query] = await asked(engine)
        await balancer.notify(Cancel(call=call))
        assert await refusal(balancer, call) == RefusalCode.CANCELLED
        assert engine.commands[-1] == CancelCall(call=query.call)
        engine.answer(embedded(query.call, b"1234"))
        other = await balancer.ask(EMBED)
        [_, query] = await asked(engine, 2)
        engine.answer(embedded(query.call, b"1234"))
        await balancer.answered(other)
    answers = [m for m in balancer.heard if isinstance(m, Response | ErrorResponse)]
    assert [answer.id for answer in answers] == [call, other]


async def test_a_dead_engine_takes_its_queries_with_it(balancer: FakeBalancer) -> None:
    engine = FakeEngine()
    async with running_agent(balancer.address, engine):
        await balancer.has_slots(4)
        call = await balancer.ask(EMBED)
        await asked(engine)
        engine.die("SIGSEGV", stay_dead=True)
        assert await refusal(balancer, call) == RefusalCode.ENGINE_FAILED
        await balancer.has_slots(0)
        assert await refusal(balancer, await balancer.ask(EMBED)) == RefusalCode.MODEL_NOT_LOADED


async def test_a_lost_link_ends_its_queries_in_the_engine(balancer: FakeBalancer) -> None:
    engine = FakeEngine()
    async with running_agent(balancer.address, engine):
        await balancer.has_slots(4)
        await balancer.ask(EMBED)
        [query] = await asked(engine)
        balancer.break_link()
        await eventually(lambda: CancelCall(call=query.call) in engine.commands, what="the end")


async def test_a_stopping_agent_answers_its_queries_and_takes_none(
    balancer: FakeBalancer,
) -> None:
    engine = FakeEngine()
    async with running_agent(balancer.address, engine) as app:
        await balancer.has_slots(4)
        call = await balancer.ask(EMBED)
        [query] = await asked(engine)
        app.stop()
        await balancer.until(lambda: balancer.notifications(Goodbye), "goodbye")
        assert await refusal(balancer, await balancer.ask(EMBED)) == RefusalCode.DRAINING
        engine.answer(embedded(query.call, b"1234"))
        await balancer.answered(call)
        await balancer.until(lambda: not balancer.is_linked, "the agent leaves")


async def test_another_model_and_an_id_in_use_are_refused(balancer: FakeBalancer) -> None:
    engine = FakeEngine(pace="held")
    async with running_agent(balancer.address, engine):
        await balancer.has_slots(4)
        other = await balancer.ask(Tokenize(model="another", text="a"))
        assert await refusal(balancer, other) == RefusalCode.MODEL_NOT_LOADED
        call = await balancer.ask(EMBED)
        await asked(engine)
        await balancer.say(encode_request(call, EMBED))
        assert await refusal(balancer, call) == -32600
        running = await balancer.call(GenerationRequest(prompt="hi"))
        await balancer.answered(running)
        await balancer.say(encode_request(running, EMBED))
        await balancer.until(
            lambda: any(isinstance(m, ErrorResponse) and m.id == running for m in balancer.heard),
            "the refusal",
        )
        assert len(await asked(engine)) == 1


async def test_a_status_says_how_many_queries_there_may_be_and_are(
    balancer: FakeBalancer,
) -> None:
    balancer.heartbeat_ms = 20
    engine = FakeEngine()
    async with running_agent(balancer.address, engine):
        beat = await balancer.has_slots(4)
        assert (beat.status.queries_total, beat.status.queries_running) == (16, 0)
        await balancer.ask(EMBED)
        await balancer.until(lambda: _queries_running(balancer) == 1, "one is told")
        [query] = await asked(engine)
        engine.answer(embedded(query.call, b"1234"))
        await balancer.until(lambda: _queries_running(balancer) == 0, "none is told")
        engine.die(stay_dead=True)
        beat = await balancer.has_slots(0)
        assert beat.status.queries_total == 0


def _queries_running(balancer: FakeBalancer) -> int:
    beat = balancer.last_heartbeat()
    return -1 if beat is None else beat.status.queries_running


# --- with the real engine ---


def real_engine(path: Path, **options: object) -> Engine:
    exact = {"cache_type": "f32", "flash_attention": "off", "threads": 1, **options}
    return Engine(EngineOptions(model_path=str(path), slots=2, **exact))  # type: ignore[arg-type]  # of any test


async def test_one_agent_generates_embeds_and_tokenises(
    balancer: FakeBalancer, tmp_path: Path
) -> None:
    engine = real_engine(write_tiny_gguf(tmp_path / "tiny.gguf"))
    async with running_agent(balancer.address, engine):
        beat = await balancer.has_slots(2)
        assert beat.model is not None
        assert beat.model.generates
        assert not beat.model.reranks
        assert not beat.model.infills
        assert beat.model.embedding_dimensions == 32
        running = await balancer.call(
            GenerationRequest(prompt="hello", max_tokens=200, ignore_eos=True)
        )
        await balancer.answered(running)
        long = "hello world\n" * 10_000
        tokenized = await balancer.ask(Tokenize(text=long))
        vectors = await balancer.ask(Embed(inputs=("hello", "a" * 600, "hello")))
        ids = await result(balancer, tokenized, TokenIds)
        assert isinstance(ids, TokenIds)
        text = await result(balancer, await balancer.ask(Detokenize(token_ids=ids.token_ids)), Text)
        assert text == Text(text=long)
        found = await result(balancer, vectors, Embeddings)
        assert isinstance(found, Embeddings)
        assert (found.rows, [error.index for error in found.errors]) == ((1, 0, 1), [1])
        first, second = np.frombuffer(found.vectors, "<f4").reshape(2, -1)
        assert (first == second).all()
        assert np.linalg.norm(first) == pytest.approx(1, abs=1e-5)
        refused = await refusal(balancer, await balancer.ask(Rerank(query="a", documents=("b",))))
        assert refused == RefusalCode.UNSUPPORTED
        assert (await balancer.finished(running)).usage.completion_tokens == 200


async def test_a_long_text_is_answered_by_an_engine_that_is_otherwise_asleep(
    balancer: FakeBalancer, tmp_path: Path
) -> None:
    """The loop sleeps while the thread beside it tokenises; it has to be woken."""
    engine = real_engine(write_tiny_gguf(tmp_path / "tiny.gguf"))
    async with running_agent(balancer.address, engine):
        await balancer.has_slots(2)
        for _ in range(3):
            ids = await result(
                balancer, await balancer.ask(Tokenize(text="hello " * 50_000)), TokenIds
            )
            assert isinstance(ids, TokenIds)
            assert len(ids.token_ids) > 50_000


INFILL = GenerationRequest(prompt="ab", suffix="c", max_tokens=4, ignore_eos=True)


async def test_a_suffix_has_the_model_fill_in(balancer: FakeBalancer, tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "infill.gguf", infill={"pre": 1, "suf": 2, "mid": 3})
    async with running_agent(balancer.address, real_engine(path)):
        beat = await balancer.has_slots(2)
        assert beat.model is not None
        assert beat.model.infills
        finished = await balancer.finished(await balancer.call(INFILL))
        assert finished.usage.prompt_tokens == len("ab") + len("c") + 3
        chat = GenerationRequest(messages=(Message(role="user", content="hi"),), suffix="c")
        assert await refusal(balancer, await balancer.call(chat)) == RefusalCode.UNSUPPORTED


async def test_a_model_that_cannot_fill_in_refuses_and_says_what_it_lacks(
    balancer: FakeBalancer, tmp_path: Path
) -> None:
    engine = real_engine(write_tiny_gguf(tmp_path / "tiny.gguf"))
    async with running_agent(balancer.address, engine):
        await balancer.has_slots(2)
        answer = await balancer.answered(await balancer.call(INFILL))
    assert isinstance(answer, ErrorResponse)
    assert answer.error.data == {"param": "suffix"}
    assert "no token for the prefix" in answer.error.message


async def test_an_embedding_model_has_no_slots_and_serves_vectors(
    balancer: FakeBalancer, tmp_path: Path
) -> None:
    engine = real_engine(write_tiny_bert(tmp_path / "bert.gguf"))
    async with running_agent(balancer.address, engine):
        beat = await balancer.until(
            lambda: (b := balancer.last_heartbeat()) and b.model and b, "the model"
        )
        assert (beat.status.slots_total, beat.status.queries_total) == (0, 16)
        assert (beat.model.generates, beat.model.embedding_dimensions) == (False, WIDTH)
        found = await result(
            balancer, await balancer.ask(Embed(inputs=((2, 5, 6, 3),))), Embeddings
        )
        call = await balancer.call(GenerationRequest(prompt="hi"))
        assert await refusal(balancer, call) == RefusalCode.UNSUPPORTED
    assert isinstance(found, Embeddings)
    expected = bert_rows(bert_weights(), [2, 5, 6, 3]).mean(axis=0)
    np.testing.assert_allclose(
        np.frombuffer(found.vectors, "<f4"), expected / np.linalg.norm(expected), atol=2e-3
    )
