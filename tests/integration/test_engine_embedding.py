"""Embeddings and reranking through llama.cpp, with tiny random models and numpy beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import gguf
import numpy as np
import pytest

from agent.engine.embedding.embedder import MAX_CALLS
from agent.engine.frames import Sampling, Submit
from agent.engine.llama.arrays import Floats
from agent.engine.llama.context import Context
from agent.engine.llama.embedding_context import EmbeddingContext, Piece
from agent.engine.llama.log import LlamaLog, start_backend
from agent.engine.query_frames import EmbedCall, Embedded, QueryRefused, RerankCall, Reranked
from agent.engine.serving import Serving
from protocol.embeddings import MAX_VECTOR_BYTES, Pooling
from protocol.refusals import RefusalCode
from tests.support import tiny_embedding_gguf, tiny_gguf
from tests.support.query_bench import QueryBench, vectors_of
from tests.support.tiny_embedding_gguf import (
    bert_rows,
    bert_score,
    bert_tokens,
    bert_weights,
    write_tiny_bert,
)
from tests.support.tiny_gguf import write_tiny_causal_reranker, write_tiny_gguf

TEXTS = ("the cat sat on the mat", "which port is 8080", "dog", "the dog ran on and on and on")
GELU_TABLE = 2e-3
"""ggml looks its GELU up in half precision."""
SAME = 1e-4
"""Kernels add in another order for other batches; the table makes more of it."""
LONG = "hello world and more of it. "


@pytest.fixture(scope="module")
def log() -> LlamaLog:
    return start_backend()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def bert_path(folder: Path) -> Path:
    return write_tiny_bert(folder / "bert.gguf")


@pytest.fixture(scope="module")
def llama_path(folder: Path) -> Path:
    return write_tiny_gguf(folder / "llama.gguf")


@pytest.fixture
def bert(bert_path: Path, log: LlamaLog) -> Iterator[QueryBench]:
    bench = QueryBench(bert_path, log)
    yield bench
    bench.close()


@pytest.fixture
def llama(llama_path: Path, log: LlamaLog) -> Iterator[QueryBench]:
    """A model that generates, embedding in pieces of at most 64 tokens."""
    bench = QueryBench(llama_path, log, micro_batch_tokens=64)
    yield bench
    bench.close()


@pytest.fixture
def reranker(folder: Path, log: LlamaLog) -> Iterator[QueryBench]:
    path = write_tiny_bert(folder / "rank.gguf", pooling=gguf.PoolingType.RANK)
    bench = QueryBench(path, log)
    yield bench
    bench.close()


def bert_ids(text: str) -> list[int]:
    """The ids of a text of whole known words and numbers, with the two tokens around it."""
    known = {token: number for number, token in enumerate(bert_tokens())}
    ids = [known["[CLS]"]]
    for word in text.split():
        first, *rest = [word] if "\u2581" + word in known else list(word)
        ids += [known["\u2581" + first], *(known[letter] for letter in rest)]
    return [*ids, known["[SEP]"]]


POOLED: dict[Pooling, slice | None] = {"mean": None, "cls": slice(0, 1), "last": slice(-1, None)}


def pooled(rows: Floats, pooling: Pooling) -> Floats:
    part = POOLED[pooling]
    vector: Floats = rows.mean(axis=0) if part is None else rows[part][0]
    return vector / np.linalg.norm(vector)


@pytest.mark.parametrize("pooling", POOLED)
def test_a_bert_s_vectors_are_what_numpy_computes(bert: QueryBench, pooling: Pooling) -> None:
    answer = bert.embed(*TEXTS, pooling=pooling)
    assert (answer.pooling, answer.dimensions) == (pooling, tiny_embedding_gguf.WIDTH)
    assert answer.tokens == tuple(len(bert_ids(text)) for text in TEXTS)
    weights = bert_weights()
    for text, (vector,) in zip(TEXTS, vectors_of(answer), strict=True):
        expected = pooled(bert_rows(weights, bert_ids(text)), pooling)
        np.testing.assert_allclose(vector, expected, atol=GELU_TABLE)


def test_without_pooling_each_token_has_its_vector(bert: QueryBench) -> None:
    answer = bert.embed(*TEXTS, pooling="none", normalize=False)
    assert answer.rows == answer.tokens
    weights = bert_weights()
    for text, vectors in zip(TEXTS, vectors_of(answer), strict=True):
        np.testing.assert_allclose(vectors, bert_rows(weights, bert_ids(text)), atol=GELU_TABLE)


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        (gguf.PoolingType.MEAN, "mean"),
        (gguf.PoolingType.CLS, "cls"),
        (gguf.PoolingType.LAST, "last"),
    ],
)
def test_the_model_s_own_pooling_is_taken_where_none_is_asked_for(
    tmp_path: Path, log: LlamaLog, own: gguf.PoolingType, expected: Pooling
) -> None:
    bench = QueryBench(write_tiny_bert(tmp_path / "own.gguf", pooling=own), log)
    default, named = bench.embed("the cat"), bench.embed("the cat", pooling=expected)
    bench.close()
    assert default.pooling == expected
    assert default.vectors == named.vectors


def test_a_model_that_generates_is_pooled_by_the_mean_where_none_is_asked_for(
    llama: QueryBench,
) -> None:
    assert llama.embed("hello").pooling == "mean"


@pytest.mark.parametrize("bench", ["bert", "llama"])
def test_many_inputs_at_once_give_what_each_gives_alone(
    bench: str, request: pytest.FixtureRequest
) -> None:
    queries: QueryBench = request.getfixturevalue(bench)
    texts = [f"the cat ran {number} and {number * 7}" for number in range(40)]
    together = vectors_of(queries.embed(*texts))
    turns = queries.turns
    alone = [vectors_of(queries.embed(text))[0] for text in texts]
    assert turns < len(texts)
    np.testing.assert_allclose(np.concatenate(together), np.concatenate(alone), atol=SAME)


def test_equal_inputs_of_a_call_have_equal_vectors_to_the_bit(llama: QueryBench) -> None:
    first, other, second = vectors_of(llama.embed(LONG * 4, "another", LONG * 4))
    assert (first == second).all()
    assert not np.allclose(first, other, atol=0.1)


@pytest.mark.parametrize("pooling", ["none", *POOLED])
def test_an_input_decoded_in_pieces_has_the_vectors_of_one_decoded_whole(
    llama: QueryBench, llama_path: Path, log: LlamaLog, pooling: Pooling
) -> None:
    text = LONG * 12
    pieces = llama.embed("short", text, budget=24, pooling=pooling)
    assert llama.turns > len(text) / 64
    whole = QueryBench(llama_path, log, micro_batch_tokens=512)
    expected = whole.embed("short", text, pooling=pooling)
    assert whole.turns == 1
    whole.close()
    assert pieces.tokens == expected.tokens
    for got, wanted in zip(vectors_of(pieces), vectors_of(expected), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-4)


def test_token_ids_are_taken_as_they_are(bert: QueryBench) -> None:
    text = "the cat sat"
    as_text, as_ids = bert.embed(text), bert.embed(tuple(bert_ids(text)))
    assert as_text.vectors == as_ids.vectors
    assert as_text.tokens == as_ids.tokens


def test_vectors_have_length_one_unless_that_is_not_wanted(llama: QueryBench) -> None:
    texts = ("hello world", LONG)
    lengths = [np.linalg.norm(vectors) for vectors in vectors_of(llama.embed(*texts))]
    np.testing.assert_allclose(lengths, 1, rtol=1e-5)
    raw = vectors_of(llama.embed(*texts, normalize=False))
    assert abs(np.linalg.norm(raw[0]) - 1) > 0.1


def test_dimensions_keep_the_beginning_of_each_vector(llama: QueryBench) -> None:
    whole = vectors_of(llama.embed("hello", normalize=False))[0][0]
    answer = llama.embed("hello", dimensions=5)
    assert answer.dimensions == 5
    expected = whole[:5] / np.linalg.norm(whole[:5])
    np.testing.assert_allclose(vectors_of(answer)[0][0], expected, atol=SAME)


@pytest.mark.parametrize("dimensions", [0, tiny_gguf.WIDTH + 1])
def test_dimensions_that_the_model_does_not_have_are_refused(
    llama: QueryBench, dimensions: int
) -> None:
    refused = llama.refusal(lambda call: EmbedCall(call=call, inputs=("a",), dimensions=dimensions))
    assert (refused.code, refused.facts) == (RefusalCode.UNSUPPORTED, {"param": "dimensions"})
    assert str(tiny_gguf.WIDTH) in refused.message


def test_inputs_that_cannot_be_embedded_are_named_by_index_and_the_others_are_embedded(
    llama: QueryBench,
) -> None:
    too_long = "a" * (tiny_gguf.CONTEXT + 1)
    answer = llama.embed("hello", too_long, "", (1, 10_000), (), "world", too_long)
    assert answer.rows == (1, 0, 0, 0, 0, 1, 0)
    errors = {error.index: error for error in answer.errors}
    assert sorted(errors) == [1, 2, 3, 4, 6]
    for index in (1, 6):
        assert errors[index].code == RefusalCode.CONTEXT_TOO_LONG
        assert (
            f"{tiny_gguf.CONTEXT + 1} tokens, at most {tiny_gguf.CONTEXT}" in errors[index].message
        )
    assert "empty" in errors[2].message
    assert "empty" in errors[4].message
    assert "outside of the vocabulary" in errors[3].message
    hello, world = (vectors for vectors in vectors_of(answer) if len(vectors))
    np.testing.assert_allclose(hello, vectors_of(llama.embed("hello"))[0], atol=SAME)
    np.testing.assert_allclose(world, vectors_of(llama.embed("world"))[0], atol=SAME)


def test_a_text_that_is_far_too_long_is_not_tokenised_as_a_whole(llama: QueryBench) -> None:
    asked: list[int] = []
    tokenize = llama.model.vocabulary.tokenize

    def counted(text: str, **fields: bool) -> object:
        asked.append(len(text))
        return tokenize(text, **fields)

    llama.model.vocabulary.tokenize = counted  # type: ignore[method-assign, assignment]  # it only counts
    answer = llama.embed("hello " * 1_000_000, "hello " * 100_000)
    assert [error.index for error in answer.errors] == [0, 1]
    assert "at least" in answer.errors[1].message
    assert sum(asked) < 100_000
    asked.clear()
    cut = llama.embed("hello " * 1_000_000, truncate=True)
    assert cut.tokens == (tiny_gguf.CONTEXT,)
    assert sum(asked) < 100_000


def test_of_an_input_that_is_too_long_what_fits_is_embedded_where_that_is_asked_for(
    bert: QueryBench,
) -> None:
    longest = tiny_embedding_gguf.CONTEXT
    fitting = " ".join(["cat"] * (longest - 2))
    ids = tuple(bert_ids(fitting))
    cut = bert.embed("cat " * 200, "the cat", (*ids, 9), truncate=True)
    whole = bert.embed(fitting, "the cat", ids)
    assert cut.tokens == whole.tokens == (longest, 4, longest)
    assert cut.errors == ()
    for vector, expected in zip(vectors_of(cut), vectors_of(whole), strict=True):
        np.testing.assert_allclose(vector, expected, atol=SAME)


def test_an_input_may_be_as_long_as_the_context(llama: QueryBench, bert: QueryBench) -> None:
    assert llama.embed((65,) * tiny_gguf.CONTEXT).errors == ()
    assert bert.embed((9,) * tiny_embedding_gguf.CONTEXT).errors == ()
    assert bert.embed((9,) * (tiny_embedding_gguf.CONTEXT + 1)).rows == (0,)


def test_special_tokens_around_a_text_are_added_as_the_model_wants_it(
    tmp_path: Path, log: LlamaLog
) -> None:
    bench = QueryBench(write_tiny_gguf(tmp_path / "bos.gguf", adds_bos=True), log)
    with_bos, bare = bench.embed("a"), bench.embed((ord("a") - ord("!"),))
    bench.close()
    assert (with_bos.tokens, bare.tokens) == ((2,), (1,))


@pytest.mark.parametrize("tokens", [1, 5])
def test_a_micro_batch_smaller_than_the_number_of_sequences_is_enough(
    llama_path: Path, log: LlamaLog, tokens: int
) -> None:
    """llama.cpp aborted: a batch has to hold a token of each sequence."""
    bench = QueryBench(llama_path, log, micro_batch_tokens=tokens)
    answer = bench.embed(*("hello", "world", "how", "are", "you"), LONG)
    bench.close()
    assert answer.rows == (1,) * 6


def test_calls_take_turns(llama: QueryBench) -> None:
    many = EmbedCall(call=1, inputs=tuple(f"{LONG}{number}" for number in range(100)))
    llama.queries.submit(many)
    llama.turn(64)
    llama.queries.submit(EmbedCall(call=2, inputs=("hello",)))
    while 2 not in llama.answers:
        llama.turn(64)
    assert 1 not in llama.answers
    llama.finish()
    assert isinstance(llama.answers[1], Embedded)


def test_calls_of_different_poolings_share_a_micro_batch(llama: QueryBench) -> None:
    for call, pooling in enumerate(("none", "mean", "last", "cls")):
        llama.queries.submit(EmbedCall(call=call, inputs=("hello",), pooling=pooling))  # type: ignore[arg-type]  # all are
    llama.turn()
    assert sorted(llama.answers) == [0, 1, 2, 3]


def test_a_turn_decodes_no_more_than_its_budget(
    llama: QueryBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    decode = EmbeddingContext.decode

    def watched(context: EmbeddingContext, pieces: Sequence[Piece]) -> list[Floats] | None:
        sizes.append(sum(len(piece.tokens) for piece in pieces))
        return decode(context, pieces)

    monkeypatch.setattr(EmbeddingContext, "decode", watched)
    answer = llama.embed(*(LONG * count for count in range(1, 8)), budget=10)
    assert max(sizes) == 10
    assert sum(sizes) == sum(answer.tokens)
    assert len(sizes) == llama.turns


def test_a_cancelled_call_is_never_heard_of_again_and_the_others_go_on(llama: QueryBench) -> None:
    for call in (1, 2):
        llama.queries.submit(EmbedCall(call=call, inputs=(LONG * 10, f"text {call}")))
    llama.turn(50)
    llama.queries.cancel(1)
    llama.queries.cancel(99)
    llama.finish(50)
    assert list(llama.answers) == [2]
    assert isinstance(llama.answers[2], Embedded)
    half, other = vectors_of(llama.answers[2])
    np.testing.assert_allclose(half, vectors_of(llama.embed(LONG * 10))[0], atol=1e-4)
    np.testing.assert_allclose(other, vectors_of(llama.embed("text 2"))[0], atol=SAME)


def test_cancelling_the_last_call_leaves_nothing_to_do(llama: QueryBench) -> None:
    llama.queries.submit(EmbedCall(call=1, inputs=(LONG * 10,)))
    llama.turn(8)
    llama.queries.cancel(1)
    assert not llama.queries.has_work


def test_cancelled_calls_give_their_sequences_back(llama: QueryBench) -> None:
    """64 sequences were given out and none came back: the 65th call waited for ever."""
    for call in range(100):
        llama.queries.submit(EmbedCall(call=call, inputs=(LONG * 10,)))
        llama.turn(8)
        llama.queries.cancel(call)
    assert llama.embed(LONG * 10).rows == (1,)


def test_too_many_calls_are_refused_and_those_before_are_answered(llama: QueryBench) -> None:
    for call in range(MAX_CALLS + 2):
        llama.queries.submit(EmbedCall(call=call, inputs=("hello",)))
    llama.finish()
    refused = [a for a in llama.answers.values() if isinstance(a, QueryRefused)]
    assert [answer.call for answer in refused] == [MAX_CALLS, MAX_CALLS + 1]
    assert {answer.code for answer in refused} == {RefusalCode.NO_FREE_SLOT}
    assert len(llama.answers) == MAX_CALLS + 2


def test_an_answer_that_would_be_too_big_is_refused(llama: QueryBench) -> None:
    rows = MAX_VECTOR_BYTES // (4 * tiny_gguf.WIDTH)
    inputs = tuple((number % 250,) * 500 for number in range(rows // 500 + 1))
    refused = llama.refusal(lambda call: EmbedCall(call=call, inputs=inputs, pooling="none"))
    assert refused.code == RefusalCode.UNSUPPORTED
    assert "fewer inputs" in refused.message
    assert not llama.queries.has_work


def test_an_input_that_llama_cpp_cannot_decode_fails_alone(
    llama: QueryBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = EmbeddingContext.decode

    def failing(context: EmbeddingContext, pieces: Sequence[Piece]) -> list[Floats] | None:
        if any((piece.tokens == 200).any() for piece in pieces):
            return None
        return decode(context, pieces)

    monkeypatch.setattr(EmbeddingContext, "decode", failing)
    answer = llama.embed("hello", (200, 200), "world")
    assert answer.rows == (1, 0, 1)
    assert [(error.index, error.code) for error in answer.errors] == [
        (1, RefusalCode.ENGINE_FAILED)
    ]


def test_vectors_that_are_no_numbers_are_an_error_of_their_input(
    llama: QueryBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = EmbeddingContext.decode

    def spoiled(context: EmbeddingContext, pieces: Sequence[Piece]) -> list[Floats] | None:
        found = decode(context, pieces)
        assert found is not None
        return [found[0] * np.float32("nan"), *found[1:]]

    monkeypatch.setattr(EmbeddingContext, "decode", spoiled)
    answer = llama.embed("hello", "world")
    assert answer.rows == (0, 1)
    assert answer.errors[0].code == RefusalCode.ENGINE_FAILED


def test_no_memory_for_the_context_refuses_the_calls(
    llama: QueryBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "agent.engine.llama.embedding_context.api.llama_init_from_model", lambda *_: None
    )
    refused = llama.refusal(lambda call: EmbedCall(call=call, inputs=("hello",)))
    assert refused.code == RefusalCode.ENGINE_FAILED
    assert "memory" in refused.message
    monkeypatch.undo()
    assert llama.embed("hello").rows == (1,)


def test_streams_go_on_between_the_micro_batches(llama: QueryBench, log: LlamaLog) -> None:
    """The same text comes out, a token a step, while embeddings are worked on."""
    submit = Submit(
        call=1,
        prompt="hello world",
        max_tokens=40,
        sampling=Sampling(temperature=0.0, ignore_eos=True),
    )

    def generated(*, embedding: bool) -> list[int]:
        context = Context(llama.model, llama.options, log)
        serving = Serving(llama.model, context, llama.options)
        serving.submit(submit)
        ids: list[int] = []
        while True:
            step = serving.turn()
            if step is None:
                break
            ids += [token for part in step.tokens for token in part.token_ids]
            if embedding:
                assert llama.queries.has_work
                llama.turn(16)
        context.close()
        return ids

    alone = generated(embedding=False)
    llama.queries.submit(EmbedCall(call=1, inputs=tuple(f"{LONG * 8}{n}" for n in range(40))))
    among = generated(embedding=True)
    llama.finish()
    assert among == alone
    assert isinstance(llama.answers[1], Embedded)
    assert len(alone) == 40


def test_documents_are_scored_as_numpy_scores_them(reranker: QueryBench) -> None:
    query, documents = "which port", ("port 8080", "the cat sat on the mat", "port 8080", "is")
    answer = reranker.rerank(query, *documents)
    weights = bert_weights(classes=1)
    end = bert_tokens().index("[SEP]")
    for document, score, tokens in zip(documents, answer.scores, answer.tokens, strict=True):
        ids = [*bert_ids(query), *bert_ids(document)[1:-1]]
        assert ids.count(end) == 1
        assert tokens == len(ids)
        assert score == pytest.approx(bert_score(weights, ids), abs=GELU_TABLE)
    assert answer.scores[0] == answer.scores[2]


def test_a_document_too_long_is_named_by_index_and_the_others_are_scored(
    reranker: QueryBench,
) -> None:
    answer = reranker.rerank("which port", "port 1", "cat " * 200, "port 2")
    assert [score is None for score in answer.scores] == [False, True, False]
    assert [(error.index, error.code) for error in answer.errors] == [
        (1, RefusalCode.CONTEXT_TOO_LONG)
    ]


def test_a_model_s_own_prompt_for_reranking_is_used(tmp_path: Path, log: LlamaLog) -> None:
    path = write_tiny_bert(
        tmp_path / "own.gguf",
        pooling=gguf.PoolingType.RANK,
        rerank_template="[CLS]{query} is {document}[SEP]",
    )
    bench = QueryBench(path, log)
    answer = bench.rerank("the {document}", "cat")
    ids = bench.model.vocabulary.tokenize("[CLS]the {document} is cat[SEP]").tolist()
    bench.close()
    assert answer.tokens == (len(ids),)
    assert answer.scores[0] == pytest.approx(
        bert_score(bert_weights(classes=1), ids), abs=GELU_TABLE
    )


def test_the_pooling_rank_gives_the_scores_of_the_head(reranker: QueryBench) -> None:
    answer = reranker.embed("which port", pooling="rank")
    assert (answer.dimensions, answer.rows) == (1, (1,))
    expected = bert_score(bert_weights(classes=1), bert_ids("which port"))
    assert vectors_of(answer)[0][0, 0] == pytest.approx(expected, abs=GELU_TABLE)


def test_a_reranker_serves_vectors_and_scores_side_by_side(reranker: QueryBench) -> None:
    reranker.queries.submit(EmbedCall(call=1, inputs=TEXTS, pooling="cls"))
    reranker.queries.submit(RerankCall(call=2, query="which port", documents=TEXTS))
    reranker.finish()
    embedded, reranked = reranker.answers[1], reranker.answers[2]
    assert isinstance(embedded, Embedded)
    assert isinstance(reranked, Reranked)
    expected = pooled(bert_rows(bert_weights(classes=1), bert_ids(TEXTS[0])), "cls")
    np.testing.assert_allclose(vectors_of(embedded)[0][0], expected, atol=GELU_TABLE)
    assert None not in reranked.scores


def test_a_model_that_reads_from_left_to_right_scores_documents_in_pieces(
    tmp_path: Path, log: LlamaLog
) -> None:
    path = write_tiny_causal_reranker(tmp_path / "causal.gguf")
    documents = tuple(f"{LONG * count}{count}" for count in range(1, 13))
    whole = QueryBench(path, log, micro_batch_tokens=512)
    expected = [whole.rerank("which port", document).scores[0] for document in documents]
    whole.close()
    pieces = QueryBench(path, log, micro_batch_tokens=32)
    answer = pieces.rerank("which port", *documents)
    pieces.close()
    assert pieces.turns > sum(answer.tokens) / 33
    for score, wanted in zip(answer.scores, expected, strict=True):
        assert score == pytest.approx(wanted, abs=SAME)
        assert score is not None
        assert 0 < score < 1
    assert len(set(expected)) == len(documents)


@pytest.mark.parametrize(
    "call",
    [
        RerankCall(call=1, query="a", documents=("b",)),
        EmbedCall(call=1, inputs=("a",), pooling="rank"),
    ],
)
@pytest.mark.parametrize("bench", ["bert", "llama"])
def test_models_without_a_head_refuse_to_rerank(
    bench: str, call: EmbedCall | RerankCall, request: pytest.FixtureRequest
) -> None:
    queries: QueryBench = request.getfixturevalue(bench)
    queries.queries.submit(call)
    queries.finish()
    refused = queries.answers[1]
    assert isinstance(refused, QueryRefused)
    assert refused.code == RefusalCode.UNSUPPORTED
    assert "cannot rerank" in refused.message
