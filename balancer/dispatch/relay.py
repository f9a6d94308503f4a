"""One generation on its way: takes what its agent says and hands it to its sink.

It is at once the link's `CallHandler` and the sink's `Flow`:

    waiting -> running -> ended
       ^----------'  refused for want of capacity, or broken off: back to its old place

The client may leave at any point; a running call is then cancelled and keeps its slot until the
agent confirms, while the relay already forgot its sink.

Its sink never learns that another agent goes on with it.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from balancer.dispatch.chain import Chain
from balancer.dispatch.claim import Claim
from balancer.dispatch.conductor import Conductor
from balancer.dispatch.consequences import agent_lost, ended_by, garbled, incomplete, judged
from balancer.dispatch.generation import Generation
from balancer.dispatch.hand_over import HandOver
from balancer.dispatch.journal import Route
from balancer.dispatch.listing import RequestState
from balancer.dispatch.metering import Meter
from balancer.dispatch.siblings import Siblings
from balancer.dispatch.sink import Sink
from balancer.dispatch.times import Times
from balancer.errors import (
    BalancerError,
    ClientDropped,
    InternalError,
    InvalidRequest,
    RequestTooLarge,
)
from balancer.fleet.agent import Agent
from balancer.observability.metrics import Metrics
from balancer.policy.failover import Breakage
from balancer.policy.stall import Stall
from protocol.crashes import words
from protocol.errors import FrameTooLarge
from protocol.generation import GenerationRequest, SamplerState, StepDelta, TokenLogprob
from protocol.jsonrpc import ErrorObject, RpcCode
from protocol.prefix_chain import HASH_BYTES
from protocol.refusals import consequence_of
from protocol.to_agent import Committed
from protocol.to_balancer import Finished

log = structlog.get_logger(__name__)

END_TOKEN = 1
"""Usage counts it; an agent may keep it to itself."""


class Relay(Generation):
    """A generation and whoever works on it now."""

    __slots__ = (
        "_conductor",
        "_metrics",
        "_model_here",
        "_move",
        "_sink",
        "claim",
        "is_paused",
        "meter",
        "stall",
    )

    def __init__(
        self,
        request: GenerationRequest,
        sink: Sink,
        *,
        model: str,
        ordinal: int,
        tenant: str,
        request_id: str,
        body_bytes: int,
        deadline_s: float | None,
        conductor: Conductor,
        metrics: Metrics,
        now: Callable[[], float],
        created: int,
        route: Route,
        chain: Chain,
        choice: int = 0,
        siblings: Siblings | None = None,
        meter: Meter | None = None,
    ) -> None:
        super().__init__(
            request,
            model=model,
            ordinal=ordinal,
            tenant=tenant,
            request_id=request_id,
            body_bytes=body_bytes,
            deadline_s=deadline_s,
            created=created,
            route=route,
            chain=chain,
            choice=choice,
            siblings=siblings,
            times=Times(now, metrics),
            now=now,
        )
        self.meter = meter
        self._model_here = model
        self._sink: Sink | None = sink
        self._conductor = conductor
        self._metrics = metrics
        self.claim: Claim | None = None
        """Of the agent that works on it now."""
        self._move: HandOver | None = None
        self.is_paused = False
        """Whether its client does not read."""
        self.stall = Stall(self.times.arrived_s)

    # --- for the dispatcher ---

    @property
    def agent(self) -> Agent | None:
        """Who works on it now."""
        claim = self.claim
        return None if claim is None else claim.agent

    @property
    def state(self) -> RequestState:
        """As operators see it."""
        if self.is_moving:
            return "moving"
        if self.claim is None:
            return "waiting"
        return "paused" if self.is_paused else "running"

    def take_away(self, breakage: Breakage, error: BalancerError) -> None:
        """End the running call, and have the generation go on elsewhere."""
        claim = self.claim
        if claim is None or self.times.has_left:
            return
        self._end_move()
        claim.abandon()
        self._release()
        self._broken(claim.agent, breakage, error)

    @property
    def is_moving(self) -> bool:
        """Whether its state is on the way to another agent."""
        return self._move is not None

    def hand_over(self, target: Agent, error: BalancerError) -> None:
        """Take the running call's KV state to an agent that can use it, and go on there. `error`
        is for a client that nobody can go on for."""
        claim = self.claim
        if claim is None or self.times.has_left or self._move is not None:
            return
        self.prefers = target.name

        def go_on() -> None:
            """With the state or without: from its tokens."""
            self._move = None
            if self.claim is claim:
                claim.abandon()
                self._release()
            if not self.is_over:
                self._broken(claim.agent, "drained", error)

        self._move = HandOver(
            claim.call_id,
            claim.agent.link,
            target.link,
            cache_scope=self.cache_scope,
            on_end=go_on,
        )

    def start(self, agent: Agent, request: GenerationRequest) -> None:
        """Claim a slot of the agent by calling it. Raises nothing: a call that cannot be made
        ends the relay."""
        self.attempts += 1
        self._model_here = request.model
        self.times.claimed(is_first=not self.has_begun)
        self.so_far.begin(agent.resume_key)
        try:
            call_id = agent.link.call(self.call_to(agent, request), self)
        except FrameTooLarge as error:
            self.fail(RequestTooLarge(f"no agent can be sent the request: {error}; shorten it"))
        except UnicodeEncodeError:
            self.fail(InvalidRequest("the request holds text that is not valid Unicode"))
        else:
            self.claim = Claim(agent, call_id, chain=self.prefix_chain)
            self.claim.charged_ms = self._conductor.on_claimed(self, agent)
            if self.is_paused:
                self.claim.pause()

    def fail(self, error: BalancerError) -> None:
        """End the generation with an error; a running call is cancelled."""
        if not self.is_over:
            self.done.set_exception(error)
        self._let_go()

    def leave(self) -> None:
        """Nobody waits for the result any more. Safe at any time, and more than once."""
        if not self.is_over:
            self.done.cancel()
        elif not self.done.cancelled():
            self.done.exception()  # seen by whoever awaited, or by nobody: no complaint about it
        self._let_go()

    def tell_meter(self) -> None:
        """It is over: what it took, by the agent's own count where it ended well."""
        if self.meter is None:
            return
        completion_tokens = len(self.so_far.token_ids)
        if self.done.done() and not self.done.cancelled() and self.done.exception() is None:
            completion_tokens = self.done.result().usage.completion_tokens
        self.meter.ended(
            self.choice,
            prompt_tokens=self.route.prompt_tokens,
            completion_tokens=completion_tokens,
        )

    # --- Flow ---

    def pause(self) -> None:
        """Ask the agent to stop producing."""
        if self.is_paused or self.times.has_left or self.is_over:
            return
        self.is_paused = True
        if self.claim is not None:
            self.claim.pause()

    def resume(self) -> None:
        """Ask the agent to go on."""
        if not self.is_paused or self.times.has_left:
            return
        self.is_paused = False
        if self.claim is not None:
            self.claim.resume()

    def drop(self, reason: str) -> None:
        """Give the client up."""
        if not self.is_over:
            self.fail(ClientDropped(reason))

    # --- CallHandler ---

    def on_committed(self, committed: Committed) -> None:
        """The agent has the slot, and counted the prompt."""
        claim = self.claim
        if claim is not None:
            claim.is_committed = True
        if self.siblings is not None:
            self.siblings.progressed_s = self._now()
        self.model = self._model_here  # found once: more may be served when it goes on
        self.route.prompt_tokens = committed.prompt_tokens
        if self._sink is None or claim is None or self.has_begun:
            return
        self.has_begun = True
        self._metrics.queue_wait_seconds.observe(self.queue_ms / 1000)
        if self.meter is not None:
            refusal = self.meter.prompt_counted(self.choice, committed.prompt_tokens)
            if refusal is not None:
                self.fail(refusal)
                return
        try:
            self._sink.on_committed(claim.agent.name, committed)
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
        so_far = self.so_far
        if so_far.has_none_here:
            self._on_first_token_here()
        so_far.take(token_ids, delta)
        try:
            sink.on_tokens(token_ids, delta, logprobs)
        except Exception:
            log.exception("sink failed", request_id=self.request_id)
            self._on_broken_sink()

    def on_prefill(self, done: int) -> None:
        """The prompt is being worked on."""
        if self.claim is not None:
            self.claim.prefilled = done

    def on_sampler_state(self, state: SamplerState) -> None:
        """For whoever goes on after the tokens that come next."""
        self.so_far.sampler_state = state

    def on_garbled(self) -> None:
        """Tokens may be missing: go on elsewhere, or here anew, from those that came."""
        if self.claim is not None:
            self.take_away("garbled", garbled(self.claim.agent.name))

    def on_refused(self, error: ErrorObject) -> None:
        """The agent did not take the request."""
        agent = self._ended()
        if agent is None:
            return
        self._metrics.call_refused(error.code)
        self.note(f"refused: {consequence_of(error.code).name}")
        if consequence_of(error.code).blame == "capacity":
            self._conductor.on_refused_for_capacity(self, agent)
            return
        self._on_agent_failure(agent, error)

    def on_finished(self, finished: Finished) -> None:
        """The agent is done with the request."""
        agent = self._release()
        if agent is None or self.is_over:
            return
        if finished.finish_reason == "cancelled" and self.is_moving:
            return  # its state is on the way
        self._end_move()
        if finished.finish_reason == "cancelled":
            # on its own account: it stops, or something is wrong there
            breakage: Breakage = "drained" if agent.is_draining else "failed"
            self._broken(agent, breakage, ended_by(agent.name))
            return
        lost = finished.usage.completion_tokens - len(self.so_far.token_ids)
        if lost > END_TOKEN:
            self.fail(incomplete(agent.name, lost))
            return
        self.note("finished")
        if not self.trail.moves:  # else it was not there from the beginning
            agent.note_speed(finished, blocks=len(self.prefix_chain) // HASH_BYTES)
        self.done.set_result(self.outcome(finished, agent))
        self._sink = None
        self._metrics.generation_finished(finished.usage, self.model)

    def on_failed(self, error: ErrorObject) -> None:
        """The agent could not finish what it had taken."""
        agent = self._ended()
        if agent is None:
            return
        self._metrics.call_refused(error.code)
        if error.code == RpcCode.INTERNAL_ERROR:
            log.error("generation failed", request_id=self.request_id, reason=words(error.message))
        self._on_agent_failure(agent, error)

    def on_link_lost(self) -> None:
        """The agent's connection ended."""
        agent = self._ended()
        if agent is None:
            return
        error = agent_lost(agent.name, completion_tokens=len(self.so_far.token_ids))
        self._broken(agent, "link_lost", error)

    # --- inside ---

    def _on_agent_failure(self, agent: Agent, error: ErrorObject) -> None:
        """The generation cannot go on where it was."""
        retry_after_s = self._conductor.retry_after_s(self.model)
        breakage, shown = judged(error, agent=agent.name, retry_after_s=retry_after_s)
        if breakage is None:
            self.fail(shown)
        else:
            self._broken(agent, breakage, shown)

    def _broken(self, agent: Agent, breakage: Breakage, error: BalancerError) -> None:
        self.note(breakage)
        self.trail.note(breakage, had_output=not self.so_far.has_none_here)
        if breakage in ("failed", "stalled", "garbled"):
            self.avoided.add(agent)
        self.times.broke()
        self._conductor.on_broken(self, agent, breakage, error)

    def _on_first_token_here(self) -> None:
        """The first token from this agent."""
        self.times.first_token_here()
        self.route.first_token(after_ms=self.times.age_ms)
        if self.claim is not None:
            self._conductor.on_first_token(self, self.claim.agent)

    def _on_broken_sink(self) -> None:
        """Our own mistake ends this request, nobody else's."""
        self.fail(
            InternalError("the answer could not be written; this is a defect of the balancer")
        )

    def _let_go(self) -> None:
        """Forget the sink; cancel a running call, which keeps its slot until it is confirmed."""
        self._sink = None
        self._end_move()
        if self.claim is not None and not self.times.has_left:
            self.times.left()
            self.claim.cancel()

    def _end_move(self) -> None:
        move, self._move = self._move, None
        if move is not None:
            move.cancel()

    def _ended(self) -> Agent | None:
        """The call is over; the agent that had it, unless nobody wants the generation any more."""
        agent = self._release()
        self._end_move()
        return None if self.is_over else agent

    def _release(self) -> Agent | None:
        """The call is over and its slot free; returns the agent that had it."""
        claim, self.claim = self.claim, None
        if claim is None:
            return None
        claim.give_back()
        held_s = self.times.released()
        # a refusal takes no time, and would spoil the estimates
        held_s = held_s if claim.is_committed else 0.0
        self._conductor.on_slot_held(self, claim.agent, held_s, charged_ms=claim.charged_ms)
        return claim.agent
