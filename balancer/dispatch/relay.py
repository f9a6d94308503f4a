"""One generation on its way: takes what its agent says and hands it to its sink.

It is at once the link's `CallHandler`, the sink's `Flow` and the waiting room's `Waiter`:

    waiting -> running -> ended
       ^----------'  refused for want of capacity: back to its old place

The client may leave at any point; a running call is then cancelled and keeps its slot until the
agent confirms, while the relay already forgot its sink.

`request`, `token_ids` and `emitted_chars` are all that another agent needs to go on with the
generation: `policy.failover` is asked in `_on_agent_failure`, the only place that ends one for an
agent's fault.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import structlog
from msgspec import structs

from balancer.dispatch.consequences import error_for
from balancer.dispatch.sink import Outcome, Sink
from balancer.errors import (
    AgentLost,
    BalancerError,
    ClientDropped,
    InternalError,
    InvalidRequest,
    RequestTooLarge,
    UpstreamFailed,
)
from balancer.fleet.agent import Agent
from balancer.observability.metrics import Metrics
from protocol.errors import FrameTooLarge
from protocol.generation import GenerationRequest, StepDelta, TokenLogprob, emitted_chars
from protocol.jsonrpc import ErrorObject, RpcCode
from protocol.prefix_chain import prefix_chain
from protocol.refusals import RefusalCode, consequence_of
from protocol.to_agent import Committed, generate_tokens_call
from protocol.to_balancer import Finished

log = structlog.get_logger(__name__)

END_TOKEN = 1
"""Usage counts it; an agent may keep it to itself."""
NO_CALL = 0
"""Call ids start at 1."""
CACHE_SCOPE = ""
"""Cached prefixes are shared by all whom the balancer serves."""


class Conductor(Protocol):
    """Whom a relay tells what concerns others than itself."""

    def on_refused_for_capacity(self, relay: Relay, agent: Agent) -> None:
        """Put the relay back to its place among those who wait."""

    def on_slot_held(self, seconds: float) -> None:
        """A call of this relay held a slot for so long."""

    def retry_after_s(self, model: str) -> int:
        """When a request for this model should find a slot."""


class Relay:
    """One generation from its arrival to its end. `done` becomes its outcome or its error."""

    def __init__(
        self,
        request: GenerationRequest,
        sink: Sink,
        *,
        ordinal: int,
        tenant: str,
        request_id: str,
        body_bytes: int,
        deadline_s: float | None,
        conductor: Conductor,
        metrics: Metrics,
        now: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self.request = request
        self.ordinal = ordinal
        self.queue = request.model
        self.tenant = tenant
        self.body_bytes = body_bytes
        self.request_id = request_id
        self.token_ids: list[int] = []
        self.emitted_chars = 0
        self.arrived_s = now()
        self.done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.expiry: asyncio.TimerHandle | None = None
        self._sink: Sink | None = sink
        self._conductor = conductor
        self._metrics = metrics
        self._now = now
        self._wall_clock = wall_clock
        self._deadline_s = deadline_s
        self._agent: Agent | None = None
        self._call_id = NO_CALL
        self._attempts = 0
        self._started_s = self.arrived_s
        self._first_token_s: float | None = None
        self._left_s: float | None = None
        self._is_paused = False
        self._is_committed = False
        self._prefix_chain: bytes | None = None

    # --- for the dispatcher ---

    @property
    def is_over(self) -> bool:
        """Whether the generation has its outcome, its error, or no client any more."""
        return self.done.done()

    @property
    def prefix_chain(self) -> bytes:
        """The request's chain, packed; computed at its first use."""
        if self._prefix_chain is None:
            self._prefix_chain = prefix_chain(self.request, cache_scope=CACHE_SCOPE)
        return self._prefix_chain

    def request_for(self, model: str) -> GenerationRequest:
        """The request with the name of the model that was found for it."""
        if self.request.model == model:
            return self.request
        return structs.replace(self.request, model=model)

    def start(self, agent: Agent, request: GenerationRequest) -> None:
        """Claim a slot of the agent by calling it. Raises nothing: a call that cannot be made
        ends the relay."""
        self._attempts += 1
        self._started_s = self._now()
        self._is_paused = self._is_committed = False
        params = generate_tokens_call(
            request,
            created=int(self._wall_clock()),
            deadline_ms=self._deadline_ms(),
            trace_id=self.request_id,
            cache_scope=CACHE_SCOPE,
            prefix_chain=self.prefix_chain,
        )
        try:
            self._call_id = agent.link.call(params, self)
        except FrameTooLarge as error:
            self.fail(RequestTooLarge(f"no agent can be sent the request: {error}; shorten it"))
        except UnicodeEncodeError:
            self.fail(InvalidRequest("the request holds text that is not valid Unicode"))
        else:
            self._agent = agent

    def fail(self, error: BalancerError) -> None:
        """End the generation with an error; a running call is cancelled."""
        if not self.done.done():
            self.done.set_exception(error)
        self._let_go()

    def leave(self) -> None:
        """Nobody waits for the result any more. Safe at any time, and more than once."""
        if not self.done.done():
            self.done.cancel()
        elif not self.done.cancelled():
            self.done.exception()  # seen by whoever awaited, or by nobody: no complaint about it
        self._let_go()

    # --- Flow ---

    @property
    def attempts(self) -> int:
        """Agents tried so far."""
        return self._attempts

    @property
    def queue_ms(self) -> float:
        """Milliseconds from arrival to the latest claim of a slot, or until now."""
        is_waiting = self._agent is None and not self.done.done()
        until_s = self._now() if is_waiting else self._started_s
        return (until_s - self.arrived_s) * 1000

    def pause(self) -> None:
        """Ask the agent to stop producing."""
        if self._agent is not None and not self._is_paused and self._left_s is None:
            self._is_paused = True
            self._metrics.stream_pauses.inc()
            self._agent.link.pause(self._call_id)

    def resume(self) -> None:
        """Ask the agent to go on."""
        if self._agent is not None and self._is_paused and self._left_s is None:
            self._is_paused = False
            self._agent.link.continue_(self._call_id)

    def drop(self, reason: str) -> None:
        """Give the client up."""
        if not self.done.done():
            self._metrics.slow_clients_dropped.inc()
            self.fail(ClientDropped(reason))

    # --- CallHandler ---

    def on_committed(self, committed: Committed) -> None:
        """The agent has the slot, and counted the prompt."""
        self._is_committed = True
        if self._sink is None or self._agent is None:
            return
        self._metrics.queue_wait_seconds.observe(self.queue_ms / 1000)
        try:
            self._sink.on_committed(self._agent.name, committed)
        except Exception:
            log.exception("sink failed", request_id=self.request_id)
            self._on_broken_sink()

    def on_tokens(
        self,
        token_ids: tuple[int, ...],
        delta: StepDelta,
        logprobs: tuple[TokenLogprob, ...],
    ) -> None:
        """One step's output, straight to the sink."""
        sink = self._sink
        if sink is None:
            return
        if self._first_token_s is None:
            self._first_token_s = self._now()
        self.token_ids.extend(token_ids)
        self.emitted_chars += len(delta) if isinstance(delta, str) else emitted_chars(delta)
        try:
            sink.on_tokens(token_ids, delta, logprobs)
        except Exception:
            log.exception("sink failed", request_id=self.request_id)
            self._on_broken_sink()

    def on_refused(self, error: ErrorObject) -> None:
        """The agent did not take the request."""
        agent = self._release()
        if agent is None or self.done.done():
            return
        self._metrics.call_refused(error.code)
        if consequence_of(error.code).blame == "capacity":
            self._conductor.on_refused_for_capacity(self, agent)
            return
        self._on_agent_failure(self._error_for(error, agent))

    def on_finished(self, finished: Finished) -> None:
        """The agent is done with the request."""
        agent = self._release()
        if agent is None or self.done.done():
            return
        if finished.finish_reason == "cancelled":
            cancelled = ErrorObject(
                code=int(RefusalCode.CANCELLED), message="the agent cancelled it"
            )
            self._on_agent_failure(self._error_for(cancelled, agent))
            return
        lost = finished.usage.completion_tokens - len(self.token_ids)
        if lost > END_TOKEN:
            self._on_agent_failure(self._incomplete(agent, lost))
            return
        self.done.set_result(self._outcome(finished, agent))
        self._sink = None
        self._metrics.generation_finished(finished.usage)

    def on_failed(self, error: ErrorObject) -> None:
        """The agent could not finish what it had taken."""
        agent = self._release()
        if agent is None or self.done.done():
            return
        self._metrics.call_refused(error.code)
        if error.code == RpcCode.INTERNAL_ERROR:
            log.error("generation failed", request_id=self.request_id, reason=error.message)
        self._on_agent_failure(self._error_for(error, agent))

    def on_link_lost(self) -> None:
        """The agent's connection ended."""
        agent = self._release()
        if agent is None or self.done.done():
            return
        self._on_agent_failure(
            AgentLost(
                f"the connection to the agent {agent.name!r} ended during the generation; "
                "send the request again",
                details={"agent": agent.name, "completion_tokens": len(self.token_ids)},
            )
        )

    # --- inside ---

    def _error_for(self, error: ErrorObject, agent: Agent) -> BalancerError:
        retry_after_s = self._conductor.retry_after_s(self.queue)
        return error_for(error, agent=agent.name, retry_after_s=retry_after_s)

    def _incomplete(self, agent: Agent, lost: int) -> BalancerError:
        """A message was dropped on the way: an answer with a hole in it must not look whole."""
        return UpstreamFailed(
            f"{lost} tokens of the agent {agent.name!r} did not arrive; send the request again",
            details={"agent": agent.name, "reason": "tokens_lost", "lost": lost},
        )

    def _on_agent_failure(self, error: BalancerError) -> None:
        """The generation cannot go on where it was. `policy.failover` decides here, later."""
        self.fail(error)

    def _on_broken_sink(self) -> None:
        """Our own mistake ends this request, nobody else's."""
        self.fail(
            InternalError("the answer could not be written; this is a defect of the balancer")
        )

    def _let_go(self) -> None:
        """Forget the sink; cancel a running call, which keeps its slot until it is confirmed."""
        self._sink = None
        if self._agent is not None and self._left_s is None:
            self._left_s = self._now()
            self._agent.link.cancel(self._call_id)

    def _release(self) -> Agent | None:
        """The call is over and its slot free; returns the agent that had it."""
        agent, self._agent = self._agent, None
        if agent is None:
            return None
        now = self._now()
        if self._is_committed:  # a refusal takes no time, and would spoil the estimates
            self._conductor.on_slot_held(now - self._started_s)
        if self._left_s is not None:
            self._metrics.cancel_to_free_slot_seconds.observe(now - self._left_s)
        return agent

    def _deadline_ms(self) -> int | None:
        if self._deadline_s is None:
            return None
        return max(0, round((self._deadline_s - self._started_s) * 1000))

    def _outcome(self, finished: Finished, agent: Agent) -> Outcome:
        now = self._now()
        ttft_ms = 0.0
        if self._first_token_s is not None:
            ttft_ms = (self._first_token_s - self.arrived_s) * 1000
            self._metrics.time_to_first_token_seconds.observe(ttft_ms / 1000)
        return Outcome(
            finish_reason=finished.finish_reason,
            stop_sequence=finished.stop_sequence,
            usage=finished.usage,
            timings=finished.timings,
            agent=agent.name,
            attempts=self._attempts,
            queue_ms=(self._started_s - self.arrived_s) * 1000,
            ttft_ms=ttft_ms,
            total_ms=(now - self.arrived_s) * 1000,
        )
