"""One generation on its way: takes what its agent says and hands it to its sink.

It is at once the link's `CallHandler`, the sink's `Flow` and the waiting room's `Waiter`:

    waiting -> running -> ended
       ^----------'  refused for want of capacity, or broken off: back to its old place

The client may leave at any point; a running call is then cancelled and keeps its slot until the
agent confirms, while the relay already forgot its sink.

The request and what it gave `so_far` are all that another agent needs to go on with the generation,
at the very next character; the sink never learns of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog
from msgspec import structs

from balancer.dispatch.chain import Chain
from balancer.dispatch.conductor import Conductor
from balancer.dispatch.consequences import (
    agent_lost,
    error_for,
    garbled,
    incomplete,
    is_engines_death,
)
from balancer.dispatch.hand_over import HandOver
from balancer.dispatch.journal import Route
from balancer.dispatch.listing import RequestSnapshot, RequestState
from balancer.dispatch.siblings import Siblings
from balancer.dispatch.sink import Outcome, Sink
from balancer.dispatch.so_far import SoFar
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
from balancer.policy.failover import Breakage, Trail
from balancer.policy.holds import length_class
from balancer.policy.stall import Stall
from protocol.errors import FrameTooLarge
from protocol.generation import GenerationRequest, SamplerState, StepDelta, TokenLogprob
from protocol.jsonrpc import ErrorObject, RpcCode
from protocol.prefix_chain import HASH_BYTES
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


def resume_queue(resume_key: str) -> str:
    """The name under which generations wait that only agents of this key can go on with. No model
    has such a name."""
    return f"\x00{resume_key}"


class Relay:
    """One generation from its arrival to its end. `done` becomes its outcome or its error."""

    __slots__ = (
        "_agent",
        "_attempts",
        "_call_id",
        "_chain",
        "_charged_ms",
        "_conductor",
        "_created",
        "_deadline_s",
        "_held_blocks",
        "_is_committed",
        "_is_paused",
        "_metrics",
        "_model_here",
        "_move",
        "_now",
        "_prefilled",
        "_sink",
        "_stall",
        "_was_announced",
        "avoided",
        "body_bytes",
        "choice",
        "done",
        "expiry",
        "length",
        "may_hold",
        "model",
        "ordinal",
        "prefers",
        "request",
        "request_id",
        "route",
        "siblings",
        "so_far",
        "tenant",
        "times",
        "trail",
    )
    """A thousand may wait, and a dictionary for each would be as large as the rest."""

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
    ) -> None:
        self.request = request
        self.ordinal = ordinal
        self.model = self._model_here = model
        self.tenant = tenant
        self.body_bytes = body_bytes
        self.length = length_class(request.max_tokens)
        self.request_id = request_id
        self.choice = choice
        self.route = route
        self.siblings = siblings
        self.so_far = SoFar()
        self.trail = Trail()
        self.avoided: set[Agent] = set()
        """Those that failed it: others are preferred."""
        self.times = Times(now, metrics)
        self.done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.expiry: asyncio.TimerHandle | None = None
        self._sink: Sink | None = sink
        self._conductor = conductor
        self._metrics = metrics
        self._now = now
        self._created = created
        self._deadline_s = deadline_s
        self._agent: Agent | None = None
        self._call_id = NO_CALL
        self._attempts = 0
        self._is_paused = False
        self._is_committed = False
        self._chain = chain
        self._charged_ms = 0.0
        self._held_blocks = 0
        self._prefilled = 0
        self._was_announced = False
        self._stall = Stall(self.times.arrived_s)
        self._move: HandOver | None = None
        self.prefers = ""
        """The agent that has its state."""
        self.may_hold = False
        """Whether it may wait for a full agent that has its beginning cached."""

    # --- for the dispatcher ---

    @property
    def rank(self) -> tuple[int, int]:
        """Its place among those who wait: what has begun comes first, then by age."""
        return (0 if self._was_announced else 1), self.ordinal

    @property
    def queue(self) -> str:
        """Whose agents it can use: its model's, or of those the ones that know its tokens."""
        key = self.so_far.resume_key
        return self.model if key is None else resume_queue(key)

    @property
    def left_s(self) -> float | None:
        """Seconds until its own deadline; None: it has none."""
        return None if self._deadline_s is None else self._deadline_s - self._now()

    def can_use(self, agent: Agent) -> bool:
        """Whether the agent can go on with what there is."""
        key = self.so_far.resume_key
        return key is None or (key != "" and key == agent.resume_key)

    @property
    def rests(self) -> bool:
        """Whether nobody expects progress: no call runs, or its client does not read."""
        agent = self._agent
        return (
            agent is None
            or self._is_paused
            or self.times.has_left
            or self._call_id in agent.status.paused
        )

    @property
    def is_at_work(self) -> bool:
        """Whether an agent took it and should go on with it."""
        return self._is_committed and not self.rests

    @property
    def gives_way(self) -> bool:
        """Whether its agent says that it stands still for other calls, else it would be at work."""
        agent = self._agent
        return self.is_at_work and agent is not None and self._call_id in agent.status.waiting

    def is_stalled(self, *, longest_s: float, is_excused: bool) -> bool:
        """Whether a running call has made no progress for so long; asked now and then, and told
        whether there is a reason."""
        progress = (self._attempts, len(self.so_far.token_ids), self._prefilled)
        return self._stall.lasts(progress, self._now(), is_excused=is_excused) > longest_s

    @property
    def agent(self) -> Agent | None:
        """Who works on it now."""
        return self._agent

    def snapshot(
        self, *, position: int | None = None, estimated_start_s: int | None = None
    ) -> RequestSnapshot:
        """The request as operators see it."""
        state: RequestState = "waiting"
        if self.is_moving:
            state = "moving"
        elif self._agent is not None:
            state = "paused" if self._is_paused else "running"
        return RequestSnapshot(
            id=self.request_id,
            choice=self.choice,
            model=self.model,
            tenant=self.tenant,
            state=state,
            agent=self._agent.name if self._agent is not None else None,
            attempts=self._attempts,
            age_ms=round(self.times.age_ms, 3),
            completion_tokens=len(self.so_far.token_ids),
            position=position,
            estimated_start_s=estimated_start_s,
        )

    def take_away(self, breakage: Breakage, error: BalancerError) -> None:
        """End the running call, and have the generation go on elsewhere."""
        agent = self._agent
        if agent is None or self.times.has_left:
            return
        self._end_move()
        agent.link.abandon(self._call_id)
        self._release()
        self._broken(agent, breakage, error)

    @property
    def is_moving(self) -> bool:
        """Whether its state is on the way to another agent."""
        return self._move is not None

    def hand_over(self, target: Agent, error: BalancerError) -> None:
        """Take the running call's KV state to an agent that can use it, and go on there. `error`
        is for a client that nobody can go on for."""
        agent = self._agent
        if agent is None or self.times.has_left or self._move is not None:
            return
        self.prefers = target.name

        def go_on() -> None:
            """With the state or without: from its tokens."""
            self._move = None
            if self._agent is agent:
                agent.link.abandon(self._call_id)
                self._release()
            if not self.done.done():
                self._broken(agent, "drained", error)

        self._move = HandOver(
            self._call_id, agent.link, target.link, cache_scope=CACHE_SCOPE, on_end=go_on
        )

    @property
    def is_over(self) -> bool:
        """Whether the generation has its outcome, its error, or no client any more."""
        return self.done.done()

    @property
    def prefix_chain(self) -> bytes:
        """The request's chain, packed."""
        return self._chain.packed

    def request_for(self, model: str) -> GenerationRequest:
        """The request with the name of the model that was found for it."""
        if self.request.model == model:
            return self.request
        return structs.replace(self.request, model=model)

    def start(self, agent: Agent, request: GenerationRequest) -> None:
        """Claim a slot of the agent by calling it. Raises nothing: a call that cannot be made
        ends the relay."""
        self._attempts += 1
        self._model_here = request.model
        self.times.claimed(is_first=not self._was_announced)
        self._is_committed = False
        self._prefilled = 0
        self.so_far.begin(agent.resume_key)
        chain = self._chain.packed
        params = generate_tokens_call(
            agent.addressed(request),
            created=self._created,
            deadline_ms=self._deadline_ms(),
            trace_id=self.request_id,
            cache_scope=CACHE_SCOPE,
            prefix_chain=chain,
            resume=self.so_far.resume(),
        )
        try:
            self._call_id = agent.link.call(params, self)
        except FrameTooLarge as error:
            self.fail(RequestTooLarge(f"no agent can be sent the request: {error}; shorten it"))
        except UnicodeEncodeError:
            self.fail(InvalidRequest("the request holds text that is not valid Unicode"))
        else:
            self._agent = agent
            self._charged_ms = self._conductor.on_claimed(self, agent)
            self._held_blocks = agent.cached.expect(chain)
            if self._is_paused:
                agent.link.pause(self._call_id)

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
        is_waiting = not (self._was_announced or self._agent or self.done.done())
        return self.times.queue_ms(is_waiting=is_waiting)

    def pause(self) -> None:
        """Ask the agent to stop producing."""
        if self._is_paused or self.times.has_left or self.done.done():
            return
        self._is_paused = True
        if self._agent is not None:
            self._agent.link.pause(self._call_id)

    def resume(self) -> None:
        """Ask the agent to go on."""
        if not self._is_paused or self.times.has_left:
            return
        self._is_paused = False
        if self._agent is not None:
            self._agent.link.continue_(self._call_id)

    def drop(self, reason: str) -> None:
        """Give the client up."""
        if not self.done.done():
            self.fail(ClientDropped(reason))

    # --- CallHandler ---

    def on_committed(self, committed: Committed) -> None:
        """The agent has the slot, and counted the prompt."""
        self._is_committed = True
        if self.siblings is not None:
            self.siblings.progressed_s = self._now()
        self.model = self._model_here  # found once: more may be served when it goes on
        self.route.prompt_tokens = committed.prompt_tokens
        if self._sink is None or self._agent is None or self._was_announced:
            return
        self._was_announced = True
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
        self._prefilled = done

    def on_sampler_state(self, state: SamplerState) -> None:
        """For whoever goes on after the tokens that come next."""
        self.so_far.sampler_state = state

    def on_garbled(self) -> None:
        """Tokens may be missing: go on elsewhere, or here anew, from those that came."""
        if self._agent is not None:
            self.take_away("garbled", garbled(self._agent.name))

    def on_refused(self, error: ErrorObject) -> None:
        """The agent did not take the request."""
        agent = self._release()
        self._end_move()
        if agent is None or self.done.done():
            return
        self._metrics.call_refused(error.code)
        self._note(f"refused: {consequence_of(error.code).name}")
        if consequence_of(error.code).blame == "capacity":
            self._conductor.on_refused_for_capacity(self, agent)
            return
        self._on_agent_failure(agent, error)

    def on_finished(self, finished: Finished) -> None:
        """The agent is done with the request."""
        agent = self._release()
        if agent is None or self.done.done():
            return
        if finished.finish_reason == "cancelled" and self.is_moving:
            return  # its state is on the way
        self._end_move()
        if finished.finish_reason == "cancelled":
            self._on_cancelled_by(agent)
            return
        lost = finished.usage.completion_tokens - len(self.so_far.token_ids)
        if lost > END_TOKEN:
            self.fail(incomplete(agent.name, lost))
            return
        self._note("finished")
        if not self.trail.moves:  # else it was not there from the beginning
            agent.note_speed(finished, blocks=len(self.prefix_chain) // HASH_BYTES)
        self.done.set_result(self._outcome(finished, agent))
        self._sink = None
        self._metrics.generation_finished(finished.usage)

    def on_failed(self, error: ErrorObject) -> None:
        """The agent could not finish what it had taken."""
        agent = self._release()
        self._end_move()
        if agent is None or self.done.done():
            return
        self._metrics.call_refused(error.code)
        if error.code == RpcCode.INTERNAL_ERROR:
            log.error("generation failed", request_id=self.request_id, reason=error.message)
        self._on_agent_failure(agent, error)

    def on_link_lost(self) -> None:
        """The agent's connection ended."""
        agent = self._release()
        self._end_move()
        if agent is None or self.done.done():
            return
        error = agent_lost(agent.name, completion_tokens=len(self.so_far.token_ids))
        self._broken(agent, "link_lost", error)

    # --- inside ---

    def _error_for(self, error: ErrorObject, agent: Agent) -> BalancerError:
        retry_after_s = self._conductor.retry_after_s(self.model)
        return error_for(error, agent=agent.name, retry_after_s=retry_after_s)

    def _on_cancelled_by(self, agent: Agent) -> None:
        """The agent ended the call on its own account: it stops, or something is wrong there."""
        error = ErrorObject(code=int(RefusalCode.CANCELLED), message="the agent cancelled it")
        breakage: Breakage = "drained" if agent.is_draining else "failed"
        self._broken(agent, breakage, self._error_for(error, agent))

    def _on_agent_failure(self, agent: Agent, error: ErrorObject) -> None:
        """The generation cannot go on where it was."""
        shown = self._error_for(error, agent)
        if consequence_of(error.code).blame != "agent":
            self.fail(shown)
            return
        self._broken(agent, "engine_died" if is_engines_death(error) else "failed", shown)

    def _broken(self, agent: Agent, breakage: Breakage, error: BalancerError) -> None:
        self._note(breakage)
        self.trail.note(breakage, had_output=not self.so_far.has_none_here)
        if breakage in ("failed", "stalled", "garbled"):
            self.avoided.add(agent)
        self.times.broke()
        self._conductor.on_broken(self, agent, breakage, error)

    def _on_first_token_here(self) -> None:
        """The first token from this agent."""
        self.times.first_token_here()
        if self._agent is not None:
            self._conductor.on_first_token(self._agent)

    def _on_broken_sink(self) -> None:
        """Our own mistake ends this request, nobody else's."""
        self.fail(
            InternalError("the answer could not be written; this is a defect of the balancer")
        )

    def _let_go(self) -> None:
        """Forget the sink; cancel a running call, which keeps its slot until it is confirmed."""
        self._sink = None
        self._end_move()
        if self._agent is not None and not self.times.has_left:
            self.times.left()
            self._agent.link.cancel(self._call_id)

    def _end_move(self) -> None:
        move, self._move = self._move, None
        if move is not None:
            move.cancel()

    def _release(self) -> Agent | None:
        """The call is over and its slot free; returns the agent that had it."""
        agent, self._agent = self._agent, None
        if agent is None:
            return None
        agent.cached.expect_no_more(self.prefix_chain, held=self._held_blocks)
        held_s = self.times.released()
        # a refusal takes no time, and would spoil the estimates
        held_s = held_s if self._is_committed else 0.0
        self._conductor.on_slot_held(self, held_s, charged_ms=self._charged_ms)
        return agent

    def _deadline_ms(self) -> int | None:
        left_s = self.left_s
        return None if left_s is None else max(0, round(left_s * 1000))

    def _note(self, outcome: str) -> None:
        """What became of the latest choice of an agent."""
        self.route.end(outcome, after_ms=self.times.age_ms)

    def _outcome(self, finished: Finished, agent: Agent) -> Outcome:
        self.times.finished()
        return Outcome(
            finish_reason=finished.finish_reason,
            stop_sequence=finished.stop_sequence,
            usage=finished.usage,
            timings=finished.timings,
            agent=agent.name,
            attempts=self._attempts,
            queue_ms=self.times.queue_ms(is_waiting=False),
            ttft_ms=self.times.ttft_ms,
            total_ms=self.times.age_ms,
        )
