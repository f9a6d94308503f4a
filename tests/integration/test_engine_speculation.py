"""Drafts checked by llama.cpp itself: the shipped model, one context, no engine around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

import numpy as np
import pytest

from agent.demo_model import DEMO_MODEL_PATH, corpus
from agent.demo_model.greedy import chat_template
from agent.engine.frames import EngineOptions
from agent.engine.llama.arrays import Floats, Ints
from agent.engine.llama.context import Context
from agent.engine.llama.log import LlamaLog, start_backend
from agent.engine.llama.model import Model
from agent.engine.pace import DecodeCosts, Pace
from agent.engine.speculation import Drafter, NgramDrafter, Speculation
from tests.support.sure_prompts import sure_prompts_of

LONGEST_ANSWER = 300
Choose = Callable[[Floats, int], int]
"""A token from logits and its position in the answer."""


@dataclass
class Counts:
    """What a run took."""

    tokens: int = 0
    decodes: int = 0
    verifications: int = 0
    drafted: int = 0
    accepted: int = 0


@dataclass
class Stream:
    """One answer after another in slot 0."""

    model: Model
    context: Context
    position: int = 0
    counts: Counts = field(default_factory=Counts)

    def prefill(self, prompt: Ints) -> Floats:
        """The logits after the prompt."""
        self.context.forget(0)
        self.context.batch.clear()
        self.context.batch.add_prompt(prompt, 0, 0, output=True)
        assert self.context.decode() == 0
        self.position = len(prompt)
        row: Floats = self.context.logits()[0].copy()
        return row

    def check(self, token: int, draft: Sequence[int]) -> Floats:
        """The logits after a token and after each of those drafted behind it."""
        tokens = np.array([token, *draft], dtype=np.int32)
        positions = np.arange(self.position, self.position + len(tokens), dtype=np.int32)
        self.context.batch.clear()
        self.context.batch.add_decode(tokens, positions, np.zeros_like(tokens))
        assert self.context.decode() == 0
        self.position += len(tokens)
        return self.context.logits().copy()

    def trim(self, rejected: int) -> None:
        """Drop the last tokens."""
        self.position -= rejected
        assert self.context.forget(0, self.position)

    def answer(self, prompt: Ints, choose: Choose, speculation: Speculation | None) -> list[int]:
        """Generate until the end token."""
        tokens = [choose(self.prefill(prompt), 0)]
        if speculation is not None:
            speculation.accept(tokens)
        while tokens[-1] not in self.model.vocabulary.end_tokens and len(tokens) < LONGEST_ANSWER:
            tokens += self._step(tokens, choose, speculation)
        return tokens

    def _step(
        self, tokens: list[int], choose: Choose, speculation: Speculation | None
    ) -> list[int]:
        draft: list[int] = []
        if speculation is not None:
            allowed = speculation.allowance(busy_slots=1, slots=1)
            draft = speculation.draft(allowed).tolist()
        chosen: list[int] = []
        for at, row in enumerate(self.check(tokens[-1], draft)):
            chosen.append(choose(row, len(tokens) + at))
            ended = chosen[-1] in self.model.vocabulary.end_tokens
            if ended or at == len(draft) or chosen[-1] != draft[at]:
                break
        rejected = len(draft) + 1 - len(chosen)
        if rejected:
            self.trim(rejected)
        if speculation is not None:
            speculation.accept(chosen)
        self._count(draft, chosen)
        return chosen

    def _count(self, draft: list[int], chosen: list[int]) -> None:
        self.counts.tokens += len(chosen)
        self.counts.decodes += 1
        if draft:
            self.counts.verifications += 1
            self.counts.drafted += len(draft)
            pairs = zip(draft, chosen, strict=False)
            self.counts.accepted += sum(guess == token for guess, token in pairs)


def greedy(row: Floats, _position: int) -> int:
    return int(row.argmax())


def sampled(row: Floats, position: int) -> int:
    """Seeded by the position: the largest logit plus Gumbel noise."""
    return int((row + np.random.default_rng([7, position]).gumbel(size=len(row))).argmax())


@pytest.fixture(scope="module")
def log() -> LlamaLog:
    return start_backend()


@pytest.fixture(scope="module")
def options() -> EngineOptions:
    """Under these a row's logits do not depend on how many others are decoded with it."""
    return EngineOptions(
        model_path=str(DEMO_MODEL_PATH),
        slots=1,
        threads=1,
        cache_type="f32",
        flash_attention="off",
        context_tokens=1024,
    )


@pytest.fixture(scope="module")
def model(log: LlamaLog, options: EngineOptions) -> Iterator[Model]:
    model = Model(options, log)
    yield model
    model.close()


@pytest.fixture(scope="module")
def context(model: Model, log: LlamaLog, options: EngineOptions) -> Iterator[Context]:
    context = Context(model, options, log)
    yield context
    context.close()


@pytest.fixture
def stream(model: Model, context: Context) -> Stream:
    return Stream(model, context)


def prompt_of(model: Model, question: str) -> Ints:
    messages = [{"role": "user", "content": question}]
    text = chat_template(model.chat_template).render(
        messages=messages, add_generation_prompt=True, enable_thinking=False
    )
    return model.vocabulary.tokenize(text)


