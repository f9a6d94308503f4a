"""Embeddings and scores: calls share micro-batches, one of them between two steps of generation.

A *lane* is one context and the calls that need it: one lane gives vectors a token, which all
poolings are made of, the other the scores of a classification head. Both contexts are made on first
use. The calls of a lane take turns, an input each; a lane whose model allows it decodes a long
input in pieces, others whole, and such an input is then the longest that a stream may have to wait.
"""

from __future__ import annotations

from collections import deque

from agent.engine.embedding.jobs import EmbedJob, Entry, Job, RerankJob
from agent.engine.frames import EngineOptions
from agent.engine.llama.embedding_context import (
    EmbeddingContext,
    Piece,
    own_pooling,
    rerank_template,
    score_count,
    vector_size,
)
from agent.engine.llama.log import LlamaLog
from agent.engine.llama.model import Model
from agent.engine.prompts import PromptRefused
from agent.engine.query_frames import EmbedCall, QueryAnswer, QueryRefused, RerankCall
from agent.errors import ModelUnusable
from protocol.refusals import RefusalCode

MAX_CALLS = 16
"""Calls that may wait or be worked on; more are refused. Each may hold 32 MiB of vectors."""
TURN_TEXT_BYTES = 32 * 1024
"""Text that one turn begins to tokenise no more after: about 12 ms."""


class Lane:
    """The calls of one context."""

    def __init__(
        self, model: Model, options: EngineOptions, log: LlamaLog, *, scores: bool
    ) -> None:
        self._model, self._options, self._log, self._scores = model, options, log, scores
        self._context: EmbeddingContext | None = None
        self._jobs: dict[int, Job] = {}
        self._ready: deque[Entry] = deque()
        """Tokenised and not yet done; at most the first is half decoded."""
        self._sequences: list[int] = []
        self._answers: list[QueryAnswer] = []

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, job: Job) -> None:
        """Take a call."""
        self._jobs[job.call] = job

    def cancel(self, call: int) -> None:
        """Forget a call and what was decoded for it."""
        job = self._jobs.pop(call, None)
        for entry in [entry for entry in self._ready if entry.job is job]:
            self._ready.remove(entry)
            self._free(entry)

    def turn(self, budget: int | None) -> list[QueryAnswer]:
        """Decode at most one micro-batch; the answers that are complete now."""
        try:
            context = self._made_context()
        except ModelUnusable as unusable:
            for call in list(self._jobs):
                self._refuse(call, RefusalCode.ENGINE_FAILED, str(unusable))
        else:
            chosen = self._choose(context, context.batch_tokens if budget is None else budget)
            if chosen:
                self._decode(context, chosen)
            for job in [job for job in self._jobs.values() if job.is_over]:
                del self._jobs[job.call]
                self._answers.append(job.answer())
        answers, self._answers = self._answers, []
        return answers

    def close(self) -> None:
        """Free the context."""
        if self._context is not None:
            self._context.close()

    def _made_context(self) -> EmbeddingContext:
        if self._context is None:
            self._context = EmbeddingContext(
                self._model, self._options, self._log, scores=self._scores
            )
            self._sequences = list(range(self._context.sequences))
        return self._context

    def _choose(self, context: EmbeddingContext, budget: int) -> list[tuple[Entry, int]]:
        """What goes into the next micro-batch: inputs, and how many tokens of each."""
        room = min(max(budget, 1), context.batch_tokens)
        cells = context.cells - sum(entry.done for entry in self._ready)
        text_bytes = TURN_TEXT_BYTES
        chosen: list[tuple[Entry, int]] = []
        while room > 0:
            if not self._ready:
                text_bytes -= self._take_input(context, text_bytes)
            if not self._ready:
                break
            entry = self._ready[0]
            count = entry.left if entry.left <= room or not context.splits else room
            if chosen and not (count <= min(room, cells) and self._may_join(entry, chosen)):
                break
            chosen.append((self._ready.popleft(), count))
            room, cells = room - count, cells - count
        return chosen

    def _may_join(self, entry: Entry, chosen: list[tuple[Entry, int]]) -> bool:
        """Whether the input may be decoded with the others, and there is a sequence for it."""
        taken = sum(other.sequence is None for other, _ in chosen)
        return not (entry.alone or chosen[0][0].alone) and len(self._sequences) > taken

    def _take_input(self, context: EmbeddingContext, text_bytes: int) -> int:
        """Tokenise inputs until one is ready or so much text is used up; how much was."""
        used = 0
        while not self._ready and used < text_bytes:
            job = next((job for job in self._jobs.values() if job.has_pending), None)
            if job is None:
                break
            self._jobs[job.call] = self._jobs.pop(job.call)
            used += job.next_size
            job.input_tokens = context.input_tokens
            try:
                entry = job.next_entry()
            except PromptRefused as refusal:
                self._refuse(job.call, refusal.code, str(refusal), refusal.facts)
                continue
            if entry is not None:
                self._ready.append(entry)
        return used

    def _decode(self, context: EmbeddingContext, chosen: list[tuple[Entry, int]]) -> None:
        pieces: list[Piece] = []
        for entry, count in chosen:
            if entry.sequence is None:
                entry.sequence = self._sequences.pop()
            tokens = entry.tokens[entry.done : entry.done + count]
            pieces.append(Piece(tokens, entry.done, entry.sequence))
        found = context.decode(pieces)
        if found is None:
            self._take_apart([entry for entry, _ in chosen])
            return
        for (entry, count), rows in zip(chosen, found, strict=True):
            entry.pool.add(rows)
            entry.done += count
            if entry.left:
                self._ready.appendleft(entry)
            else:
                self._free(entry)
                entry.job.settle(entry)

    def _take_apart(self, entries: list[Entry]) -> None:
        """A micro-batch failed: only inputs that fail alone, too, must fail."""
        for entry in entries:
            self._free(entry)
            if len(entries) == 1:
                message = "llama.cpp could not decode it"
                entry.job.fail(entry.index, RefusalCode.ENGINE_FAILED, message)
            else:
                entry.start_again()
                self._ready.append(entry)

    def _free(self, entry: Entry) -> None:
        if entry.sequence is not None and self._context is not None:
            self._context.forget(entry.sequence)
            self._sequences.append(entry.sequence)
            entry.sequence = None

    def _refuse(
        self, call: int, code: int, message: str, facts: dict[str, int | str] | None = None
    ) -> None:
        self.cancel(call)
        refused = QueryRefused(call=call, code=int(code), message=message, facts=facts or {})
        self._answers.append(refused)


