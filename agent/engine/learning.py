"""What a step took, told to those who plan by it."""

from __future__ import annotations

from collections.abc import Mapping

from agent.engine.budget import PromptBudget
from agent.engine.kv_store import KvStore
from agent.engine.llama.arrays import Ints
from agent.engine.pace import DecodeCosts, Pace
from agent.engine.scheduler import Plan


class Learning:
    """`costs` are those of drafting; None: nobody drafts."""

    def __init__(
        self, budget: PromptBudget, store: KvStore, costs: DecodeCosts | None, *, slots: int
    ) -> None:
        self._budget = budget
        self._store = store
        self._costs = costs
        self._slots = slots

    def measured(
        self, plan: Plan, drafted: Mapping[int, Ints], *, decode_s: float, step_s: float
    ) -> None:
        """Learn from what a decode took, and from the whole step with drafting and sampling."""
        if any(chunk.scored for chunk in plan.chunks):
            return  # more than a prompt's token takes
        decode, drafts = len(plan.decode), sum(map(len, drafted.values()))
        prompt = sum(chunk.count for chunk in plan.chunks)
        is_full = Pace.is_full(busy_slots=decode, slots=self._slots)
        if self._costs is not None and not prompt and not is_full:
            self._costs.took(decode, drafts, step_s)
        if not drafts:
            self._budget.measured(
                decode_tokens=decode, prompt_tokens=prompt, took_ms=1000 * decode_s
            )
        if prompt and not decode:
            self._store.measured_prefill(prompt, 1000 * decode_s)
