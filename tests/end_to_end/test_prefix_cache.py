"""What is cached shows in the usage of the answers: real processes, the shipped model."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster import Cluster, wait_until

SYSTEM = "You are a patient assistant of a small team. " * 20


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path)
    cluster.start_balancer()
    yield cluster
    cluster.close()


def ask(cluster: Cluster, *messages: tuple[str, str]) -> Any:
    body = {
        "messages": [{"role": role, "content": content} for role, content in messages],
        "temperature": 0,
    }
    url = f"{cluster.inference_url}/v1/chat/completions"
    request = urllib.request.Request(url, json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def cached(answer: Any) -> int:
    tokens: int = answer["usage"]["prompt_tokens_details"]["cached_tokens"]
    return tokens


def test_a_conversation_that_goes_on_is_not_prefilled_again(cluster: Cluster) -> None:
    cluster.start_agent("one", "--slots", "2")
    first = ask(cluster, ("system", SYSTEM), ("user", "Count from 1 to 5."))
    said = first["choices"][0]["message"]["content"]
    second = ask(
        cluster,
        ("system", SYSTEM),
        ("user", "Count from 1 to 5."),
        ("assistant", said),
        ("user", "Say the alphabet."),
    )
    assert cached(first) == 0
    assert cached(second) >= first["usage"]["prompt_tokens"]


def test_without_a_prefix_cache_nothing_is_cached(cluster: Cluster) -> None:
    cluster.start_agent("one", "--prefix-cache", "off")
    for _ in range(2):
        assert cached(ask(cluster, ("system", SYSTEM), ("user", "Count from 1 to 5."))) == 0


def test_a_warm_prompt_spares_the_first_request_its_prefill(
    cluster: Cluster, tmp_path: Path
) -> None:
    warm = tmp_path / "system.txt"
    warm.write_text(SYSTEM)
    agent = cluster.start_agent("one", "--keep-warm", str(warm))
    wait_until(lambda: "prompt is kept warm" in agent.log(), what="the warm prompt")
    first = ask(cluster, ("system", SYSTEM.strip()), ("user", "Count from 1 to 5."))
    assert cached(first) > 100


def test_a_warm_prompt_is_warm_again_after_the_engine_died(
    cluster: Cluster, tmp_path: Path
) -> None:
    warm = tmp_path / "chat.json"
    warm.write_text(json.dumps({"messages": [{"role": "system", "content": SYSTEM}]}))
    agent = cluster.start_agent("one", "--keep-warm", str(warm))
    wait_until(lambda: "prompt is kept warm" in agent.log(), what="the warm prompt")
    agent.engine().kill()
    wait_until(lambda: agent.log().count("prompt is kept warm") == 2, what="it is warm again")
    assert cached(ask(cluster, ("system", SYSTEM), ("user", "Count from 1 to 5."))) > 100
