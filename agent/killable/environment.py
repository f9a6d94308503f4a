"""What variables the agent's own processes get."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import agent

_NOT_THEIRS = ("PADDLER_AGENT_TOKEN",)


def for_children(ours: Mapping[str, str]) -> dict[str, str]:
    """Ours, with this very package in front, and without the token: they read what strangers
    write, and have no use for it."""
    root = str(Path(agent.__file__).resolve().parent.parent)
    path = ours.get("PYTHONPATH")
    theirs = {**ours, "PYTHONPATH": f"{root}{os.pathsep}{path}" if path else root}
    return {name: value for name, value in theirs.items() if name not in _NOT_THEIRS}
