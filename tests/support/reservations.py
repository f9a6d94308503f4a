"""A state machine that holds the balancer's books against its agents'.

Arrivals, refusals, cancels, deaths, new agents, changing slots and late messages are drawn at
random; after each of them the books of both sides are compared.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar, Literal, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from balancer.dispatch.relay import Relay
from balancer.errors import AgentLost, QueueTimeout, UpstreamFailed
from balancer.settings import Settings
from protocol.refusals import RefusalCode
from tests.support.generations import Balancer, Generation
from tests.support.memory_agent import MemoryAgent
from tests.support.virtual_time import VirtualTimeLoop, settle

Result = TypeVar("Result")
Calls = Literal["unanswered", "running", "cancelled"]
PICK = st.integers(0, 2**16)
LETTERS = "abcdefghijklmnopqrstuvwxyz" * 10
QUEUE_TIMEOUT_S = 30.0


class Reservations(RuleBasedStateMachine):
    """One balancer, a few agents that come and go, clients that come and leave."""

    steps: ClassVar[int] = 0
    """Taken by all machines so far."""

    def __init__(self) -> None:
        super().__init__()
        Reservations.steps -= 1  # the first look is before the first step
        self.runner = asyncio.Runner(loop_factory=VirtualTimeLoop)
        self.agents: list[MemoryAgent] = []
        self.ever_agents: list[MemoryAgent] = []
        self.generations: list[Generation] = []
        self.left: set[int] = set()

    @initialize()
    def start(self) -> None:
        self.balancer = self.run(self._make_balancer())
        self.join(slots=2)

    async def _make_balancer(self) -> Balancer:
        return Balancer(settings=Settings(queue_timeout_s=QUEUE_TIMEOUT_S))

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """As `Runner.run`, without a look at signals each time, which costs a third as much."""
        return self.runner.get_loop().run_until_complete(work)

    def act(self, what: Callable[..., object], *given: object, **named: object) -> None:
        """Do it within the loop, and let everybody come to rest."""

        async def within() -> None:
            what(*given, **named)
            await settle()

        self.run(within())
        # who says too much that makes no sense is thrown out
        self.agents = [agent for agent in self.agents if agent.closed_reason is None]

    # --- what can happen ---

    @rule(slots=st.integers(0, 4))
    def join(self, slots: int) -> None:
        if len(self.agents) < 4:
            name = f"agent-{len(self.ever_agents)}"

            def connect() -> None:
                agent = self.balancer.agent(name, slots=slots)
                self.agents.append(agent)
                self.ever_agents.append(agent)

            self.act(connect)

    @rule(count=st.integers(1, 3))
    def arrive(self, count: int) -> None:
        self._ask(count)

    def _ask(self, count: int) -> None:
        for _ in range(count):
            ordinal = len(self.generations)
            asked = self.balancer.ask(prompt=str(ordinal), request_id=str(ordinal))
            self.generations.append(self.run(asked))

    @precondition(lambda self: self._live())
    @rule(pick=PICK)
    def leave(self, pick: int) -> None:
        live = self._live()
        number = live[pick % len(live)]
        self.left.add(number)
        self.run(self.generations[number].leave())

    @precondition(lambda self: self._agents_with("unanswered"))
    @rule(pick=PICK, will_refuse=st.booleans())
    def answer_one(self, pick: int, will_refuse: bool) -> None:
        agent = self._agent(pick, "unanswered")
        call = agent.unanswered[pick % len(agent.unanswered)]
        if will_refuse or len(agent.running) >= agent.slots:
            self.act(agent.refuse, call, RefusalCode.NO_FREE_SLOT)
        else:
            self.act(agent.commit, call)

    @precondition(lambda self: self._agents_with("running"))
    @rule(pick=PICK, end=st.sampled_from(["finish", "finish twice", "fail", "engine dies"]))
    def end_one(self, pick: int, end: str) -> None:
        agent = self._agent(pick, "running")
        call = agent.running[pick % len(agent.running)]
        self.act(self._say, agent, call)
        if end == "fail":
            self.act(agent.fail, call)
        elif end == "engine dies":
            self.act(agent.engine_dies)
        else:
            self.act(agent.finish, call)
        if end == "finish twice":
            self.act(agent.finish_again, call)

    @precondition(lambda self: self._agents_with("unanswered") or self._agents_with("running"))
    @rule(pick=PICK, is_readable=st.booleans())
    def a_step(self, pick: int, is_readable: bool) -> None:
        """All agents answer, and have a token for each call; one more may come as garbage."""
        for each in self.agents:
            self.act(self._work, each)
        if not is_readable and self._agents_with("running"):
            agent = self._agent(pick, "running")
            self.act(agent.garble, agent.running[pick % len(agent.running)])

    @precondition(lambda self: self.agents)
    @rule(pick=PICK)
    def drain(self, pick: int) -> None:
        agent = self._agent(pick)
        self.act(self.balancer.dispatcher.evacuation.drain, agent.name, deadline_s=float(pick % 30))

    @precondition(lambda self: self.agents)
    @rule(pick=PICK)
    def undrain(self, pick: int) -> None:
        self.act(self.balancer.dispatcher.evacuation.undrain, self._agent(pick).name)

    @precondition(lambda self: self._agents_with("cancelled"))
    @rule(pick=PICK)
    def confirm_cancels(self, pick: int) -> None:
        self.act(self._agent(pick, "cancelled").confirm_cancels)

    @precondition(lambda self: self.agents)
    @rule(pick=PICK, slots=st.integers(0, 4), is_overtaking=st.booleans())
    def change_slots(self, pick: int, slots: int, is_overtaking: bool) -> None:
        """A status says so; one from before it may come late, and requests after that."""
        agent = self._agent(pick)
        before = agent.status()
        if slots >= agent.slots:
            agent.capacity_version += 1
        agent.slots = slots
        self.act(agent.heartbeat)
        if is_overtaking:
            self.act(agent.heartbeat, before)
            self._ask(2)

    @precondition(lambda self: len(self.agents) > 1)
    @rule(pick=PICK)
    def die(self, pick: int) -> None:
        agent = self._agent(pick)
        self.agents.remove(agent)
        self.act(agent.die)

    @rule(seconds=st.floats(0.1, 25.0))
    def time_passes(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds))
        self.act(self.balancer.roster.take_back_ejected)
        self.act(self.balancer.dispatcher.evacuation.move_stalled)

    # --- what must hold ---

    @invariant()
    def count_the_step(self) -> None:
        Reservations.steps += 1

    @invariant()
    def claims_equal_the_agents_truth(self) -> None:
        for agent in self.agents:
            assert agent.link.claimed_slots == len(agent.running) + len(agent.unanswered)
            assert agent.overbooked == 0

    @invariant()
    def nobody_is_lost_and_nobody_is_counted_twice(self) -> None:
        if not self.generations:
            return
        live = len(self._live())
        claimed = sum(
            call not in agent.cancelled
            for agent in self.agents
            for call in (*agent.running, *agent.unanswered)
        )
        dispatcher = self.balancer.dispatcher
        assert dispatcher.in_flight == live
        assert dispatcher.waiting + claimed == live

    @invariant()
    def nobody_waits_while_there_is_room(self) -> None:
        for number in self._live():
            relay = self.generations[number].flow
            assert isinstance(relay, Relay)
            if relay.agent is not None:
                continue
            usable = [
                agent
                for agent in self.balancer.roster.agents()
                if relay.can_use(agent) and agent not in relay.avoided
            ]
            assert not any(agent.slots_free and not agent.is_draining for agent in usable)

    @invariant()
    def who_waits_stands_by_age_and_not_for_ever(self) -> None:
        ranks: dict[str, list[tuple[int, int]]] = {}
        now = self.runner.get_loop().time()
        for row in self.balancer.dispatcher.requests():
            relay = self.generations[int(row.id)].flow
            assert isinstance(relay, Relay)
            if row.state == "waiting":
                ranks.setdefault(relay.queue, []).append(relay.rank)
                assert now - relay.times.waits_since_s < QUEUE_TIMEOUT_S + 0.001
        assert all(queue == sorted(queue) for queue in ranks.values())

    @invariant()
    def what_clients_saw_is_whole(self) -> None:
        """Tokens are numbered by their place: none is lost, none comes twice."""
        for generation in self.generations:
            assert generation.sink.text == LETTERS[: len(generation.sink.text)]

    @invariant()
    def first_starts_are_in_the_order_of_arrival(self) -> None:
        calls = sorted(
            (call, int(str(params.prompt)))
            for agent in self.ever_agents
            for call, params in agent.calls.items()
        )
        firsts: list[int] = []
        for _, ordinal in calls:
            if ordinal not in firsts:
                firsts.append(ordinal)
        assert firsts == sorted(firsts)

    def teardown(self) -> None:
        try:
            self.run(self._serve_everyone())
        finally:
            self.runner.close()

    async def _serve_everyone(self) -> None:
        """With room for all, everyone who still waits is answered, once."""
        if not self.generations:
            return
        rescue = self.balancer.agent("rescue", slots=500)
        for agent in (*self.agents, rescue):
            agent.slots = 500
            agent.confirm_cancels()
            agent.answer()
            for call in tuple(agent.running):
                agent.finish(call)
        await settle()
        assert self.balancer.dispatcher.in_flight == 0
        for number, generation in enumerate(self.generations):
            assert generation.task.done()
            if number not in self.left and generation.task.exception() is not None:
                assert isinstance(generation.error, AgentLost | UpstreamFailed | QueueTimeout)

    # --- inside ---

    def _work(self, agent: MemoryAgent) -> None:
        agent.answer()
        for call in tuple(agent.running):
            self._say(agent, call)

    @staticmethod
    def _say(agent: MemoryAgent, call: int) -> None:
        """The next letter of the call's text, wherever it began."""
        resume = agent.calls[call].resume
        at = agent.tokens_sent[call] + (len(resume.token_ids) if resume else 0)
        agent.tokens(call, [at + 1], LETTERS[at])

    def _agents_with(self, calls: Calls) -> list[MemoryAgent]:
        return [agent for agent in self.agents if getattr(agent, calls)]

    def _agent(self, pick: int, having: Calls | None = None) -> MemoryAgent:
        agents = self.agents if having is None else self._agents_with(having)
        return agents[pick % len(agents)]

    def _live(self) -> list[int]:
        return [n for n, one in enumerate(self.generations) if not one.task.done()]
