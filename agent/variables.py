"""PURE: variables that begin as the agent's do and are none of its settings."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches

from agent.errors import ConfigError

PREFIX = "PADDLER_AGENT_"
_MOST_LIKELY_MEANT = 0.85
_MOST_NAMED = 10
_MOST_SHOWN_CHARS = 100


def strangers(variables: Collection[str], known: Collection[str]) -> list[str]:
    """Those that nobody knows, at most ten: Kubernetes sets such for a service called
    paddler-agent. Raises `ConfigError` for one that is nearly a setting's, whose name it says."""
    endings = [name.removeprefix(PREFIX) for name in known]
    found = sorted(name for name in variables if name.startswith(PREFIX) and name not in known)
    for name in found:
        near = get_close_matches(
            name.removeprefix(PREFIX)[:_MOST_SHOWN_CHARS], endings, n=1, cutoff=_MOST_LIKELY_MEANT
        )
        if near:
            raise ConfigError(
                f"{name[:_MOST_SHOWN_CHARS]}: there is no such variable; "
                f"did you mean {PREFIX}{near[0]}?"
            )
    return [name[:_MOST_SHOWN_CHARS] for name in found[:_MOST_NAMED]]
