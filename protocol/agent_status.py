"""An agent's own account of itself: slots, load, issues. The agent is the truth about its slots."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from protocol.jsonrpc import CallId

MAX_ISSUES = 64
MAX_SLOTS = 4096
MAX_GPUS = 64

Percent = Annotated[float, Meta(ge=0, le=100)]
Severity = Literal["warning", "error"]


class Issue(Struct, frozen=True, kw_only=True):
    """Something an operator should know, with what to do about it."""

    code: Annotated[str, Meta(max_length=64)]
    message: Annotated[str, Meta(max_length=2000)]
    severity: Severity = "error"


class Hardware(Struct, frozen=True, kw_only=True):
    """The host as the agent sees it."""

    hostname: Annotated[str, Meta(max_length=253)] = ""
    cpu: Annotated[str, Meta(max_length=200)] = ""
    cores: int = 0
    memory_bytes: int = 0


class GpuUse(Struct, frozen=True, kw_only=True):
    """One GPU of the host; null is what its driver does not tell."""

    name: Annotated[str, Meta(max_length=200)] = ""
    busy_percent: Percent | None = None
    memory_used_bytes: Annotated[int, Meta(ge=0)] | None = None
    memory_total_bytes: Annotated[int, Meta(ge=0)] | None = None
    temperature_c: float | None = None
    power_w: float | None = None


class HostUse(Struct, frozen=True, kw_only=True):
    """How busy the host is, whoever keeps it so."""

    cpu_percent: Percent | None = None
    memory_used_bytes: Annotated[int, Meta(ge=0)] | None = None
    gpus: Annotated[tuple[GpuUse, ...], Meta(max_length=MAX_GPUS)] = ()


class AgentStatus(Struct, frozen=True, kw_only=True):
    """A status: versions order it, counts are exact.

    `seq` grows by one a status message of a link, so older ones are recognised.
    `running` hold a slot; of those `paused` are given no tokens as their clients do not read, and
    `waiting` while they stand still for others: these have their KV cells, or compute what both
    begin with. `waiting` are those, too, that are about to take a slot.
    `capacity_version` grows only when the agent could accept more than before.
    `cache_seq` is that of the last `cache_changed` sent.
    `queries_total` is how many calls for embeddings, scores or ids are taken at once, beside the
    slots, `queries_running` how many there are.
    `engine_steps` counts decode steps; `has_work` says whether one could run now.
    """

    seq: Annotated[int, Meta(ge=0)]
    capacity_version: Annotated[int, Meta(ge=0)]
    cache_seq: Annotated[int, Meta(ge=0)] = 0
    slots_total: Annotated[int, Meta(ge=0, le=MAX_SLOTS)]
    running: Annotated[tuple[CallId, ...], Meta(max_length=MAX_SLOTS)] = ()
    waiting: Annotated[tuple[CallId, ...], Meta(max_length=MAX_SLOTS)] = ()
    paused: Annotated[tuple[CallId, ...], Meta(max_length=MAX_SLOTS)] = ()
    queries_total: Annotated[int, Meta(ge=0, le=MAX_SLOTS)] = 0
    queries_running: Annotated[int, Meta(ge=0, le=MAX_SLOTS)] = 0
    engine_steps: int = 0
    has_work: bool = False
    kv_cells_used: int = 0
    kv_cells_total: int = 0
    issues: Annotated[tuple[Issue, ...], Meta(max_length=MAX_ISSUES)] = ()
    load_progress: Annotated[float, Meta(ge=0, le=1)] | None = None
    """How much of the model is in memory, while it is being loaded."""
    host: HostUse | None = None
    clock_s: Annotated[float, Meta(ge=0)] | None = None
    """The agent's clock when it said this: unix seconds."""
