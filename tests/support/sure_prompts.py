"""The published list of prompts that the shipped model is sure of, with their exact answers."""

from __future__ import annotations

import tomllib
from typing import Any

from tests.support.cluster import PROJECT

PATH = PROJECT / "agent" / "demo_model" / "sure_prompts.toml"


def sure_prompts() -> list[tuple[str, str]]:
    """(question, exact greedy answer), each with a smallest margin of 0.5 or more."""
    return [(row["question"], row["answer"]) for row in _rows()]


def long_counting_prompts() -> list[tuple[str, str]]:
    """The counting ones that give at least 60 tokens."""
    return [(q, a) for q, a in sure_prompts() if q.startswith("Count") and len(a.split()) >= 60]


def _rows() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = tomllib.loads(PATH.read_text())["prompts"]
    return rows
