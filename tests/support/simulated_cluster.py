"""A cluster that is only told of: what live sockets say of it, second by second.

Agents report, go and come, some under names that were never there; requests begin, give tokens and
end. Everything is a function of time, so that a page can be told of an hour in a minute. Rows are
made of the balancer's own structures.
"""

from __future__ import annotations

from typing import Any

import msgspec

from balancer.dispatch.listing import RequestSnapshot
from balancer.fleet.snapshot import AgentSnapshot, SlotCounts
from balancer.http.management.live.control import SHOWN_FINISHED
from balancer.observability.samples import SERIES
from balancer.observability.tree import Tree
from protocol.agent_status import Hardware, HostUse
from protocol.models import ServedModel

BEGAN_S = 1_800_000_000
"""The unix second at which it begins."""
MINUTE_S = 60
REPORT_S = 5
SLOTS = 8
LIFE_S = 50
"""Of a request."""
TOKENS_A_SECOND = 2
MODEL = "demo"
LINES_A_SECOND = 40


class SimulatedCluster:
    """So many agents and live requests, at any second since it began."""

    def __init__(self, *, agents: int, requests: int) -> None:
        self._agents = agents
        self._requests = requests

    def control(self, at_s: float) -> Tree:
        """What `/ws/control` shows."""
        agents = self._rows_of_agents(int(at_s))
        return {
            "agents": {row["id"]: row for row in agents},
            "models": {MODEL: self._model([row["id"] for row in agents])},
            "requests": dict(self._request(index, at_s) for index in range(self._requests)),
            "finished": self._finished(at_s),
            "balancer": {
                "status": "healthy",
                "version": "0.1.0",
                "started": BEGAN_S,
                "draining": False,
            },
        }

    def figures(self, at_s: int) -> Tree:
        """What `/ws/metrics` shows beneath `now`."""
        names = [row["id"] for row in self._rows_of_agents(at_s)]
        tree: dict[str, Any] = {
            "providers": {name: {"tokens_per_second": _swing(at_s + len(name))} for name in names}
        }
        for path, value in self.values(at_s).items():
            group, name = path.split(".")
            tree.setdefault(group, {})[name] = value
        return tree

    def values(self, at_s: int) -> dict[str, float | None]:
        """The newest number of each series."""
        return {path: _swing(at_s + index) for index, path in enumerate(SERIES)}

    def lines(self, at_s: int) -> list[dict[str, Any]]:
        """The log of one second."""
        return [_line(at_s, f"req_{index}_{at_s}") for index in range(LINES_A_SECOND)]

    def _rows_of_agents(self, at_s: int) -> list[dict[str, Any]]:
        return [
            self._agent(name, index, at_s)
            for index in range(self._agents)
            if (name := _name_of(index, at_s))
        ]

    def _agent(self, name: str, index: int, at_s: int) -> dict[str, Any]:
        used = min(SLOTS, self._requests // self._agents)
        reports = (at_s + index) // REPORT_S
        row: dict[str, Any] = msgspec.to_builtins(
            AgentSnapshot(
                id=name,
                name=name,
                epoch="e1",
                state="draining" if index == 1 and at_s % MINUTE_S >= 40 else "ready",
                model=ServedModel(name=MODEL, context_tokens=2048),
                slots=SlotCounts(
                    total=SLOTS, used=used, free=SLOTS - used, running=used, waiting=0, paused=0
                ),
                kv_cells_used=100 * (reports % 20),
                kv_cells_total=2048,
                engine_steps=reports,
                load_progress=None,
                clock_ahead_s=None,
                issues=(),
                labels={},
                hardware=Hardware(hostname="host", cores=8, memory_bytes=2**34),
                host=HostUse(cpu_percent=_swing(reports), memory_used_bytes=2**33),
                version="0.1.0",
                llama_cpp_version="0.3.36",
                connected_for_s=0.0,
                last_heard_s_ago=0.0,
                heartbeat_interval_s=REPORT_S,
            )
        )
        del row["connected_for_s"], row["last_heard_s_ago"], row["clock_ahead_s"]
        heard_s = BEGAN_S + reports * REPORT_S - index % REPORT_S
        return {**row, "connected": BEGAN_S, "last_heard": heard_s}

    def _model(self, agents: list[str]) -> dict[str, Any]:
        return {
            "id": MODEL,
            "status": "healthy",
            "context_window": 2048,
            "capabilities": {"chat": True},
            "description": "",
            "version": "",
            "aliases": [],
            "architecture": "llama",
            "adapters": [],
            "agents": agents,
            "slots_total": SLOTS * len(agents),
            "slots_used": self._requests,
        }

    def _request(self, index: int, at_s: float) -> tuple[str, dict[str, Any]]:
        life, age_s = divmod(at_s + index % LIFE_S, LIFE_S)
        row: dict[str, Any] = msgspec.to_builtins(
            RequestSnapshot(
                id=f"req_{index}_{int(life)}",
                model=MODEL,
                tenant="",
                state="running",
                agent=f"gpu-{index % self._agents}",
                attempts=1,
                age_ms=0.0,
                completion_tokens=int(TOKENS_A_SECOND * age_s + index % 2 / 2),
            )
        )
        del row["age_ms"]
        return f"{row['id']}#0", {**row, "arrived": BEGAN_S + at_s - age_s}

    def _finished(self, at_s: float) -> dict[str, Any]:
        """Of each row of requests the one before, the latest to end at the end."""
        ended = sorted(
            range(self._requests), key=lambda index: (at_s + index % LIFE_S) % LIFE_S, reverse=True
        )
        rows = (self._end(index, at_s) for index in ended[-SHOWN_FINISHED:])
        return {f"{row['id']}#0": row for row in rows}

    def _end(self, index: int, at_s: float) -> dict[str, Any]:
        life, age_s = divmod(at_s + index % LIFE_S, LIFE_S)
        return {
            "id": f"req_{index}_{int(life) - 1}",
            "choice": 0,
            "model": MODEL,
            "tenant": "",
            "agent": f"gpu-{index % self._agents}",
            "outcome": "stop",
            "attempts": 1,
            "arrived": BEGAN_S + at_s - age_s - LIFE_S,
            "total_ms": 1000.0 * LIFE_S,
            "prompt_tokens": 7,
            "completion_tokens": TOKENS_A_SECOND * LIFE_S,
        }


def _name_of(index: int, at_s: int) -> str:
    """Empty while it is not there. The first one is lost for a while each minute; the second one
    is drained and goes, and another comes in its place."""
    minute, second = divmod(at_s, MINUTE_S)
    if index == 0:
        return "" if 20 <= second < 40 else "gpu-0"
    if index == 1:
        return "" if second >= 50 else f"gpu-{1 + 1000 * minute}"
    return f"gpu-{index}"


def _swing(number: int) -> float:
    """Up and down."""
    return abs(number % 20 - 10) * 1.5


def _line(at_s: int, request_id: str) -> dict[str, Any]:
    return {
        "at": BEGAN_S + at_s,
        "level": "info",
        "component": "http.middleware",
        "event": "answered",
        "request_id": request_id,
        "facts": {"status": 200, "total_ms": 50000.0, "route": "/v1/chat/completions"},
    }
