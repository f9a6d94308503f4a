"""Requests as operators see them: values, copied at one moment."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

RequestState = Literal["waiting", "running", "paused", "moving"]


class RequestSnapshot(Struct, frozen=True, kw_only=True):
    """One row of `GET /requests`: a generation. Those of a request for several choices share its
    `id`. `position` counts from 1 among those who wait for the model."""

    id: str
    choice: int = 0
    model: str
    tenant: str
    state: RequestState
    agent: str | None
    attempts: int
    age_ms: float
    completion_tokens: int
    position: int | None = None
    estimated_start_s: int | None = None
