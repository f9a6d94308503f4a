"""One embedding or reranking call: its inputs, what became of each, its answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agent.engine.embedding.pooling import SCALED, Pool, finished
from agent.engine.embedding.rerank import rerank_prompt
from agent.engine.llama.arrays import Floats, Ints
from agent.engine.llama.vocabulary import Vocabulary
from agent.engine.prompts import PromptRefused
from agent.engine.query_frames import EmbedCall, Embedded, QueryAnswer, RerankCall, Reranked
from protocol.embeddings import MAX_VECTOR_BYTES, EmbeddingInput, InputError, Pooling
from protocol.invariants import instance_of
from protocol.refusals import RefusalCode

FIRST_LOOK_BYTES = 32 * 1024
"""A longer text is not tokenised as a whole before its beginning was seen to fit."""
CUT_TOKENS = 16
"""A cut may have made so many more of the tokens around it."""


@dataclass(slots=True, eq=False)
class Entry:
    """An input on its way: `done` of its tokens are decoded. `alone`: it failed among others."""

    job: Job
    index: int
    tokens: Ints
    pool: Pool
    done: int = 0
    sequence: int | None = None
    alone: bool = False

    @property
    def left(self) -> int:
        """Tokens still to be decoded."""
        return len(self.tokens) - self.done

    def start_again(self) -> None:
        """Forget what was decoded."""
        self.done, self.pool, self.alone = 0, Pool(self.job.pooling), True


@dataclass(slots=True)
class _Result:
    """Of one distinct input."""

    tokens: int = 0
    vectors: Floats | None = None
    error: tuple[int, str] | None = None


class Job(ABC):
    """A call; equal inputs are decoded once, and so give equal answers."""

    def __init__(
        self,
        call: int,
        inputs: Sequence[EmbeddingInput],
        pooling: Pooling,
        vocabulary: Vocabulary,
    ) -> None:
        self.call = call
        self.pooling = pooling
        self.vocabulary = vocabulary
        self.input_tokens = 0
        """Most tokens of an input; set by whose context it is."""
        self._inputs = list(dict.fromkeys(inputs))
        numbers = {text: number for number, text in enumerate(self._inputs)}
        self._number_of = [numbers[text] for text in inputs]
        self._results = [_Result() for _ in self._inputs]
        self._copies: list[int] = np.bincount(self._number_of).tolist()
        self._row_bytes = 0
        self._size_bytes = 0
        self._taken = 0
        self._settled = 0

    @property
    def has_pending(self) -> bool:
        """Whether an input was not taken yet."""
        return self._taken < len(self._results)

    @property
    def is_over(self) -> bool:
        """Whether the answer is complete."""
        return self._settled == len(self._results)

    def next_entry(self) -> Entry | None:
        """The next input; None: it cannot be used, which is noted. Raises `PromptRefused` if the
        whole call cannot be answered."""
        index = self._taken
        self._taken += 1
        try:
            tokens = self._tokens_of(index)
            self._check_length(len(tokens))
        except PromptRefused as refusal:
            self.fail(index, refusal.code, str(refusal))
            self._results[index].tokens = int(refusal.facts.get("prompt_tokens", 0))
            return None
        self._results[index].tokens = len(tokens)
        self._check_size(index, len(tokens))
        return Entry(self, index, tokens, Pool(self.pooling))

    def settle(self, entry: Entry) -> None:
        """All of the input is decoded."""
        vectors = entry.pool.vectors()
        if not np.isfinite(vectors).all():
            message = "the model gave no usable numbers for it"
            self.fail(entry.index, RefusalCode.ENGINE_FAILED, message)
            return
        self._settled += 1
        self._results[entry.index].vectors = self._finished(vectors)

    def fail(self, index: int, code: int, message: str) -> None:
        """The input has no result."""
        self._settled += 1
        self._results[index].error = (int(code), message)

    @property
    def next_size(self) -> int:
        """The length of the next input's text, or ids."""
        return len(self._inputs[self._taken])

    @property
    def results(self) -> list[_Result]:
        """Of all inputs, in their order."""
        return [self._results[number] for number in self._number_of]

    @property
    def errors(self) -> tuple[InputError, ...]:
        """Of the inputs that have no result."""
        return tuple(
            InputError(index, *result.error)
            for index, result in enumerate(self.results)
            if result.error
        )

    @abstractmethod
    def answer(self) -> QueryAnswer:
        """What to say when it is over."""

    @abstractmethod
    def _tokens_of(self, index: int) -> Ints: ...

    def _finished(self, vectors: Floats) -> Floats:
        return vectors

    def _check_size(self, index: int, tokens: int) -> None:
        rows = tokens if self.pooling == "none" else 1
        self._size_bytes += rows * self._copies[index] * self._row_bytes
        if self._size_bytes > MAX_VECTOR_BYTES:
            raise PromptRefused(
                RefusalCode.UNSUPPORTED,
                f"the vectors would be more than {MAX_VECTOR_BYTES} bytes: send fewer inputs at a "
                "time, or ask for fewer `dimensions`",
                param="input",
            )

    def _check_length(self, tokens: int) -> None:
        if tokens == 0:
            raise PromptRefused(RefusalCode.UNSUPPORTED, "the input is empty", param="input")
        if tokens > self.input_tokens:
            raise _too_long(tokens, self.input_tokens)


