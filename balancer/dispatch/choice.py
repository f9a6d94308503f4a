"""Which agent a generation goes to: who is able, what the policy says, and a note of why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from balancer.dispatch.admission import Admission
from balancer.dispatch.holding import Hold
from balancer.dispatch.journal import Decision, considered
from balancer.dispatch.relay import Relay
from balancer.fleet.agent import Agent
from balancer.fleet.roster import Roster
from balancer.policy.holding import hold_ms
from balancer.policy.routing.policy import Facts
from balancer.policy.routing.table import POLICIES
from balancer.settings import LiveSettings
from protocol.generation import GenerationRequest


class Choice:
    """Looks, and claims nothing."""

    def __init__(
        self,
        *,
        roster: Roster,
        admission: Admission,
        settings: LiveSettings,
        now: Callable[[], float],
        random_bits: Callable[[], int],
    ) -> None:
        self._roster = roster
        self._admission = admission
        self._settings = settings
        self._now = now
        self._random_bits = random_bits
        self._starts: Counter[str] = Counter()

    def for_relay(
        self, relay: Relay, *, waiting_for: Callable[[str], int] | None
    ) -> tuple[Agent, GenerationRequest] | Hold | None:
        """The agent, and the request as it is to be sent there; None where nobody has room; or for
        whom it had better wait. `waiting_for` counts those who wait for an agent; without it the
        request goes wherever there is room."""
        model = self._admission.resolved(relay.model)
        if model is None:
            return None
        agents = self._roster.candidates(model)
        if not agents:  # the chain is first made where somebody serves the model: see Chain
            return None
        if relay.trail.moves:
            agents = self.others(relay) or [one for one in agents if relay.can_use(one)]
            has_state = [one for one in agents if one.name == relay.prefers and one.slots_free]
            agents = has_state or agents
        chain = relay.prefix_chain
        facts = Facts(
            now_s=self._now(),
            random_bits=self._random_bits(),
            ordinal=self._starts[model],
            chain=chain,
            matched=self._roster.matched_blocks(chain),
        )
        request = relay.request_for(model)
        policy = self._settings.current.policy
        agent = POLICIES[policy](request, agents, facts)
        if agent is None:
            return None
        hold = None if waiting_for is None else self._hold(relay, agent, facts, waiting_for)
        decision = Decision(
            after_ms=round(relay.times.age_ms, 3),
            policy=policy,
            model=model,
            blocks=facts.blocks,
            chosen=agent.name if hold is None else None,
            candidates=considered(agents, agent, facts),
            candidates_total=len(agents),
            resumed_tokens=len(relay.so_far.token_ids),
        )
        relay.route.add(decision)
        if hold is not None:
            decision.outcome = f"waits for {hold.agent}"
            return hold
        # a count for each model, of starts only: else two models asked in turn would each go to
        # every second one of their agents; names are those of agents, so they are bounded
        self._starts[model] += 1
        return agent, request

    def _hold(
        self, relay: Relay, chosen: Agent, facts: Facts, waiting_for: Callable[[str], int]
    ) -> Hold | None:
        """For which full agent the request had better wait, if for any."""
        matched = facts.matched or {}
        here, best = matched.get(chosen.name, 0), None
        for name, blocks in matched.items():
            if blocks <= here:
                continue
            agent = self._roster.agent(name)
            if agent is None or agent.slots_free or not self._comes_back(agent, relay):
                continue
            ms = hold_ms(chosen, agent, blocks=blocks - here, ahead=waiting_for(name))
            if ms > relay.times.age_ms:
                here, best = blocks, Hold(name, ms / 1000)
        return best

    def is_vain(self, name: str, relay: Relay) -> bool:
        """Whether it would wait for this agent in vain."""
        agent = self._roster.agent(name)
        return agent is None or not self._comes_back(agent, relay)

    def _comes_back(self, agent: Agent, relay: Relay) -> bool:
        """Whether a full agent will have room for it."""
        is_usable = not (agent.is_draining or agent.is_ejected) and agent.slots_total > 0
        return is_usable and agent.serves(self._admission.resolved(relay.model) or "")

    def others(self, relay: Relay, *, but: Agent | None = None) -> list[Agent]:
        """Agents that can go on with it, now or later, and have not failed it; not `but`."""
        return [
            agent
            for agent in self._roster.candidates(self._admission.resolved(relay.model) or "")
            if relay.can_use(agent)
            and agent not in relay.avoided
            and agent is not but
            and agent.slots_total
            and not (agent.is_draining or agent.is_ejected)
        ]

    def alike(self, relay: Relay, agent: Agent, promised: Counter[str]) -> Agent | None:
        """Another one that can use the KV state of this one, with more room than was promised to
        others; the emptiest."""

        def room(one: Agent) -> int:
            return one.slots_free - promised[one.name]

        alike = [
            one
            for one in self.others(relay, but=agent)
            if room(one) > 0 and one.kv_key and one.kv_key == agent.kv_key
        ]
        return max(alike, key=room, default=None)