class Embedder:
    """All embedding and reranking calls of one model. `MAX_CALLS` at once, more are refused."""

    def __init__(self, model: Model, options: EngineOptions, log: LlamaLog) -> None:
        self._model = model
        self._own_pooling = own_pooling(model)
        self._vectors = Lane(model, options, log, scores=False)
        self._scores = Lane(model, options, log, scores=True)
        self._order = [self._vectors, self._scores]
        self._answers: list[QueryAnswer] = []

    @property
    def has_work(self) -> bool:
        """Whether a turn would do something."""
        return bool(self._answers or any(map(len, self._order)))

    @property
    def can_rerank(self) -> bool:
        """Whether the model has a classification head."""
        return self._own_pooling == "rank"

    def submit(self, command: EmbedCall | RerankCall) -> None:
        """Take a call, or refuse it with the next turn's answers."""
        try:
            if sum(map(len, self._order)) >= MAX_CALLS:
                message = f"{MAX_CALLS} calls wait for embeddings"
                raise PromptRefused(RefusalCode.NO_FREE_SLOT, message)
            lane, job = self._job_of(command)
        except PromptRefused as refusal:
            self._answers.append(
                QueryRefused(
                    call=command.call,
                    code=refusal.code,
                    message=str(refusal),
                    facts=refusal.facts,
                )
            )
        else:
            lane.add(job)

    def cancel(self, call: int) -> None:
        """Forget a call; nothing more is said about it. Unknown: no effect."""
        self._answers = [answer for answer in self._answers if answer.call != call]
        for lane in self._order:
            lane.cancel(call)

    def turn(self, budget: int | None = None) -> list[QueryAnswer]:
        """Decode at most one micro-batch, of at most `budget` tokens where inputs can be split
        (None: as many as one holds); the answers that are complete now."""
        answers, self._answers = self._answers, []
        lane = next((lane for lane in self._order if len(lane)), None)
        if lane is not None:
            self._order.remove(lane)
            self._order.append(lane)
            answers += lane.turn(budget)
        return answers

    def close(self) -> None:
        """Free the contexts."""
        for lane in self._order:
            lane.close()

    def _job_of(self, command: EmbedCall | RerankCall) -> tuple[Lane, Job]:
        vocabulary = self._model.vocabulary
        if isinstance(command, RerankCall):
            self._check_can_rerank()
            return self._scores, RerankJob(command, vocabulary, rerank_template(self._model))
        pooling = command.pooling or self._own_pooling or "mean"
        if pooling == "rank":
            self._check_can_rerank()
        width = score_count(self._model) if pooling == "rank" else vector_size(self._model)
        if command.dimensions is not None and not 1 <= command.dimensions <= width:
            message = f"`dimensions` must be 1 to {width}, the size of this model's vectors"
            raise PromptRefused(RefusalCode.UNSUPPORTED, message, param="dimensions")
        lane = self._scores if pooling == "rank" else self._vectors
        return lane, EmbedJob(command, vocabulary, pooling, width)

    def _check_can_rerank(self) -> None:
        if not self.can_rerank:
            raise PromptRefused(
                RefusalCode.UNSUPPORTED,
                "this model cannot rerank: its GGUF names no pooling `rank`, so it has no "
                "classification head; use a reranking model",
                param="model",
            )
