"""The configuration, as operators see it."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from balancer.config_file.configuration import Change, Validity
from balancer.config_file.faults import OriginKind
from balancer.http.document.shapes.errors import AnswerMetadata, ErrorObject


class Setting(Struct, kw_only=True):
    """One setting. `origin` is a place for people: a file with its line, a variable, a flag."""

    name: str
    value: Any
    default: Any
    description: str
    allowed: str
    origin: str
    origin_kind: OriginKind
    line: int | None
    applies: Literal["reload", "restart"]
    variable: str
    flag: str | None


class Config(Struct, kw_only=True):
    """What is in force."""

    object: Literal["config"]
    config_version: int
    environment: str | None
    files: list[str]
    settings: dict[str, Any]
    details: list[Setting]


class ConfigFault(Struct, kw_only=True):
    """One thing that is wrong; `message` says all of it."""

    message: str
    field: str
    problem: str
    source: str | None
    line: int | None
    remedy: str


class CacheStatus(Struct, kw_only=True):
    """Of the agents' prefix caches."""

    enabled: bool
    hit_rate: float | None
    entries: int


class ConfigStatus(Struct, kw_only=True):
    """How the last reading of the files went, and since when something is in force."""

    status: Validity
    config_version: int
    last_loaded: str
    load_time_ms: float
    file_size_bytes: int
    providers_configured: int
    validation_errors: list[ConfigFault]
    restart_needed: list[str]
    content_is_logged: bool
    """Whether prompts and answers are in the log."""
    cache_status: CacheStatus
    cache_isolated: bool
    """Whether tenants are kept from what agents have cached of others' prompts."""


class ConfigReload(Struct, kw_only=True):
    """How a reload went."""

    success: bool
    message: str
    reload_time_ms: float
    config_version: int
    changes_detected: bool
    changes: list[Change]
    restart_needed: list[str]
    validation_errors: list[ConfigFault]


class RefusedReload(ConfigReload, kw_only=True):
    """One that changed nothing."""

    error: ErrorObject
    status: Literal["error"]
    timestamp: int
    metadata: AnswerMetadata
