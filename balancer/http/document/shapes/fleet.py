"""Agents and requests, as operators see them."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from balancer.dispatch.journal import Route
from balancer.dispatch.listing import RequestSnapshot
from balancer.dispatch.timeline import Timeline
from balancer.fleet.snapshot import AgentSnapshot
from balancer.http.document.shapes import openai
from balancer.settings import LogLevel


class AgentRow(AgentSnapshot, frozen=True, kw_only=True):
    """An agent."""

    slots_total: int
    slots_used: int


class AgentList(Struct, kw_only=True):
    """All agents, by name."""

    object: Literal["list"]
    data: list[AgentRow]


class AbsentAgent(Struct, kw_only=True):
    """An agent that is not here, and whether it may come."""

    id: str
    state: Literal["removed", "not_connected"]


class RequestList(Struct, kw_only=True):
    """What runs, then what waits, in order."""

    object: Literal["list"]
    data: list[RequestSnapshot]


class FinishedRow(Struct, kw_only=True):
    """A generation that is over; `arrived` is in unix seconds."""

    id: str
    choice: int
    model: str | None
    tenant: str
    agent: str | None
    outcome: str
    attempts: int
    arrived: float
    total_ms: float
    prompt_tokens: int
    completion_tokens: int


class FinishedList(Struct, kw_only=True):
    """Generations that are over, the last to end first."""

    object: Literal["list"]
    data: list[FinishedRow]


class CancelledRequest(Struct, kw_only=True):
    """A request that was ended."""

    id: str
    state: Literal["cancelled"]


class RequestRoute(Route, kw_only=True):
    """Why a request went where it went."""

    object: Literal["route"]
    other_choices: list[Route]


class RequestTimeline(Timeline, frozen=True, kw_only=True):
    """What a request waited for."""

    object: Literal["timeline"]
    other_choices: list[Timeline]


class DetailedModel(openai.ModelRow, kw_only=True):
    """A model, by one of its names."""

    aliases: list[str]
    architecture: str
    quantization: str | None
    parameters: int | None
    size_bytes: int | None
    trained_context: int | None
    modalities: list[str]
    adapters: list[str]
    embedding_dimensions: int | None
    agents: list[str]
    slots_total: int
    slots_used: int


class ServedModels(Struct, kw_only=True):
    """What is served, and the names alone."""

    object: Literal["list"]
    data: list[DetailedModel]
    models: list[str]


class ModelMetadata(DetailedModel, kw_only=True):
    """One model; null is what no agent told, for the reason in `unknown`."""

    chat_template: str | None
    chat_template_chars: int | None
    bos_token: str | None
    eos_token: str | None
    reasoning_format: str | None
    tool_format: str | None
    unknown: str | None


class LogLevelBody(Struct, kw_only=True):
    """The least level that is logged."""

    level: LogLevel
