"""A `paddler-py` command in a process of its own."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60


async def run_command(*arguments: str, stdin: str | bytes = "") -> tuple[int, str, str]:
    """A `paddler-py` command to its end: exit code, standard output, standard error."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PADDLER_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "paddler_py",
        *arguments,
        cwd=PROJECT,
        env=environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE_S):
        out, err = await process.communicate(stdin.encode() if isinstance(stdin, str) else stdin)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()
