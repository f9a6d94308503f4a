"""`paddler-py demo` from its start to its end, as a script runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.support.cluster import PROJECT

PATIENCE_S = 120


SETTINGS_OF_OTHERS = {
    "PADDLER_SINGLE_PORT": "true",
    "PADDLER_DATA_DIR": "/nowhere",
    "PADDLER_MAX_WATING": "1",
    "PADDLER_AGENT_SLOTS": "many",
    "LOG_LEVEL": "loud",
}
"""Of a balancer and an agent that are set up here: with them neither would start."""


def test_the_demo_gives_a_script_its_answer_and_its_addresses() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "paddler_py", "demo", "--once", "--json", "--slots", "1"],
        cwd=PROJECT,
        env={**os.environ, **SETTINGS_OF_OTHERS},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["question"] == "What is paddler-py?"
    assert "balancer" in said["answer"]
    assert said["inference"].startswith("http://127.0.0.1:")
    assert said["management"].startswith("http://127.0.0.1:")
    assert "Starting a balancer and an agent" in done.stderr
