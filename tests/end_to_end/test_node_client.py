"""OpenAI's own client for Node and the shipped model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import Any

import pytest

from tests.support import weather_tool
from tests.support.cluster import PROJECT, Cluster

FOLDER = PROJECT / "tests" / "end_to_end" / "node"
COUNTED_TO_60 = " ".join(map(str, range(1, 61)))


@pytest.fixture(scope="module")
def heard(serving: Cluster) -> Any:
    """What the client's program tells of its answers."""
    node = shutil.which("node")
    assert node is not None, "the tests need Node: deploy/setup/test_packages.sh installs it"
    assert (FOLDER / "node_modules").is_dir(), "run deploy/setup/test_packages.sh"
    url = f"{serving.inference_url}/v1"
    result = weather_tool.weather("Oslo")
    done = subprocess.run(
        [node, "openai_client.mjs", weather_tool.NAME, weather_tool.QUESTION, result],
        cwd=FOLDER,
        env={**os.environ, "OPENAI_BASE_URL": url, "OPENAI_API_KEY": "none"},
        capture_output=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def test_chats_are_answered_alike_whole_streamed_and_by_the_helper(heard: Any) -> None:
    assert heard["whole"] == heard["streamed"] == heard["helped"] == COUNTED_TO_60


def test_the_helper_runs_a_tool_and_hears_its_result_told(heard: Any) -> None:
    assert heard["called"] == [{"city": "Oslo"}]
    assert heard["told"] == weather_tool.ANSWER


def test_embeddings_are_the_same_in_both_encodings(heard: Any) -> None:
    for one, other in zip(heard["packed"], heard["plain"], strict=True):
        assert one == pytest.approx(other, abs=1e-6)


def test_completions_models_and_refusals_are_theirs(heard: Any) -> None:
    assert heard["completionTokens"] <= 3
    assert heard["models"] == ["demo"]
    assert heard["refused"] == "NotFoundError"
