"""LoRA adapters of a real engine, over HTTP: each name says what its adapter says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.running_balancer import RunningBalancer
from tests.support.tiny_gguf import write_tiny_gguf
from tests.support.tiny_lora_gguf import write_tiny_lora
from tests.support.tiny_site import tiny_site

NAMES = ("tiny", "tiny:poet", "tiny:clerk")
PROMPT = "abcdefghijklmnopqrstuvwxyz" * 4


@pytest.fixture
async def balancer(tmp_path: Path) -> AsyncIterator[RunningBalancer]:
    """One whose only agent has two adapters."""
    adapters = (
        ("poet", str(write_tiny_lora(tmp_path / "poet.gguf", seed=1))),
        ("clerk", str(write_tiny_lora(tmp_path / "clerk.gguf", seed=2))),
    )
    path = write_tiny_gguf(tmp_path / "tiny.gguf")
    async with tiny_site(path, slots=4, adapters=adapters) as balancer:
        yield balancer


async def completion(balancer: RunningBalancer, model: str) -> tuple[str, int]:
    """What is said under this name, and how much of the prompt was cached."""
    body: dict[str, Any] = {"model": model, "prompt": PROMPT, "temperature": 0}
    answer = await balancer.post("/v1/completions", {**body, "max_tokens": 24, "ignore_eos": True})
    assert answer.status == 200, answer.body
    cached = answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"]
    return answer.json()["choices"][0]["text"], cached


async def test_each_name_says_what_its_adapter_says_and_has_a_cache_of_its_own(
    balancer: RunningBalancer,
) -> None:
    first = [await completion(balancer, name) for name in NAMES]
    again = [await completion(balancer, name) for name in NAMES]
    assert len({text for text, _ in first}) == len(NAMES)
    assert [text for text, _ in again] == [text for text, _ in first]
    assert [cached for _, cached in first] == [0, 0, 0]
    assert all(cached > len(PROMPT) // 2 for _, cached in again)
    rows = (await balancer.get_json(f"{balancer.url}/v1/models"))["data"]
    assert {row["id"] for row in rows} == set(NAMES)
