"""The code in the guide to clients runs as it stands there, but for URL and the model's name."""

from __future__ import annotations

import contextlib
import gc
import io
import re
import subprocess
import warnings
from collections.abc import Callable

import pytest

from tests.support.cluster import PROJECT, Cluster

PAGE = (PROJECT / "docs" / "guides" / "clients.md").read_text()
TESTED, _, UNTESTED = PAGE.partition("\n## Coding assistants and others\n")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", TESTED, re.DOTALL | re.MULTILINE)
NODE = PROJECT / "tests" / "end_to_end" / "node"
"""Where the client for Node is found."""


def _run_python(code: str) -> str:
    """In this process: importing the clients anew takes seconds each."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # a page's clients are never closed
        exec(compile(code, "clients.md", "exec"), {})  # noqa: S102 (what our own page says)
        gc.collect()
    return said.getvalue()


def _run(command: list[str]) -> str:
    done = subprocess.run(command, cwd=NODE, capture_output=True, timeout=90, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


RUN: dict[str, Callable[[str], str]] = {
    "python": _run_python,
    "javascript": lambda code: _run(["node", "--input-type=module", "-e", code]),
    "sh": lambda code: _run(["bash", "-ec", code]),
}


@pytest.mark.parametrize(
    ("language", "code"),
    BLOCKS,
    ids=[f"{language} {number}" for number, (language, _) in enumerate(BLOCKS, 1)],
)
def test_the_code_of_the_guide_gets_an_answer(serving: Cluster, language: str, code: str) -> None:
    assert "http://127.0.0.1:8080" in code
    here = code.replace("http://127.0.0.1:8080", serving.inference_url)
    assert len(RUN[language](here.replace("paddler-demo", "demo")).strip()) > 10


def test_the_guide_has_code_for_each_client() -> None:
    assert len(BLOCKS) >= 6
    assert UNTESTED
