"""Makes the tree of the balancer's figures, and once a second a sample of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import structlog
from msgspec import Struct

from balancer.dispatch.dispatcher import Dispatcher
from balancer.fleet.roster import Roster
from balancer.fleet.snapshot import AgentSnapshot, condition_of
from balancer.observability.host import Host
from balancer.observability.metrics import LATENCY_BOUNDS_S, Latencies, Metrics
from balancer.observability.samples import Samples
from balancer.observability.series import Marks, quantile, rate, share
from balancer.observability.tallies import OTHER, Tallies, Tally
from balancer.observability.tree import Tree

log = structlog.get_logger(__name__)

INTERVAL_S = 1.0
RATE_WINDOW_S = 5.0
"""What happens in a second is what happened in one of about the last five."""
MINUTE_S = 60.0
_FEWEST_TICKS_BETWEEN_S = 0.5


class _Reading(Struct, frozen=True):
    """The counters at one moment."""

    requests: int
    response_s: float
    prompts_begun: int
    prompt_tokens: int
    cached_tokens: int
    moves: int
    generated: Counter[str]
    latencies: Latencies


class Gatherer:
    """Reads the figures where they are. `read` is the tree as it is now; `mark` remembers the
    counters, for the rates of the next minute."""

    def __init__(
        self, *, roster: Roster, dispatcher: Dispatcher, metrics: Metrics, now: Callable[[], float]
    ) -> None:
        self._roster = roster
        self._dispatcher = dispatcher
        self._metrics = metrics
        self._now = now
        self._host = Host()
        self._host_read_s = now()
        self._system: dict[str, Any] = self._host.read()
        self._marks = Marks(self._reading(), at_s=now())

    def mark(self) -> None:
        """Once a second."""
        self._marks.add(self._reading(), at_s=self._now())

    def read(self) -> Tree:
        """All figures; null where nothing is known."""
        now = self._now()
        reading = self._reading()
        age_s, lately = self._marks.about(RATE_WINDOW_S, at_s=now)
        seconds = max(age_s, INTERVAL_S)
        minute = self._marks.before(MINUTE_S, at_s=now)
        agents = self._roster.snapshot()
        slots = _slots(agents)
        in_flight, waiting = self._dispatcher.in_flight, self._dispatcher.waiting
        totals = self._metrics.totals
        return {
            "requests": {
                "per_second": rate(lately.requests, reading.requests, seconds=seconds),
                "in_flight": in_flight,
                "running": in_flight - waiting,
                "waiting": waiting,
                "total": totals.requests,
                "failed": totals.failed,
            },
            "tokens": {
                "per_second": rate(
                    lately.generated.total(), reading.generated.total(), seconds=seconds
                ),
                "prompt_per_second": rate(
                    lately.prompts_begun, reading.prompts_begun, seconds=seconds
                ),
            },
            **_latencies(minute, reading),
            "slots": slots,
            "cache": {
                "hit_rate": share(
                    reading.cached_tokens - minute.cached_tokens,
                    reading.prompt_tokens - minute.prompt_tokens,
                )
            },
            "failovers": {
                "total": totals.moves,
                "per_minute": reading.moves - minute.moves,
            },
            "agents": _conditions(agents),
            "system": self._read_host(now),
            "providers": self._providers(agents, lately.generated, reading.generated, seconds),
            "models": self._models(agents),
        }

    def _reading(self) -> _Reading:
        totals, tallies = self._metrics.totals, self._metrics.of_agents
        generated = Counter({name: tallies.get(name).generated for name in tallies})
        generated.update(self._dispatcher.generating())
        return _Reading(
            requests=totals.requests,
            response_s=totals.response_s,
            prompts_begun=totals.prompts_begun,
            prompt_tokens=totals.prompt_tokens,
            cached_tokens=totals.cached_tokens,
            moves=totals.moves,
            generated=generated,
            latencies=self._metrics.latencies(),
        )

    def _read_host(self, now: float) -> dict[str, Any]:
        """Two readings need time between them, or the processor's share would mean nothing."""
        if now - self._host_read_s >= _FEWEST_TICKS_BETWEEN_S:
            self._host_read_s = now
            self._system = self._host.read()
        return self._system

    def _providers(
        self,
        agents: list[AgentSnapshot],
        before: Counter[str],
        after: Counter[str],
        seconds: float,
    ) -> dict[str, Any]:
        """Those that are connected, and those of which something was counted."""
        tallies = self._metrics.of_agents
        connected = {agent.name: agent for agent in agents}
        return {
            name: {
                **_account(tallies.get(name)),
                # who is counted among the others brings along what was counted long ago
                "tokens_per_second": None
                if name == OTHER
                else rate(before[name], after[name], seconds=seconds),
                **_places(connected.get(name)),
            }
            for name in dict.fromkeys((*connected, *sorted(tallies)))
        }

    def _models(self, agents: list[AgentSnapshot]) -> dict[str, Any]:
        serving: dict[str, list[AgentSnapshot]] = {}
        for agent in agents:
            if agent.model is not None:
                serving.setdefault(agent.model.name, []).append(agent)
        tallies: Tallies = self._metrics.of_models
        return {
            name: {
                "requests_total": tallies.get(name).requests,
                "tokens_total": tallies.get(name).tokens,
                "slots_used": sum(agent.slots.used for agent in serving.get(name, ())),
                "slots_total": sum(agent.slots.total for agent in serving.get(name, ())),
                "agents": len(serving.get(name, ())),
            }
            for name in dict.fromkeys((*sorted(serving), *sorted(tallies)))
        }


