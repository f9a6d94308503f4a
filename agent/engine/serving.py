"""The calls in the engine: admit, decode, sample, end. Driven by worker.py, one turn at a time.

seating.py and scheduler.py say what is decoded next, kv_store.py what the KV cache holds, call.py
what a call makes of its logits; here is the order of things.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from agent.engine.again import Again, again
from agent.engine.budget import PromptBudget
from agent.engine.call import NO_TOKENS, Call
from agent.engine.filling import Filling
from agent.engine.frames import (
    CallFailed,
    CancelCall,
    ContinueCall,
    EngineOptions,
    PauseCall,
    Refused,
    Step,
    Submit,
)
from agent.engine.intake import Intake, Prepared
from agent.engine.kv_store import KvStore
from agent.engine.learning import Learning
from agent.engine.llama.adapters import Adapters
from agent.engine.llama.arrays import Ints, Rows
from agent.engine.llama.context import NO_ROOM, Context
from agent.engine.llama.draft_model import DraftModel
from agent.engine.llama.model import Model
from agent.engine.media import Media
from agent.engine.moving import exported, imported
from agent.engine.news import News
from agent.engine.preparing import Preparing
from agent.engine.prompts import PromptRefused
from agent.engine.query_frames import Exported, ImportSequence, MoveCall, QueryAnswer
from agent.engine.reducing import readers, reduce_rows
from agent.engine.scheduler import Plan, Scheduler, Seat
from agent.engine.seating import Seating
from agent.engine.stderr_lines import say
from agent.engine.text_thread import TextThread
from agent.errors import GrammarRefused
from protocol.generation import FinishReason
from protocol.invariants import present
from protocol.refusals import RefusalCode


class Serving:
    """All calls of one model and context."""

    def __init__(
        self,
        model: Model,
        context: Context,
        options: EngineOptions,
        adapters: Adapters | None = None,
        media: Media | None = None,
        draft_model: DraftModel | None = None,
        texts: TextThread | None = None,
    ) -> None:
        """`texts` makes ready what takes long; without it that is done here."""
        self._context = context
        self._adapters = adapters
        self._intake = Intake(model, context, options, adapters, media, draft_model)
        self._preparing = Preparing(texts, self._intake, self._prepared)
        self._budget = PromptBudget(target_gap_ms=options.target_gap_ms, most=context.batch_tokens)
        self.store = KvStore(
            context,
            host_bytes=options.host_cache_bytes,
            sharing=options.prefix_cache != "off",
        )
        scheduler = Scheduler(
            slots=context.slots,
            batch_tokens=context.batch_tokens,
            prompt_budget=self._budget.tokens,
            is_strict=options.target_gap_ms > 0,
        )
        self.seating = Seating(
            scheduler, self.store, slots=context.slots, speculation=self._intake.speculation
        )
        self._scheduler, self._calls = scheduler, self.seating.calls
        self._next_tokens = [0] * context.memory.sequences
        self._filling = Filling(
            context.batch, scheduler, self._calls, self._next_tokens, draft_model
        )
        costs = self._intake.costs if self._intake.speculates else None
        self._learning = Learning(self._budget, self.store, costs, slots=context.slots)
        self._samplers = context.samplers
        self._rows, self._best_of = readers(context)
        self._again: Again | None = None
        self._step = 0
        self._news = News()
        self._has_news = False

    @property
    def has_work(self) -> bool:
        """Whether a turn would decode something now."""
        return self.seating.has_work

    @property
    def is_preparing(self) -> bool:
        """Whether a call is made ready beside the loop; when that is done there is work."""
        return len(self._preparing) > 0

    @property
    def prompt_budget(self) -> int:
        """Prompt tokens that a step takes now while others generate."""
        return self._budget.tokens

    def warm_up(self) -> None:
        """Decode a few tokens, as prompt and one by one; a wrong build dies here, not later."""
        self._context.warm_up()

    def submit(self, submit: Submit) -> None:
        """Accept or refuse a call; the next Step says which, or the first after it is ready."""
        if submit.call in self._calls or submit.call in self._preparing:
            say(f"call {submit.call} exists already, the second one is dropped")
            return
        # with no answer yet, too: a step tells the agent that the engine does not hang
        self._has_news = True
        try:
            if self._preparing.takes(submit):
                self._intake.check(submit, has_slot=self._has_slot)
                self._preparing.take(submit)
            else:
                self._admit(submit)
        except PromptRefused as refusal:
            self._refuse(submit, refusal)

    def cancel(self, command: CancelCall) -> None:
        """End a call; its slot is free at once."""
        if command.call in self._calls:
            self._end(self._calls[command.call], "cancelled")
        elif self._preparing.forget(command.call):
            self._has_news = True
            code, message = int(RefusalCode.CANCELLED), "cancelled before it was made ready"
            self._news.refused.append(Refused(command.call, code, message))

    def pause(self, command: PauseCall) -> None:
        """Decode nothing for a call until it is continued."""
        self._set_paused(command.call, paused=True)

    def go_on(self, command: ContinueCall) -> None:
        """Take a paused call up again."""
        self._set_paused(command.call, paused=False)

    def moved(self, command: MoveCall) -> QueryAnswer:
        """Write a sequence's state to a file, or take one from it."""
        if isinstance(command, ImportSequence):
            return imported(self.store, command)
        call = self._calls.get(command.target)
        answer = exported(self.store, call, self._scheduler.seat_of(command.target), command)
        if call is not None and command.release and isinstance(answer, Exported):
            self._end(call, "cancelled")
        return answer

    def turn(self) -> Step | None:
        """Decode one batch if there is one; None: there is nothing to say."""
        last, self._again = self._again, None
        if last is not None and not self._has_news and self.store.make_room(len(last.seats)):
            return self._turn_again(last)
        self._scheduler.prompt_budget = self._budget.tokens
        plan = self.seating.plan(drafts=self._intake.speculates)
        if plan:
            self._step += 1
            self._run(plan)
        return self._told() if plan or self._has_news else None

    def _kept(self, plan: Plan) -> Again:
        seats = [self._scheduler.in_slot(slot) for slot in plan.decode]
        calls = [self._calls[seat.call] for seat in seats]
        return again(plan, seats, calls, self._next_tokens, self._scheduler.cells_used)

    def _turn_again(self, last: Again) -> Step:
        """The last turn's calls, one more token each: what most turns are (see again.py)."""
        self._step += 1
        started = time.perf_counter()
        self._context.batch.advance(last.tokens)
        code = self._context.decode()
        if code != 0:
            self._recover(last.plan, code)
            return self._told()
        rows = self._rows()
        took_ms = 1000 * (time.perf_counter() - started)
        self.store.all_grew(last.plan.decode)
        for seat in last.seats:
            seat.cached += 1
        self._take_each(last, rows)
        self._budget.measured(decode_tokens=len(last.seats), prompt_tokens=0, took_ms=took_ms)
        last.cells += len(last.seats)
        if self._has_news:
            return self._told()
        self._again = last
        tokens, self._news.tokens = tuple(self._news.tokens), []
        return Step(
            number=self._step,
            tokens=tokens,
            has_work=True,
            kv_cells_used=last.cells,
            cache=self.store.take_news(),
        )

    def _take_each(self, last: Again, rows: Rows) -> None:
        """A token for each call."""
        if not last.takes_best:
            for at, seat in enumerate(last.seats):
                self._sample(seat, NO_TOKENS, rows[at : at + 1])
                last.tokens[at] = self._next_tokens[seat.slot]
            return
        told = self._news.tokens
        for at, best in enumerate(self._best_of(rows)):
            call = last.calls[at]
            tokens = call.take_best(best) if best >= 0 else None
            if tokens is None:
                self._sample(last.seats[at], NO_TOKENS, rows[at : at + 1], best)
                last.tokens[at] = self._next_tokens[last.seats[at].slot]
                continue
            last.tokens[at] = self._next_tokens[last.plan.decode[at]] = best
            told.append(tokens)
            if call.generation.finish_reason is not None:
                self._end(call, call.generation.finish_reason)

    @property
    def _has_slot(self) -> bool:
        return not self.seating.is_full(promised=len(self._preparing))

    def _prepared(self, submit: Submit, prepared: Callable[[], Prepared], *, paused: bool) -> None:
        """A call is ready: accept or refuse it."""
        self._has_news = True
        try:
            self._admit(submit, prepared())
            self._set_paused(submit.call, paused=paused)
        except PromptRefused as refusal:
            self._refuse(submit, refusal)

    def _refuse(self, submit: Submit, refusal: PromptRefused) -> None:
        self._news.refused.append(Refused(submit.call, refusal.code, str(refusal), refusal.facts))

    def _admit(self, submit: Submit, prepared: Prepared | None = None) -> None:
        call = self._intake.call(submit, prepared, has_slot=self._has_slot)
        self._calls[call.number] = call
        reason = call.generation.finish_reason
        if reason is None and not self.seating.seat(call):
            del self._calls[call.number]
            call.generation.sampler.close()
            raise PromptRefused(RefusalCode.NO_FREE_SLOT, "the KV cache has no room left")
        self._news.accepted.append(call.accepted())
        if reason is not None:
            self._end(call, reason)

    def _set_paused(self, number: int, *, paused: bool) -> None:
        self._has_news = True
        if number in self._calls:
            self.seating.pause(self._calls[number], paused=paused)
        else:
            self._preparing.pause(number, paused=paused)

    def _run(self, plan: Plan) -> None:
        if self._adapters is not None:
            self._adapters.put_on(self._context.handle, self.seating.adapters_of(plan.group))
        if plan.of_run and not self._is_encoded(plan):
            return
        changes = self._samplers and reduce_rows(self._samplers, plan, self._scheduler, self._calls)
        started = time.perf_counter()
        code, drafted = self._decoded(plan)
        if code == 0:
            rows = self._rows()
            decoded = time.perf_counter()
            self._executed(plan, drafted, rows)
            if not changes:  # they take their time
                decode_s, step_s = decoded - started, time.perf_counter() - started
                self._learning.measured(plan, drafted, decode_s=decode_s, step_s=step_s)
            if not self._has_news and self.seating.goes_on(plan, drafts=self._intake.speculates):
                self._again = self._kept(plan)
        else:
            self._recover(plan, code)

    def _is_encoded(self, plan: Plan) -> bool:
        """Whether embeddings are there to decode; if not, computing them is all of this turn."""
        (chunk,) = plan.chunks
        seat = self._scheduler.in_slot(chunk.slot)
        call = self._calls[seat.call]
        media = present(call.media)
        if media.is_encoded(chunk):
            return True
        self._scheduler.passed(plan)
        try:
            call.encode_ms += media.encode(chunk)
        except ValueError as error:
            self._fail(seat, f"an image or a sound failed: {error}")
        return False

    def _decoded(self, plan: Plan) -> tuple[int, dict[int, Ints]]:
        """llama.cpp's code, and the drafted tokens in the batch, by slot."""
        if plan.of_run:
            (chunk,) = plan.chunks
            media = self._calls[self._scheduler.in_slot(chunk.slot).call].media
            return present(media).decode(self._context, chunk), {}
        drafted = self._filling.fill(plan)
        return self._context.decode(), drafted

    def _executed(self, plan: Plan, drafted: dict[int, Ints], rows: Rows) -> None:
        """The batch is in the KV cache: count it, and sample from its outputs."""
        self._scheduler.executed(plan, {slot: len(draft) for slot, draft in drafted.items()})
        row = 0
        for slot in plan.decode:
            draft = drafted.get(slot, NO_TOKENS)
            first, row = row, row + 1 + len(draft)
            self._sample(self._scheduler.in_slot(slot), draft, rows[first:row])
        for chunk in plan.chunks:
            seat = self._scheduler.in_slot(chunk.slot)
            self.store.grew(seat.slot, seat.cached)
            first, row = row, row + chunk.outputs
            if chunk.scored:
                self._calls[seat.call].score(rows[first:row], chunk.start)
            if chunk.last:
                self._prefilled(seat, rows[row - 1 : row])
            elif seat.cached in seat.stops:
                call = self._calls[seat.call]
                self.store.checkpoint(seat.slot, call.content(seat.cached))

    def _prefilled(self, seat: Seat, rows: Rows) -> None:
        call = self._calls[seat.call]
        self.store.prefilled(call.number, seat.slot, seat.cached)
        if call.is_warming:
            self._end(call, "stop")
            self.store.keep_warm(seat.slot)
        else:
            self._sample(seat, NO_TOKENS, rows)

    def _sample(self, seat: Seat, draft: Ints, rows: Rows, best: int | None = None) -> None:
        call = self._calls[seat.call]
        took_few = call.takes_few
        try:
            tokens = call.take(rows, draft, best)
        except GrammarRefused as refused:
            self._fail(seat, str(refused), RefusalCode.INVALID_GRAMMAR)
            return
        self._news.tokens.append(tokens)
        if call.takes_few != took_few:
            self._has_news = True  # its rows are read in another way: the next turn is planned anew
        wrong = len(draft) + 1 - len(tokens.token_ids)
        if wrong:
            seat.cached -= wrong
            self.store.cut(seat.slot, seat.cached)
        else:
            self.store.grew(seat.slot, seat.cached)
        self._next_tokens[seat.slot] = tokens.token_ids[-1]
        if call.generation.finish_reason is not None:
            self._end(call, call.generation.finish_reason)

    def _recover(self, plan: Plan, code: int) -> None:
        """A decode failed: make room if it was that, else find out who must fail."""
        say(f"llama_decode returned {code} at step {self._step}")
        slots = (*plan.decode, *(chunk.slot for chunk in plan.chunks))
        seats = [self._scheduler.in_slot(slot) for slot in slots]
        intact = {seat.slot: self.store.cut(seat.slot, seat.cached) for seat in seats}
        if code == NO_ROOM and self.store.is_unified and self.seating.suspend_one():
            return
        # one sequence at a time: only those that fail alone, too, must fail
        for part, seat in zip(plan.parts(), seats, strict=True):
            if intact[seat.slot]:
                code, drafted = self._decoded(part)
                if code == 0:
                    self._executed(part, drafted, self._rows())
                    continue
            self._fail(seat, "llama.cpp could not decode this sequence")

    def _fail(
        self, seat: Seat, message: str, code: RefusalCode = RefusalCode.ENGINE_FAILED
    ) -> None:
        call = self._calls[seat.call]
        seat.cached = 0
        self._leave(call)
        self._news.failed.append(CallFailed(call.number, code, message))

    def _end(self, call: Call, reason: FinishReason) -> None:
        self._leave(call)
        self._news.ended.append(call.ended(reason))

    def _leave(self, call: Call) -> None:
        """Free everything that a call holds."""
        self._has_news = True
        call.generation.sampler.close()
        self.seating.leave(call)

    def _told(self) -> Step:
        news, self._news, self._has_news = self._news, News(), False
        return news.as_step(
            self._step,
            prefill=self.seating.progress(),
            has_work=self.has_work,
            kv_cells_used=self._scheduler.cells_used,
            cache=self.store.take_news(),
            waiting=self.seating.waiting,
            preparing=self.is_preparing,
        )
