"""The made-up models: what they are, and that text and tokens are the same thing to them."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from agent.engine.frames import EngineOptions, Sampling
from agent.engine.llama.log import start_backend
from agent.engine.llama.model import Model
from tests.support.engine_bench import EngineBench
from tests.support.engine_calls import Heard
from tests.support.random_gguf import (
    CONTEXT,
    FIRST_WORD,
    SIZES,
    VOCABULARY,
    WORDS,
    prompt_tokens,
    text_of,
    write_random_gguf,
)

LOG = start_backend()
ANSWER = 200


@pytest.fixture(scope="module", params=["tiny", "tiny-q8_0", "tiny-f32"])
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Model]:
    name: str = request.param
    path = write_random_gguf(tmp_path_factory.mktemp("models") / "model.gguf", name, SIZES[name])
    loaded = Model(EngineOptions(model_path=str(path)), LOG)
    yield loaded
    loaded.close()


def test_a_prompt_of_so_many_words_has_so_many_tokens(model: Model) -> None:
    tokens = prompt_tokens(random.Random(1), 500)
    assert model.vocabulary.tokenize(text_of(tokens)).tolist() == tokens


def test_other_text_survives_the_way_through_tokens(model: Model) -> None:
    text = 'Grüße, 世界! {"field": [1, 2.5, true]}\n\tThe quick brown fox\'s 42.'
    pieces = [model.vocabulary.pieces[token] for token in model.vocabulary.tokenize(text)]
    assert b"".join(pieces).decode() == text


def test_it_has_a_long_context_a_template_and_one_end_token(model: Model) -> None:
    assert model.trained_context_tokens == CONTEXT
    assert model.vocabulary.size == VOCABULARY
    assert "<|im_start|>" in model.chat_template
    assert len(model.vocabulary.end_tokens) == 1


def test_what_it_is_sure_of_reads_back_as_what_was_said(model: Model) -> None:
    heard = _said(model, Sampling(temperature=0.0))
    assert model.vocabulary.tokenize(heard.text).tolist() == heard.token_ids


def test_what_it_draws_is_words_and_hardly_anything_else(model: Model) -> None:
    heard = _said(model, Sampling(temperature=1.0, seed=1))
    words = range(FIRST_WORD, FIRST_WORD + WORDS)
    assert sum(token in words for token in heard.token_ids) > 0.95 * ANSWER


def _said(model: Model, sampling: Sampling) -> Heard:
    bench = EngineBench(model, LOG, EngineOptions(model_path="", slots=1, threads=1))
    heard = bench.call(text_of([5000, 6000]), sampling=sampling, max_tokens=ANSWER)
    bench.close()
    assert len(heard.token_ids) == ANSWER
    return heard
