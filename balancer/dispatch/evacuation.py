"""Taking generations away from agents: those that are drained, and those that stand still."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection

from balancer.dispatch.admission import Admission
from balancer.dispatch.choice import Choice
from balancer.dispatch.relay import Relay
from balancer.dispatch.standing_still import gives_way, is_at_work, is_stalled, rests
from balancer.fleet.agent import Agent
from balancer.fleet.roster import Roster
from balancer.settings import LiveSettings

MOST_MOVES_AT_ONCE = 4
"""KV states on their way between agents."""
MOVE_PAUSE_S = 0.02


class Evacuation:
    """`relays` gives all that wait or run, copied."""

    def __init__(
        self,
        *,
        roster: Roster,
        admission: Admission,
        choice: Choice,
        relays: Callable[[], Collection[Relay]],
        settings: LiveSettings,
        now: Callable[[], float],
    ) -> None:
        self._roster = roster
        self._admission = admission
        self._choice = choice
        self._relays = relays
        self._settings = settings
        self._now = now

    def move_stalled(self) -> None:
        """Take generations away from agents that give them nothing; asked now and then.

        Calls that stand still for others' sake are left alone while one of these goes on: where
        all stand still, the agent hangs, whatever it says.
        """
        longest_s, now = self._settings.current.progress_timeout_s, self._now()
        at_work: set[Agent | None] = set()
        giving_way: list[Relay] = []
        for relay in self._relays():
            if gives_way(relay):
                giving_way.append(relay)
            elif is_stalled(relay, now, longest_s=longest_s, is_excused=rests(relay)):
                self._take_away(relay)
            elif is_at_work(relay):
                at_work.add(relay.agent)
        for relay in giving_way:
            if is_stalled(relay, now, longest_s=longest_s, is_excused=relay.agent in at_work):
                self._take_away(relay)

    def drain(self, name: str, *, deadline_s: float | None) -> bool:
        """Give an agent nothing new, and past the deadline move what still runs there; False if
        there is no such agent."""
        agent = self._roster.agent(name)
        if agent is None:
            return False
        self._roster.set_draining(name, draining=True)
        agent.drains += 1
        if deadline_s is not None:
            loop = asyncio.get_running_loop()
            loop.call_later(deadline_s, self._move_off, agent, agent.drains)
        return True

    def undrain(self, name: str) -> bool:
        """Use an agent again, or let one in that was removed; False if there is no such agent."""
        was_removed = self._roster.let_in(name)
        return self._roster.set_draining(name, draining=False) or was_removed

    def _take_away(self, relay: Relay) -> None:
        """Alone, an agent that is in trouble is its own watchdog's business."""
        agent = relay.agent
        if agent is not None and self._choice.others(relay, but=agent):
            relay.take_away("stalled", self._admission.stalled(agent.name))

    def _move_off(self, agent: Agent, drain: int) -> None:
        """What runs on a drained agent goes on elsewhere, with its KV state where that fits."""
        if not agent.is_draining or agent.drains != drain:
            return  # it was taken back meanwhile
        promised: Counter[str] = Counter()
        relays = self._relays()
        moving = sum(relay.is_moving for relay in relays)
        for relay in relays:
            if relay.agent is not agent or relay.is_moving:
                continue
            if moving >= MOST_MOVES_AT_ONCE:  # agents take no more; it runs on until its turn
                loop = asyncio.get_running_loop()
                loop.call_later(MOVE_PAUSE_S, self._move_off, agent, drain)
                return
            error = self._admission.moved_off(agent.name)
            alike = self._choice.alike(relay, agent, promised)
            if alike is not None and relay.so_far.token_ids:
                promised[alike.name] += 1
                moving += 1
                relay.hand_over(alike, error)
            else:
                relay.take_away("drained", error)
