"""The calls in the engine: admit, decode, sample, end. Driven by worker.py, one turn at a time."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np

from agent.engine.frames import (
    Accepted,
    CallFailed,
    CallProgress,
    CallTokens,
    CancelCall,
    ContinueCall,
    Ended,
    PauseCall,
    Refused,
    Step,
    Submit,
)
from agent.engine.generation import Generation, ResumeMismatch
from agent.engine.llama.arrays import Ints
from agent.engine.llama.context import Context
from agent.engine.llama.model import Model
from agent.engine.llama.sampler_chain import Candidates
from agent.engine.prompts import PromptRefused, known_tokens
from agent.engine.sampling import Sampler
from agent.engine.scheduler import Plan, Scheduler, Seat
from agent.engine.stderr_lines import say
from agent.errors import ModelUnusable
from protocol.generation import FinishReason, Timings, Usage
from protocol.refusals import RefusalCode

PROMPT_BUDGET = 128
"""Prompt tokens a step while others generate: their largest gap was 148 ms, 1633 with 2048."""
WARM_UP_TOKENS = 16


@dataclass(slots=True)
class _Call:
    generation: Generation
    prompt_tokens: int
    known: Ints
    """What goes in before the first new token: the prompt and what is resumed."""
    started: float
    first_token: float = 0.0


@dataclass(slots=True)
class _News:
    """What the next Step says."""

    accepted: list[Accepted] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    tokens: list[CallTokens] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)
    failed: list[CallFailed] = field(default_factory=list)


class Serving:
    """All calls of one model and context."""

    def __init__(self, model: Model, context: Context) -> None:
        self._vocabulary = model.vocabulary
        self._context = context
        self._scheduler = Scheduler(
            slots=context.slots,
            batch_tokens=context.batch_tokens,
            prompt_budget=PROMPT_BUDGET,
        )
        self._candidates = Candidates(self._vocabulary.size)
        self._ends = np.array(self._vocabulary.end_tokens, dtype=np.int32)
        self._end_set = frozenset(self._vocabulary.end_tokens)
        self._calls: dict[int, _Call] = {}
        self._next_tokens = np.zeros(context.slots, dtype=np.int32)
        self._step = 0
        self._news = _News()
        self._has_news = False

    @property
    def has_work(self) -> bool:
        """Whether a turn would decode something now."""
        return self._scheduler.has_work

    def warm_up(self) -> None:
        """Decode a few tokens, as prompt and one by one; a wrong build dies here, not later."""
        batch, context = self._context.batch, self._context
        count = min(WARM_UP_TOKENS, context.batch_tokens, context.context_tokens - 1)
        slots = np.arange(context.slots, dtype=np.int32)
        zeros = np.zeros(max(count, context.slots), dtype=np.int32)
        batch.clear()
        batch.add_prompt(zeros[:count], 0, 0, output=True)
        code = context.decode()
        batch.clear()
        batch.add_decode(zeros[: len(slots)], np.where(slots == 0, count, 0).astype("i4"), slots)
        code = code or context.decode()
        if code != 0:
            raise ModelUnusable(f"The first decode failed with llama.cpp's code {code}.")
        if not np.isfinite(context.logits()).any():
            raise ModelUnusable("The first decode gave no usable logits; is the file damaged?")
        for slot in range(context.slots):
            context.forget(slot)

    def submit(self, submit: Submit) -> None:
        """Accept or refuse a call; the next Step says which."""
        if submit.call in self._calls:
            say(f"call {submit.call} exists already, the second one is dropped")
            return
        self._has_news = True
        try:
            self._admit(submit)
        except PromptRefused as refusal:
            self._news.refused.append(
                Refused(submit.call, refusal.code, str(refusal), refusal.facts)
            )

    def cancel(self, command: CancelCall) -> None:
        """End a call; its slot is free at once."""
        if command.call in self._calls:
            self._end(command.call, "cancelled")

    def pause(self, command: PauseCall) -> None:
        """Decode nothing for a call until it is continued."""
        self._scheduler.pause(command.call, paused=True)
        self._has_news = True

    def go_on(self, command: ContinueCall) -> None:
        """Take a paused call up again."""
        self._scheduler.pause(command.call, paused=False)
        self._has_news = True

    def turn(self) -> Step | None:
        """Decode one batch if there is one; None: there is nothing to say."""
        plan = self._scheduler.plan()
        if plan:
            self._step += 1
            self._run(plan)
        if not plan and not self._has_news:
            return None
        return self._told()

    def _admit(self, submit: Submit) -> None:
        started = time.monotonic()
        prompt, max_tokens = known_tokens(submit, self._vocabulary, self._context.context_tokens)
        if not self._scheduler.has_free_slot:
            raise PromptRefused(RefusalCode.NO_FREE_SLOT, "all slots are taken")
        generation = Generation(
            submit,
            max_tokens=max_tokens,
            sampler=Sampler(submit.sampling, self._candidates, self._vocabulary.size, self._ends),
            pieces=self._vocabulary.pieces,
            shown_pieces=self._vocabulary.shown_pieces,
            ends=self._end_set,
        )
        try:
            resumed = generation.replay(submit.resume_ids, submit.resume_emitted_chars)
        except ResumeMismatch as mismatch:
            generation.sampler.close()
            raise PromptRefused(RefusalCode.RESUME_MISMATCH, str(mismatch)) from mismatch
        known = np.concatenate((prompt, np.array(submit.resume_ids, dtype=np.int32)))
        self._calls[submit.call] = _Call(generation, len(prompt), known, started)
        self._news.accepted.append(Accepted(submit.call, len(prompt), max_tokens, resumed))
        if generation.finish_reason is not None:
            self._end(submit.call, generation.finish_reason)
        else:
            self._scheduler.admit(submit.call, len(known))

    def _run(self, plan: Plan) -> None:
        if self._decoded(plan):
            self._sample(plan)
            return
        # one sequence at a time: only those that fail alone, too, must fail
        for part in plan.parts():
            seat = self._seat_of(part)
            if self._context.forget(seat.slot, seat.cached) and self._decoded(part):
                self._sample(part)
            else:
                self._fail(seat.call, "llama.cpp could not decode this sequence")

    def _decoded(self, plan: Plan) -> bool:
        batch = self._context.batch
        batch.clear()
        if plan.decode:
            slots = np.array(plan.decode, dtype=np.int32)
            batch.add_decode(self._next_tokens[slots], self._positions(plan.decode), slots)
        for chunk in plan.chunks:
            known = self._calls[self._scheduler.in_slot(chunk.slot).call].known
            tokens = known[chunk.start : chunk.start + chunk.count]
            batch.add_prompt(tokens, chunk.start, chunk.slot, output=chunk.last)
        code = self._context.decode()
        if code != 0:
            say(f"llama_decode returned {code} at step {self._step} for slots {batch.slots}")
            return False
        self._scheduler.executed(plan)
        return True

    def _positions(self, slots: tuple[int, ...]) -> Ints:
        cached = [self._scheduler.in_slot(slot).cached for slot in slots]
        return np.array(cached, dtype=np.int32)

    def _sample(self, plan: Plan) -> None:
        outputs = plan.outputs
        if not outputs:
            return
        for slot, row in zip(outputs, self._context.logits(), strict=True):
            call_id = self._scheduler.in_slot(slot).call
            call = self._calls[call_id]
            token, tokens = call.generation.next_token(row)
            self._next_tokens[slot] = token
            self._news.tokens.append(tokens)
            call.first_token = call.first_token or time.monotonic()
            if call.generation.finish_reason is not None:
                self._end(call_id, call.generation.finish_reason)

    def _seat_of(self, part: Plan) -> Seat:
        return self._scheduler.in_slot(part.decode[0] if part.decode else part.chunks[0].slot)

    def _end(self, call_id: int, reason: FinishReason) -> None:
        call = self._leave(call_id)
        generation = call.generation
        self._news.ended.append(
            Ended(
                call_id,
                reason,
                Usage(
                    prompt_tokens=call.prompt_tokens,
                    completion_tokens=generation.tokens_generated,
                ),
                _timings(call),
                generation.stop_sequence,
            )
        )

    def _fail(self, call_id: int, message: str) -> None:
        self._leave(call_id)
        self._news.failed.append(CallFailed(call_id, RefusalCode.ENGINE_FAILED, message))

    def _leave(self, call_id: int) -> _Call:
        """Free everything that a call holds."""
        self._has_news = True
        call = self._calls.pop(call_id)
        call.generation.sampler.close()
        seat = self._scheduler.release(call_id)
        if seat is not None:
            self._context.forget(seat.slot)
        return call

    def _told(self) -> Step:
        news, self._news, self._has_news = self._news, _News(), False
        return Step(
            number=self._step,
            accepted=tuple(news.accepted),
            refused=tuple(news.refused),
            tokens=tuple(news.tokens),
            prefill=tuple(
                CallProgress(seat.call, seat.cached, seat.to_prefill)
                for seat in self._scheduler.prefilling()
            ),
            ended=tuple(news.ended),
            has_work=self._scheduler.has_work,
            kv_cells_used=self._scheduler.cells_used,
            failed=tuple(news.failed),
        )


def _timings(call: _Call) -> Timings:
    now = time.monotonic()
    prefilled = call.first_token or now
    return Timings(
        prefill_ms=round(1000 * (prefilled - call.started), 3),
        decode_ms=round(1000 * (now - prefilled), 3),
    )