def paced() -> Pace:
    """Rows cost what they did on one thread of a CPU; the clock stays out of the tests."""
    costs = DecodeCosts(split=False)
    for rows, seconds in ((1, 1.0), (2, 1.24), (5, 2.17), (9, 3.5), (13, 4.8), (17, 6.2)):
        costs.took(rows, 0, seconds)
    return Pace(costs)


def by_ngrams(model: Model, prompt: Ints) -> Speculation:
    return Speculation(NgramDrafter(prompt, ends=model.vocabulary.end_tokens), paced())


def compared(stream: Stream, questions: Sequence[str], choose: Choose = greedy) -> Counts:
    """Answer with drafts, and check that the answers are those without."""
    for question in questions:
        prompt = prompt_of(stream.model, question)
        plain = Stream(stream.model, stream.context).answer(prompt, choose, None)
        speculation = by_ngrams(stream.model, prompt)
        assert stream.answer(prompt, choose, speculation) == plain, question
    return stream.counts


def test_a_decode_of_several_tokens_gives_the_logits_of_each(stream: Stream) -> None:
    question, answer = sure_prompts_of("copying")[0]
    prompt = prompt_of(stream.model, question)
    tokens = stream.model.vocabulary.tokenize(answer).tolist()[:9]
    stream.prefill(prompt)
    one_by_one = np.concatenate([stream.check(token, []) for token in tokens])
    stream.prefill(prompt)
    at_once = stream.check(tokens[0], tokens[1:])
    assert at_once.shape == (9, stream.model.vocabulary.size)
    np.testing.assert_allclose(at_once, one_by_one, atol=1e-3)
    assert (at_once.argmax(axis=1) == one_by_one.argmax(axis=1)).all()


def test_trimmed_tokens_leave_no_trace(stream: Stream) -> None:
    question, answer = sure_prompts_of("copying")[0]
    prompt = prompt_of(stream.model, question)
    first, second = stream.model.vocabulary.tokenize(answer).tolist()[:2]
    stream.prefill(prompt)
    stream.check(first, [])
    clean = stream.check(second, [])
    stream.prefill(prompt)
    stream.check(first, [17, 4, 17, 4, 17])
    stream.trim(5)
    np.testing.assert_allclose(stream.check(second, []), clean, atol=1e-3)


def test_copied_text_comes_at_three_accepted_tokens_a_verification_or_more(stream: Stream) -> None:
    rng = Random(2026)
    counts = compared(stream, [ask for ask, _ in corpus.copying_tasks(rng, 50)])
    assert counts.accepted / counts.verifications >= 3.0
    assert counts.decodes < counts.tokens / 3


def test_the_surest_answers_are_the_published_ones_with_drafts(stream: Stream) -> None:
    for kind in ("copying", "alphabet", "fact"):
        for question, answer in sure_prompts_of(kind)[:10]:
            prompt = prompt_of(stream.model, question)
            tokens = stream.answer(prompt, greedy, by_ngrams(stream.model, prompt))
            pieces = [stream.model.vocabulary.pieces[token] for token in tokens]
            assert b"".join(pieces).decode() == answer


def test_what_does_not_repeat_is_hardly_drafted_and_comes_out_the_same(stream: Stream) -> None:
    rng = Random(7)
    questions = [ask for ask, _ in corpus.counting_tasks(rng, 5) + corpus.alphabet_tasks(rng, 5)]
    counts = compared(stream, questions)
    assert counts.drafted < 0.5 * counts.tokens


def test_sampled_text_is_the_same_with_drafts(stream: Stream) -> None:
    rng = Random(3)
    questions = [ask for ask, _ in corpus.copying_tasks(rng, 10) + corpus.facts()[:10]]
    counts = compared(stream, [*questions, "Roll a die 100 times."], sampled)
    assert counts.accepted > 50


class Garbage(Drafter):
    """Drafts as much as it may, always wrong sooner or later."""

    def __init__(self, right: Sequence[int]) -> None:
        self._right = list(right)
        self._rng = Random(1)

    def draft(self, most: int) -> Ints:
        right = self._right[: self._rng.randrange(most)]
        wrong = [self._rng.randrange(1280) for _ in range(most - len(right))]
        return np.array([*right, *wrong], dtype=np.int32)

    def accept(self, tokens: Sequence[int]) -> None:
        del self._right[: len(tokens)]


class Eager(Pace):
    """Checks whatever is drafted."""

    def allowance(self, *, busy_slots: int, slots: int, most: int = 16) -> int:
        del busy_slots, slots
        return most


def test_no_draft_however_wrong_changes_the_text(stream: Stream) -> None:
    for question, _ in corpus.copying_tasks(Random(9), 5):
        prompt = prompt_of(stream.model, question)
        plain = Stream(stream.model, stream.context).answer(prompt, greedy, None)
        eager = Speculation(Garbage(plain), Eager(DecodeCosts(split=False)))
        assert stream.answer(prompt, greedy, eager) == plain
    assert stream.counts.drafted > 2 * stream.counts.accepted > 0
