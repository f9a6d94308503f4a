"""The schema of `paddler.yaml` as JSON schema, for editors and for checks elsewhere. Pure."""

from __future__ import annotations

from typing import Any

from balancer.config_file.rules import RULES, variable_of, written
from balancer.settings import Settings


def json_schema() -> dict[str, Any]:
    """Draft 2020-12. `x-applies` says what a change takes: a reload or a restart."""
    defaults = Settings()
    properties: dict[str, Any] = {
        "app": {
            "type": "object",
            "description": "which overlay is laid over this file: paddler.NAME.yaml",
            "properties": {"environment": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}},
            "additionalProperties": False,
        }
    }
    for name, rule in RULES.items():
        properties[name] = {
            **rule.kind.schema,
            "description": rule.what,
            "default": written(getattr(defaults, name)),
            "x-applies": "reload" if rule.is_live else "restart",
            "x-variable": variable_of(name),
            **({"x-flag": rule.flag} if rule.flag else {}),
        }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "paddler.yaml",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }
