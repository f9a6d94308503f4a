"""The published list of prompts that the shipped model is sure of, with their exact answers."""

from __future__ import annotations

import tomllib
from typing import Any

from tests.support.cluster import PROJECT

PATH = PROJECT / "agent" / "demo_model" / "sure_prompts.toml"


def sure_prompts() -> list[tuple[str, str]]:
    """(prompt, exact greedy answer), each with a smallest margin of 0.5 or more."""
    return [(row["prompt"], row["answer"]) for row in _rows()]


def sure_prompts_of(kind: str) -> list[tuple[str, str]]:
    """Those of one kind: counting (all of them long), alphabet, copying, fact."""
    return [(row["prompt"], row["answer"]) for row in _rows() if row["kind"] == kind]


def _rows() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = tomllib.loads(PATH.read_text())["prompts"]
    return rows
