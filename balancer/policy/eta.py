"""When a request that waits should have a slot: an estimate from what was measured. Pure.

With work for `w` seconds of a slot ahead, S slots and calls that hold one for `h` seconds:

    start = w / S  +  h / (S + 1)  +  (what running calls have left  -  what they usually have left)

The second term is the first of S slots to become free, at a random moment; the third corrects for a
moment that is not random: after a burst all calls have as long to go.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil
from typing import NamedTuple

from msgspec import Struct

from balancer.policy.holds import UNMEASURED_HOLD_S

LONGEST_RETRY_S = 600
AGENT_RETURN_S = 3.0
"""Agents reconnect within this; it is what an empty fleet is waited for."""
MOST_AGENTS = 4096
"""Whose usual remainders are remembered."""
_WEIGHT_OF_NEWEST = 0.05


def retry_after_s(start_s: float) -> int:
    """An estimated start as clients are told it: whole seconds, 1 to 600."""
    return max(1, min(LONGEST_RETRY_S, ceil(start_s)))


class Outlook(Struct, frozen=True):
    """When slots should become free: the first after `first_s`, then one after the other."""

    slots: int
    first_s: float

    def start_s(self, work_s: float) -> float:
        """In how many seconds a slot should be free, with work for so many of one slot ahead."""
        return max(0.0, work_s / self.slots + self.first_s)


class _Calls:
    """Those that run on one agent."""

    def __init__(self) -> None:
        self.count = 0
        self.ends_s = 0.0
        """The sum of the times at which they are expected to end."""
        self.holds_s = 0.0
        self._each_s = self._at_s = 0.0
        self.usually_left_s: float | None = None

    def each_s(self, now_s: float) -> float:
        """Seconds of the agent so far, divided by the calls that shared them; to be asked before
        each change of `count`."""
        self._each_s += (now_s - self._at_s) / max(self.count, 1)
        self._at_s = now_s
        return self._each_s

    def left_s(self, now_s: float) -> float:
        """What all of them have left; less than nothing where most took longer than expected."""
        return self.ends_s - self.count * now_s


class _Begun(NamedTuple):
    """A call that runs, and its agent's `each_s` when it began."""

    agent: str
    at_s: float
    hold_s: float
    each_s: float


class Running:
    """The calls that hold slots, by agent, and when they should end."""

    def __init__(self) -> None:
        self._begun: dict[int, _Begun] = {}
        self._agents: dict[str, _Calls] = {}

    def begins(self, key: int, agent: str, *, hold_s: float, now_s: float) -> None:
        """A call has a slot, and should keep it for `hold_s`. No other that runs has this key."""
        calls = self._agents.get(agent)
        if calls is None:
            self._forget_idle()
            calls = self._agents[agent] = _Calls()
        self._begun[key] = _Begun(agent, now_s, hold_s, calls.each_s(now_s))
        calls.count += 1
        calls.ends_s += now_s + hold_s
        calls.holds_s += hold_s

    def ends(self, key: int, *, now_s: float) -> float:
        """Its slot is free; returns what share of its agent it had on average."""
        begun = self._begun.pop(key)
        calls = self._agents[begun.agent]
        own_s = calls.each_s(now_s) - begun.each_s
        beside = calls.count
        calls.count -= 1
        calls.ends_s -= begun.at_s + begun.hold_s
        calls.holds_s -= begun.hold_s
        if calls.count:
            left_s = calls.left_s(now_s) / calls.count
            before_s = left_s if calls.usually_left_s is None else calls.usually_left_s
            calls.usually_left_s = before_s + _WEIGHT_OF_NEWEST * (left_s - before_s)
        return own_s / (now_s - begun.at_s) if now_s > begun.at_s else 1 / beside

    def outlook(self, *, slots: int, agents: Iterable[str], now_s: float) -> Outlook:
        """For those who wait for these agents, that have so many slots in all. Without slots, the
        time until an agent is back comes first, and one slot is assumed."""
        if not slots:
            return Outlook(slots=1, first_s=AGENT_RETURN_S + UNMEASURED_HOLD_S)
        crews = [self._agents[name] for name in agents if name in self._agents]
        count = sum(calls.count for calls in crews)
        if not count:
            return Outlook(slots=slots, first_s=0.0)
        hold_s = sum(calls.holds_s for calls in crews) / count
        left_s = sum(_left(calls, now_s) for calls in crews) / count
        usual_s = sum(calls.count * _usual(calls, hold_s) for calls in crews) / count
        is_learned = all(calls.usually_left_s is not None for calls in crews if calls.count)
        most_s = hold_s if is_learned else LONGEST_RETRY_S
        odd_s = max(-hold_s, min(most_s, left_s - usual_s))
        return Outlook(slots=slots, first_s=hold_s / (slots + 1) + odd_s)

    def _forget_idle(self) -> None:
        if len(self._agents) >= MOST_AGENTS:
            self._agents = {name: calls for name, calls in self._agents.items() if calls.count}


def _left(calls: _Calls, now_s: float) -> float:
    """What they have left. Who took longer than was guessed, before any end was seen, is expected
    to take as much longer once more: nothing else is known of it."""
    left_s = calls.left_s(now_s)
    return abs(left_s) if calls.usually_left_s is None else left_s


def _usual(calls: _Calls, hold_s: float) -> float:
    """What calls have left at a random moment; half, until it was seen."""
    return hold_s / 2 if calls.usually_left_s is None else calls.usually_left_s
