"""Which agent takes which inputs of a batch. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from msgspec import Struct


class Part(Struct, frozen=True):
    """The inputs `start` to `stop` (without it) go to the agent with this index."""

    agent: int
    start: int
    stop: int


def split(costs: Sequence[int], free: Sequence[int], *, smallest: int, largest: int) -> list[Part]:
    """Cut inputs into parts, one an agent at most, in proportion to the agents' free capacity.

    `costs` are those of the inputs, in their order, each at least 1; `free` is what each agent
    could take, in any unit. The parts hold the first inputs, without a gap, none of them twice.
    What they leave over is for a later round: no agent's share is more than `largest`. A batch
    that is cheap goes to fewer agents, the freest ones: to no more than it has `smallest`.

    A cut falls on the border of inputs next to where it should be, so that a part costs at most one
    input more or less than its agent's share; the first one always gets an input. Without inputs
    or capacity there are no parts.
    """
    able = sorted((agent for agent, room in enumerate(free) if room > 0), key=lambda a: -free[a])
    total = sum(costs)
    able = able[: max(total // smallest, 1)]
    if not able or not costs:
        return []
    capacity = sum(free[agent] for agent in able)
    at_once = min(total, largest * capacity // free[able[0]])
    # twice what was spent up to the middle of each input: integers, so that every input counts
    middles = [2 * end - cost for end, cost in zip(accumulate(costs), costs, strict=True)]
    parts: list[Part] = []
    start = given = 0
    for agent in able:
        given += free[agent]
        stop = bisect_right(middles, 2 * at_once * given // capacity)
        if not parts:
            stop = max(stop, 1)
        if stop > start:
            parts.append(Part(agent, start, stop))
            start = stop
    return parts
