"""Whose rows llama.cpp reduces in the next decode, and how rows are read where it does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from agent.engine.call import Call
from agent.engine.llama.arrays import Rows
from agent.engine.llama.backend_samplers import BackendSamplers
from agent.engine.llama.context import Context
from agent.engine.sampling.reduced import best_of
from agent.engine.sampling.sampler import Best
from agent.engine.scheduler import Plan, Scheduler


def readers(context: Context) -> tuple[Callable[[], Rows], Callable[[Any], list[int]]]:
    """What gives the rows of a decode, and of such rows the likeliest tokens, -1 for none."""
    if context.samplers is None:
        return context.logits, Best(context.batch_tokens).of
    return context.rows, best_of


def reduce_rows(
    samplers: BackendSamplers, plan: Plan, scheduler: Scheduler, calls: Mapping[int, Call]
) -> bool:
    """Reduce the rows of the calls of a plan that need only a few tokens of them.

    A sequence stays as it is until a call of another kind has an output: a change is dear, and the
    next decode takes longer for it. Whether there was one.
    """
    has_changed = False
    for slot in (*plan.decode, *(chunk.slot for chunk in plan.chunks if chunk.outputs)):
        call = calls[scheduler.in_slot(slot).call]
        if call.is_warming:
            continue
        if call.takes_few:
            has_changed |= samplers.reduce(slot)
        else:
            has_changed |= samplers.leave_whole(slot)
    return has_changed