class Sampling:
    """One loop: a mark and a sample each second."""

    def __init__(
        self, gatherer: Gatherer, samples: Samples, wall_clock: Callable[[], float]
    ) -> None:
        self._gatherer = gatherer
        self._samples = samples
        self._wall_clock = wall_clock

    async def run(self) -> None:
        """For ever; cancel to stop."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            try:
                self.sample()
            except Exception:  # the task's outermost edge: figures must not end the balancer
                log.exception("no sample of the figures")

    def sample(self) -> None:
        """One round."""
        self._samples.take(at=round(self._wall_clock(), 3))
        self._gatherer.mark()


def _latencies(minute: _Reading, reading: _Reading) -> dict[str, Any]:
    before, after = minute.latencies, reading.latencies
    answered = reading.requests - minute.requests
    response_s = share(reading.response_s - minute.response_s, answered, digits=6)
    return {
        "latency": {
            "ttft_p50_ms": _quantile_ms(0.5, before.first_token, after.first_token),
            "ttft_p95_ms": _quantile_ms(0.95, before.first_token, after.first_token),
            "response_ms": None if response_s is None else round(1000 * response_s, 3),
        },
        "queue": {
            "wait_p50_ms": _quantile_ms(0.5, before.queue_wait, after.queue_wait),
            "wait_p95_ms": _quantile_ms(0.95, before.queue_wait, after.queue_wait),
        },
    }


def _quantile_ms(q: float, before: tuple[float, ...], after: tuple[float, ...]) -> float | None:
    counts = [late - early for early, late in zip(before, after, strict=True)]
    seconds = quantile(q, LATENCY_BOUNDS_S, counts)
    return None if seconds is None else round(1000 * seconds, 3)


def _slots(agents: list[AgentSnapshot]) -> dict[str, int]:
    return {
        "total": sum(agent.slots.total for agent in agents),
        "used": sum(agent.slots.used for agent in agents),
    }


def _conditions(agents: list[AgentSnapshot]) -> dict[str, int]:
    counts = Counter(condition_of(agent) for agent in agents)
    return {
        "total": len(agents),
        **{name: counts[name] for name in ("healthy", "degraded", "unhealthy", "disabled")},
    }


def _account(tally: Tally) -> dict[str, Any]:
    judged = tally.successful + tally.failed
    return {
        "total_requests": tally.requests,
        "successful_requests": tally.successful,
        "failed_requests": tally.failed,
        "success_rate": share(tally.successful, judged),
        "error_rate": share(tally.failed, judged),
        "avg_response_time": share(tally.response_s, tally.successful, digits=6),
        "total_tokens": tally.tokens,
    }


def _places(agent: AgentSnapshot | None) -> dict[str, Any]:
    """An agent that is not connected has none that anybody knows of."""
    if agent is None:
        return {"slots_used": None, "slots_total": None, "kv_used": None}
    return {
        "slots_used": agent.slots.used,
        "slots_total": agent.slots.total,
        "kv_used": share(agent.kv_cells_used, agent.kv_cells_total),
    }
