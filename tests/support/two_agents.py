"""A real balancer and two real agents with engine processes of their own, in the test's loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from agent.app import App as Agent
from agent.engine.engine import EngineDoor
from agent.settings import BalancerAddress
from balancer.app import App as Balancer
from balancer.app import build
from balancer.fleet.agent_link import AgentLink
from balancer.fleet.moving import Move
from balancer.settings import Address, Settings
from protocol.generation import (
    GenerationRequest,
    Resume,
    SamplerState,
    StepDelta,
    TokenLogprob,
    emitted_chars,
)
from protocol.jsonrpc import ErrorObject
from protocol.to_agent import Committed, ExportedSequence, generate_tokens_call
from protocol.to_balancer import Finished
from tests.support.cluster import eventually
from tests.support.running_agent import running_agent

LOOPBACK = Address("127.0.0.1", 0)


@dataclass
class HeardCall:
    """A call's handler that writes down what it hears."""

    id: int = 0
    token_ids: list[int] = field(default_factory=list)
    deltas: list[StepDelta] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    committed: Committed | None = None
    finished: Finished | None = None
    error: ErrorObject | None = None
    is_lost: bool = False

    @property
    def is_over(self) -> bool:
        return self.finished is not None or self.error is not None or self.is_lost

    @property
    def text(self) -> str:
        return "".join(delta for delta in self.deltas if isinstance(delta, str))

    def resume(self, sampler_state: tuple[float, ...] = ()) -> Resume:
        """Where another agent is to go on."""
        chars = sum(map(emitted_chars, self.deltas))
        return Resume(
            token_ids=tuple(self.token_ids), emitted_chars=chars, sampler_state=sampler_state
        )

    def on_committed(self, committed: Committed) -> None:
        self.committed = committed

    def on_tokens(
        self,
        token_ids: tuple[int, ...],
        delta: StepDelta,
        logprobs: tuple[TokenLogprob, ...],
    ) -> None:
        self.token_ids += token_ids
        self.deltas.append(delta)
        self.logprobs += logprobs

    def on_prefill(self, done: int) -> None: ...

    def on_sampler_state(self, state: SamplerState) -> None: ...

    def on_garbled(self) -> None: ...

    def on_refused(self, error: ErrorObject) -> None:
        self.error = error

    def on_finished(self, finished: Finished) -> None:
        self.finished = finished

    def on_failed(self, error: ErrorObject) -> None:
        self.error = error

    def on_link_lost(self) -> None:
        self.is_lost = True


@dataclass(frozen=True)
class MoveEnd:
    """What a move told at its end."""

    exported: ExportedSequence | None
    error: ErrorObject | None

    @property
    def reason(self) -> str:
        """The refusal's reason."""
        assert self.error is not None
        assert isinstance(self.error.data, dict)
        return str(self.error.data["reason"])


@dataclass
class Fleet:
    """The balancer's links of agents that both serve."""

    balancer: Balancer
    agents: dict[str, Agent]

    def link(self, name: str) -> AgentLink:
        [found] = [a for a in self.balancer.wiring.roster.agents() if a.name == name]
        return found.link

    def kv_key(self, name: str) -> str:
        [found] = [a for a in self.balancer.wiring.roster.agents() if a.name == name]
        return found.kv_key

    async def serves(self, name: str) -> None:
        """Wait until an agent has slots."""
        roster = self.balancer.wiring.roster
        await eventually(
            lambda: any(a.name == name and a.slots_free > 0 for a in roster.agents()),
            what=f"{name} serves",
        )

    def call(
        self,
        name: str,
        request: GenerationRequest,
        *,
        scope: str = "",
        resume: Resume | None = None,
    ) -> HeardCall:
        """A call on one of the agents."""
        handler = HeardCall()
        call = generate_tokens_call(
            request, created=0, deadline_ms=None, trace_id="t", cache_scope=scope, resume=resume
        )
        handler.id = self.link(name).call(call, handler)
        return handler

    async def whole(self, name: str, request: GenerationRequest, **more: Any) -> HeardCall:
        """A call from its beginning to its end."""
        heard = self.call(name, request, **more)
        await eventually(lambda: heard.is_over, what="the call is over")
        assert heard.finished is not None, heard.error
        return heard

    def begin_move(self, call: int, ends: list[MoveEnd], **more: Any) -> Move:
        """Move a call from the first agent to the second."""
        given = {"release": True, "cache_scope": "", **more}
        return Move(
            call,
            self.link("one"),
            self.link("two"),
            on_end=lambda exported, error: ends.append(MoveEnd(exported, error)),
            **given,
        )

    async def move(self, call: int, **more: Any) -> MoveEnd:
        """Move a call from the first agent to the second; how that ended."""
        ends: list[MoveEnd] = []
        self.begin_move(call, ends, **more)
        await eventually(lambda: ends, what="the move is over")
        return ends[0]

    async def nothing_moves(self) -> None:
        """No agent holds a state file, no link waits for an answer."""
        links = [agent.link for agent in self.balancer.wiring.roster.agents()]
        await eventually(
            lambda: (
                not any(len(agent._desk.moves) for agent in self.agents.values())
                and not any(len(link.queries) for link in links)
            ),
            what="nothing is moving",
        )


@asynccontextmanager
async def two_agents(
    one: EngineDoor,
    two: EngineDoor,
    *,
    balancer_settings: Mapping[str, Any] = MappingProxyType({}),
    **agent_settings: Any,
) -> AsyncIterator[Fleet]:
    """Agents `one` and `two` on these engines, once both serve."""
    balancer = build(Settings(inference=LOOPBACK, management=LOOPBACK, **balancer_settings))
    balancer.bind()
    roster = balancer.wiring.roster
    address = balancer.address_of("management")
    there = BalancerAddress(address.host, address.port)
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(balancer.run())
        given = {"model_path": Path("same.gguf"), **agent_settings}
        try:
            async with (
                running_agent(there, one, name="one", **given) as first,
                running_agent(there, two, name="two", **given) as second,
            ):
                await eventually(
                    lambda: sum(agent.slots_total > 0 for agent in roster.agents()) == 2,
                    what="both agents serve",
                )
                yield Fleet(balancer, {"one": first, "two": second})
        finally:
            balancer.stop()
            balancer.stop()
            await serving


async def has_tokens(heard: HeardCall, count: int) -> None:
    """Wait until a call has so many tokens; it must not be over by then."""
    await eventually(lambda: len(heard.token_ids) >= count or heard.is_over, what=f"{count} tokens")
    assert not heard.is_over, heard