class EmbedJob(Job):
    """The job of an `EmbedCall`; `width` is the size of the model's vectors."""

    def __init__(
        self, command: EmbedCall, vocabulary: Vocabulary, pooling: Pooling, width: int
    ) -> None:
        super().__init__(command.call, command.inputs, pooling, vocabulary)
        self._command = command
        self._dimensions = command.dimensions or width
        self._row_bytes = 4 * self._dimensions

    def answer(self) -> Embedded:
        """The vectors of all inputs, in their order."""
        vectors = [result.vectors for result in self.results]
        return Embedded(
            call=self.call,
            pooling=self.pooling,
            dimensions=self._dimensions,
            rows=tuple(0 if found is None else len(found) for found in vectors),
            tokens=tuple(result.tokens for result in self.results),
            vectors=b"".join(found.tobytes() for found in vectors if found is not None),
            errors=self.errors,
        )

    def _tokens_of(self, index: int) -> Ints:
        source, size = self._inputs[index], self.vocabulary.size
        if isinstance(source, str):
            if self._command.truncate:
                return ids_that_fit(source, self.vocabulary, self.input_tokens)
            check_text(source, self.vocabulary, self.input_tokens)
            return self.vocabulary.tokenize(source, add_special=True)
        if source and not 0 <= min(source) <= max(source) < size:
            raise PromptRefused(
                RefusalCode.UNSUPPORTED,
                f"the input holds token ids outside of the vocabulary (0 to {size - 1})",
            )
        ids = np.array(source, dtype=np.int32)
        return ids[: self.input_tokens] if self._command.truncate else ids

    def _finished(self, vectors: Floats) -> Floats:
        normalize = self._command.normalize and self.pooling in SCALED
        return finished(vectors, dimensions=self._dimensions, normalize=normalize)


class RerankJob(Job):
    """The job of a `RerankCall`."""

    def __init__(self, command: RerankCall, vocabulary: Vocabulary, template: str) -> None:
        super().__init__(command.call, command.documents, "rank", vocabulary)
        self._query = command.query
        self._template = template

    def answer(self) -> Reranked:
        """The scores of all documents, in their order."""
        return Reranked(
            call=self.call,
            scores=tuple(
                None if result.vectors is None else float(result.vectors[0, 0])
                for result in self.results
            ),
            tokens=tuple(result.tokens for result in self.results),
            errors=self.errors,
        )

    @property
    def next_size(self) -> int:
        """Query and document: both are tokenised for each."""
        return super().next_size + len(self._query)

    def _tokens_of(self, index: int) -> Ints:
        document = instance_of(self._inputs[index], str)
        for text in (self._query, document):
            check_text(text, self.vocabulary, self.input_tokens)
        return rerank_prompt(self.vocabulary, self._template, self._query, document)


def check_text(text: str, vocabulary: Vocabulary, most_tokens: int) -> None:
    """Raise `PromptRefused` if a text that is long is too long, tokenising no more than is needed.

    What this and the tokenising after it cost is bounded by `most_tokens`, not by the text.
    """
    data = text.encode("utf-8", "replace")
    if len(data) // vocabulary.longest_piece > most_tokens:
        raise _too_long(len(data) // vocabulary.longest_piece, most_tokens, at_least=True)
    size = FIRST_LOOK_BYTES
    while size < len(data):
        beginning = data[:size].decode("utf-8", "ignore")
        tokens = len(vocabulary.tokenize(beginning)) - CUT_TOKENS
        if tokens > most_tokens:
            raise _too_long(tokens, most_tokens, at_least=True)
        size *= 2


def ids_that_fit(text: str, vocabulary: Vocabulary, most_tokens: int) -> Ints:
    """The ids of as much of a text as has at most so many, with those that the model wants around
    it. What it costs is bounded as that of `check_text` is."""
    data = text.encode("utf-8", "replace")[: (most_tokens + CUT_TOKENS) * vocabulary.longest_piece]
    size = FIRST_LOOK_BYTES
    while True:
        beginning = data[:size].decode("utf-8", "ignore")
        plain = vocabulary.tokenize(beginning)
        if size >= len(data) or len(plain) - CUT_TOKENS > most_tokens:
            break
        size *= 2
    ids = vocabulary.tokenize(beginning, add_special=True)
    added = len(ids) - len(plain)
    if len(ids) <= most_tokens:
        return ids
    before = next(
        (at for at in range(added) if np.array_equal(ids[at : at + len(plain)], plain)), added
    )
    kept = plain[: max(most_tokens - added, 0)]
    return np.concatenate([ids[:before], kept, ids[before + len(plain) :]])


def _too_long(tokens: int, most: int, *, at_least: bool = False) -> PromptRefused:
    about = "at least " if at_least else ""
    return PromptRefused(
        RefusalCode.CONTEXT_TOO_LONG,
        f"the input has {about}{tokens} tokens, at most {most} can be taken",
        prompt_tokens=tokens,
        context_tokens=most,
    )
