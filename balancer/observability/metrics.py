"""Every metric of the balancer. Names carry their unit; label values come from bounded sets.

Nothing here is touched per token: callers count with plain integers and publish once a request.
Bound children are kept, `labels()` costs four times as much as `inc()` on a kept child.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import inf
from typing import Literal

from msgspec import Struct
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from balancer.observability.scraped import (
    AgentSlots,
    CertificateCollector,
    LimitFigures,
    LimitsCollector,
    SlotsCollector,
)
from balancer.observability.tallies import OTHER, Tallies
from protocol.generation import Usage
from protocol.refusals import consequence_of

CONTENT_TYPE = CONTENT_TYPE_LATEST
SWITCHING_PROTOCOLS = 101
MAX_MODEL_LABELS = 256
"""Models past this many are summed under the name `other`."""
_TOKEN_KINDS = ("prompt", "completion", "cached", "reasoning")

EdgeReason = Literal[
    "connections",
    "connections_of_address",
    "slow_head",
    "large_head",
    "long_target",
    "no_http",
    "foreign_host",
    "foreign_origin",
    "proxied",
]

_LATENCY_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
LATENCY_BOUNDS_S = (*_LATENCY_BUCKETS_S, inf)
_REQUEST_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class Latencies(Struct, frozen=True):
    """Counts of the buckets of `LATENCY_BOUNDS_S`."""

    first_token: tuple[float, ...]
    queue_wait: tuple[float, ...]


class Totals(Struct):
    """What rates and shares are made of, beside the series: plain numbers, as series are not meant
    to be read back."""

    requests: int = 0
    """Answers that took work: of a model, or of an agent."""
    failed: int = 0
    """Of these, for no mistake of the client; also streams that failed after their headers."""
    response_s: float = 0.0
    prompts_begun: int = 0
    """Prompt tokens of generations that gave a token."""
    prompt_tokens: int = 0
    """Of generations that ended well, as all below."""
    cached_tokens: int = 0
    moves: int = 0

    def answered(self, seconds: float, *, is_failure: bool) -> None:
        """An answer that took work is over."""
        self.requests += 1
        self.failed += is_failure
        self.response_s += seconds


class Metrics:
    """All series of one balancer, in a registry of its own."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.totals = Totals()
        self.of_agents = Tallies()
        self.of_models = Tallies()
        self._build_request_series()
        self._build_embedding_series()
        self._build_question_series()
        self._build_fleet_series()
        self._build_client_series()
        self._build_audit_series()

    def _build_request_series(self) -> None:
        registry = self.registry
        self._requests = Counter(
            "paddler_requests",
            "HTTP requests answered.",
            ["route", "status_class"],
            registry=registry,
        )
        self._request_seconds = Histogram(
            "paddler_request_duration_seconds",
            "From a request's arrival to the end of its answer.",
            ["route"],
            buckets=_REQUEST_BUCKETS_S,
            registry=registry,
        )
        self._request_children: dict[tuple[str, int], tuple[Counter, Histogram]] = {}
        self._generations_ended = Counter(
            "paddler_generations_ended",
            "Generations that are over, by how they ended.",
            ["outcome"],
            registry=registry,
        )
        self._ended_children: dict[str, Counter] = {}
        tokens = Counter(
            "paddler_tokens", "Tokens of finished generations.", ["kind"], registry=registry
        )
        self._prompt_tokens = tokens.labels("prompt")
        self._completion_tokens = tokens.labels("completion")
        self._cached_tokens = tokens.labels("cached")
        self._reasoning_tokens = tokens.labels("reasoning")
        self._model_tokens = Counter(
            "paddler_model_tokens",
            "Tokens of finished generations, by model.",
            ["model", "kind"],
            registry=registry,
        )
        self._model_children: dict[str, tuple[Counter, ...]] = {}
        self.time_to_first_token_seconds = Histogram(
            "paddler_time_to_first_token_seconds",
            "From a generation's arrival to its first token.",
            buckets=_LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.queue_wait_seconds = Histogram(
            "paddler_queue_wait_seconds",
            "From a generation's arrival to the claim of its slot.",
            buckets=_LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.requests_waiting = Gauge(
            "paddler_requests_waiting", "Generations that wait for a slot.", registry=registry
        )
        self.requests_waiting_bytes = Gauge(
            "paddler_requests_waiting_bytes", "Their bodies' bytes.", registry=registry
        )
        self.generations_in_flight = Gauge(
            "paddler_generations_in_flight", "Generations waiting or running.", registry=registry
        )

    def _build_embedding_series(self) -> None:
        registry = self.registry
        self._embedded_inputs = Counter(
            "paddler_embedded_inputs", "Inputs that were embedded.", registry=registry
        )
        self._embedded_tokens = Counter(
            "paddler_embedded_tokens", "Their tokens.", registry=registry
        )
        self.embedding_parts_moved = Counter(
            "paddler_embedding_parts_moved",
            "Parts of embedding requests that another agent was asked for again.",
            registry=registry,
        )
        self.embeddings_waiting = Gauge(
            "paddler_embeddings_waiting",
            "Embedding requests that wait for an agent with room.",
            registry=registry,
        )

    def _build_question_series(self) -> None:
        registry = self.registry
        self.questions_answered = Counter(
            "paddler_questions_answered",
            "Questions for ids, texts, prompts or scores that were answered.",
            registry=registry,
        )
        self.questions_moved = Counter(
            "paddler_questions_moved",
            "Questions that another agent was asked again.",
            registry=registry,
        )
        self.questions_waiting = Gauge(
            "paddler_questions_waiting",
            "Questions that wait for an agent with room.",
            registry=registry,
        )

    def _build_fleet_series(self) -> None:
        registry = self.registry
        self.agents_connected = Gauge(
            "paddler_agents_connected", "Agents that are registered.", registry=registry
        )
        self.cancel_to_free_slot_seconds = Histogram(
            "paddler_cancel_to_free_slot_seconds",
            "From a client's leaving to the confirmed freedom of its slot.",
            buckets=_LATENCY_BUCKETS_S,
            registry=registry,
        )
        self._link_garbage = Counter(
            "paddler_link_garbage", "Unusable messages from agents.", ["kind"], registry=registry
        )
        self._refusals = Counter(
            "paddler_agent_refusals",
            "Calls that an agent refused or failed.",
            ["reason"],
            registry=registry,
        )
        self.agents_ejected = Counter(
            "paddler_agents_ejected", "Agents left out because they failed.", registry=registry
        )
        self._moves = Counter(
            "paddler_generation_moves",
            "Generations that broke off and went on, or began again, elsewhere.",
            ["reason"],
            registry=registry,
        )
        self.move_pause_seconds = Histogram(
            "paddler_generation_move_pause_seconds",
            "From a generation's breaking off to its next token.",
            buckets=_LATENCY_BUCKETS_S,
            registry=registry,
        )
        self._agents_lost = Counter(
            "paddler_agents_lost",
            "Registered agents whose link ended without a goodbye.",
            registry=registry,
        )

    def _build_audit_series(self) -> None:
        self.audit_lines_lost = Counter(
            "paddler_audit_lines_lost",
            "Lines of the audit log that could not be written.",
            registry=self.registry,
        )

    def _build_client_series(self) -> None:
        registry = self.registry
        self.slow_clients_dropped = Counter(
            "paddler_slow_clients_dropped",
            "Streams dropped because their client did not read.",
            registry=registry,
        )
        self.stream_pauses = Counter(
            "paddler_stream_pauses", "Streams paused for a slow client.", registry=registry
        )
        self._edge_refusals = Counter(
            "paddler_edge_refusals",
            "Connections and requests that were refused before anybody looked at what they want.",
            ["reason"],
            registry=registry,
        )
        self._connections_open = Gauge(
            "paddler_connections_open", "Clients' connections.", ["port"], registry=registry
        )
        self._unsent_bytes_high_water = Gauge(
            "paddler_stream_unsent_bytes_high_water",
            "Most bytes that one stream ever held unsent.",
            registry=registry,
        )
        self._unsent_high_water = 0
        self._handshakes_failed = Counter(
            "paddler_tls_handshakes_failed",
            "Connections that did not become encrypted ones.",
            ["reason"],
            registry=registry,
        )

    def request_answered(self, route: str, status: int, seconds: float) -> None:
        """Count an HTTP request; `route` is a template from the route table, never a path. What
        became a WebSocket is counted, but how long it was one is no request's duration."""
        key = (route, status // 100)
        children = self._request_children.get(key)
        if children is None:
            counter = self._requests.labels(route, f"{key[1]}xx")
            children = (counter, self._request_seconds.labels(route))
            self._request_children[key] = children
        children[0].inc()
        if status != SWITCHING_PROTOCOLS:
            children[1].observe(seconds)

    def generation_ended(self, outcome: str) -> None:
        """Count a generation: `outcome` is its finish reason, the code of the error that ended it
        (all of them are written in our own code), or `cancelled`: nobody waits for it any more."""
        child = self._ended_children.get(outcome)
        if child is None:
            child = self._ended_children[outcome] = self._generations_ended.labels(outcome)
        child.inc()

    def generation_finished(self, usage: Usage, model: str) -> None:
        """Count the tokens of a generation that ended well."""
        self._prompt_tokens.inc(usage.prompt_tokens)
        self._completion_tokens.inc(usage.completion_tokens)
        self._cached_tokens.inc(usage.cached_tokens)
        self._reasoning_tokens.inc(usage.reasoning_tokens)
        counts = (
            usage.prompt_tokens,
            usage.completion_tokens,
            usage.cached_tokens,
            usage.reasoning_tokens,
        )
        for child, count in zip(self._tokens_of(model), counts, strict=True):
            child.inc(count)
        self.totals.prompt_tokens += usage.prompt_tokens
        self.totals.cached_tokens += usage.cached_tokens

    def _tokens_of(self, model: str) -> tuple[Counter, ...]:
        """By `_TOKEN_KINDS`."""
        children = self._model_children.get(model)
        if children is None:
            if len(self._model_children) >= MAX_MODEL_LABELS:
                model = OTHER
            children = tuple(self._model_tokens.labels(model, kind) for kind in _TOKEN_KINDS)
            self._model_children[model] = children
        return children

    def embedded(self, *, inputs: int, tokens: int) -> None:
        """Count an embedding request that ended well."""
        self._embedded_inputs.inc(inputs)
        self._embedded_tokens.inc(tokens)

    def done_without_slot(
        self, *, agents: Mapping[str, int], model: str, response_s: float
    ) -> None:
        """Count an embedding request, or one for scores, that ended well: once for its model and
        for each agent, with the tokens of what that one did."""
        for name, tokens in agents.items():
            self.of_agents.of(name).succeeded(response_s=response_s, tokens=tokens)
        self.of_models.of(model).succeeded(response_s=response_s, tokens=sum(agents.values()))

    def link_garbage(self, kind: str) -> None:
        """Count an unusable message; `kind` is one of the link's own words."""
        self._link_garbage.labels(kind).inc()

    def call_refused(self, code: int) -> None:
        """Count a refusal or failure by its name in the table of consequences."""
        self._refusals.labels(consequence_of(code).name).inc()

    def generation_moved(self, reason: str) -> None:
        """Count a move; `reason` is one of `policy.failover.Breakage`."""
        self._moves.labels(reason).inc()
        self.totals.moves += 1

    def agent_lost(self) -> None:
        """Count a registered agent whose link ended although nobody had said so."""
        self._agents_lost.inc()

    def refused_at_edge(self, reason: EdgeReason) -> None:
        """Count a connection or a request that came no further."""
        self._edge_refusals.labels(reason).inc()

    def watch_connections(self, port: str, read: Callable[[], int]) -> None:
        """Publish a port's connections, read at each scrape."""
        self._connections_open.labels(port).set_function(read)

    def stream_held(self, unsent_bytes: int) -> None:
        """Remember the most bytes that a stream held; call where that is measured anyway."""
        if unsent_bytes > self._unsent_high_water:
            self._unsent_high_water = unsent_bytes
            self._unsent_bytes_high_water.set(unsent_bytes)

    def handshake_failed(self, reason: str) -> None:
        """Count it; `reason` is one of `http.handshakes.Failure`."""
        self._handshakes_failed.labels(reason).inc()

    def watch_certificate(self, read: Callable[[], float | None]) -> None:
        """Publish when it ends, in unix seconds, read at each scrape; None: there is none."""
        self.registry.register(CertificateCollector(read))

    def watch_slots(self, read: Callable[[], Iterable[AgentSlots]]) -> None:
        """Publish slots by agent, read at each scrape."""
        self.registry.register(SlotsCollector(read))

    def watch_limits(self, read: Callable[[], LimitFigures]) -> None:
        """Publish what limits hold, read at each scrape."""
        self.registry.register(LimitsCollector(read))

    def cached_share(self) -> float | None:
        """Which share of the prompts' tokens came from a cache since the start; None: there were
        no prompts."""
        totals = self.totals
        return totals.cached_tokens / totals.prompt_tokens if totals.prompt_tokens else None

    def latencies(self) -> Latencies:
        """How much fell into each bucket so far."""
        return Latencies(
            _counts(self.time_to_first_token_seconds), _counts(self.queue_wait_seconds)
        )

    def text(self) -> bytes:
        """Everything in Prometheus' text format; its content type is `CONTENT_TYPE`."""
        return generate_latest(self.registry)


def _counts(histogram: Histogram) -> tuple[float, ...]:
    """Of each bucket for itself; the exposition has them added up."""
    (family,) = histogram.collect()
    sums = [sample.value for sample in family.samples if sample.name.endswith("_bucket")]
    return tuple(upto - below for below, upto in zip([0.0, *sums], sums, strict=False))
