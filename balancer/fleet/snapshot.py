"""Agents as others may see them: values, copied from the roster at one moment."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from balancer.fleet.agent import Agent
from protocol.agent_status import Hardware, HostUse, Issue
from protocol.models import ServedModel

AgentState = Literal["ready", "busy", "draining", "not_ready"]
SERVING: tuple[AgentState, ...] = ("ready", "busy")
Condition = Literal["healthy", "degraded", "unhealthy", "disabled"]


class SlotCounts(Struct, frozen=True, kw_only=True):
    """`used` is what cannot be claimed; `running`, `waiting`, `paused` are the agent's words."""

    total: int
    used: int
    free: int
    running: int
    waiting: int
    paused: int


class AgentSnapshot(Struct, frozen=True, kw_only=True):
    """One row of `GET /agents`."""

    id: str
    name: str
    epoch: str
    state: AgentState
    model: ServedModel | None
    slots: SlotCounts
    kv_cells_used: int
    kv_cells_total: int
    engine_steps: int
    load_progress: float | None
    issues: tuple[Issue, ...]
    labels: dict[str, str]
    hardware: Hardware
    host: HostUse | None
    version: str
    llama_cpp_version: str
    connected_for_s: float
    last_heard_s_ago: float
    heartbeat_interval_s: float
    """How often it was told to report."""
    clock_ahead_s: float | None
    """Its clock less the balancer's; null: it does not tell."""


def snapshot_of(agent: Agent, *, now: float) -> AgentSnapshot:
    """The agent as it is now."""
    status, register = agent.status, agent.register
    return AgentSnapshot(
        id=agent.name,
        name=agent.name,
        epoch=agent.epoch,
        state=_state_of(agent),
        model=agent.model,
        slots=SlotCounts(
            total=agent.slots_total,
            used=agent.slots_used,
            free=agent.slots_free,
            running=len(status.running),
            waiting=len(status.waiting),
            paused=len(status.paused),
        ),
        kv_cells_used=status.kv_cells_used,
        kv_cells_total=status.kv_cells_total,
        engine_steps=status.engine_steps,
        load_progress=status.load_progress,
        issues=(*agent.issues.values(), *agent.noticed.values()),
        labels=dict(register.labels),
        hardware=register.hardware,
        host=status.host,
        version=register.version,
        llama_cpp_version=register.llama_cpp_version,
        connected_for_s=round(now - agent.connected_s, 3),
        last_heard_s_ago=round(now - agent.link.last_received_s, 3),
        heartbeat_interval_s=agent.link.heartbeat_interval_s,
        clock_ahead_s=None if agent.clock_ahead_s is None else round(agent.clock_ahead_s, 3),
    )


def condition_of(agent: AgentSnapshot) -> Condition:
    """In one word: degraded serves with issues, disabled was taken out by an operator or leaves."""
    if agent.state == "draining":
        return "disabled"
    if agent.state not in SERVING:
        return "unhealthy"
    return "degraded" if agent.issues else "healthy"


def _state_of(agent: Agent) -> AgentState:
    if agent.is_draining:
        return "draining"
    has_slots = agent.slots_total > 0
    if agent.model is None or not (has_slots or agent.queries_total):
        return "not_ready"
    return "ready" if (agent.slots_free if has_slots else agent.queries_free) else "busy"
