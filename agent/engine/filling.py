"""A plan's tokens, put into the batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agent.engine.call import Call
from agent.engine.llama.arrays import Ints
from agent.engine.llama.batch import Batch
from agent.engine.llama.draft_model import DraftModel
from agent.engine.scheduler import Plan, Scheduler


class Filling:
    """Reads `calls`, by number, and `next_tokens`, by slot; changes nothing but the batch."""

    def __init__(
        self,
        batch: Batch,
        scheduler: Scheduler,
        calls: Mapping[int, Call],
        next_tokens: Sequence[int],
        draft_model: DraftModel | None,
    ) -> None:
        self._batch = batch
        self._scheduler = scheduler
        self._calls = calls
        self._next_tokens = next_tokens
        self._draft_model = draft_model

    def fill(self, plan: Plan) -> dict[int, Ints]:
        """Fill the batch; the drafted tokens in it, by slot."""
        batch = self._batch
        batch.clear()
        drafted: dict[int, Ints] = {}
        if plan.drafts:
            if self._draft_model is not None:
                self._draft_model.prepare(dict(zip(plan.decode, plan.drafts, strict=True)))
            for slot, most in zip(plan.decode, plan.drafts, strict=True):
                seat = self._scheduler.in_slot(slot)
                call = self._calls[seat.call]
                drafted[slot] = draft = call.draft(most)
                batch.add_drafted(self._next_tokens[slot], draft, seat.cached, slot)
        elif plan.decode:
            cached = [self._scheduler.in_slot(slot).cached for slot in plan.decode]
            tokens = [self._next_tokens[slot] for slot in plan.decode]
            batch.add_decode(tokens, cached, plan.decode)
        for chunk in plan.chunks:
            known = self._calls[self._scheduler.in_slot(chunk.slot).call].known
            part = known[chunk.start : chunk.start + chunk.count]
            if chunk.scored:
                batch.add_with_outputs(part, chunk.start, chunk.slot)
            else:
                batch.add_prompt(part, chunk.start, chunk.slot, output=chunk.last)
        return drafted
