"""`paddler-py top` and `chat` at a balancer that asks for keys."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from balancer.terminal.api_key import key_of
from balancer.terminal.top.command import top
from tests.support.fake_agent import FakeAgent
from tests.support.keys import ADMIN, SYSTEM, USER, auth
from tests.support.running_balancer import running_balancer

PROJECT = Path(__file__).resolve().parents[2]
PATIENCE_S = 30


def key_file(folder: Path, key: str) -> str:
    path = folder / key
    path.write_text(f"{key}\n", encoding="ascii")
    return str(path)


async def watched(*arguments: str, **environment: str) -> Result:
    runner = CliRunner(env={"PADDLER_API_KEY": None, **environment})
    return await asyncio.to_thread(runner.invoke, top, ["--json", *arguments])


async def test_top_shows_an_admin_what_there_is_and_tells_others_what_key_it_takes(
    tmp_path: Path,
) -> None:
    async with running_balancer(auth=auth()) as balancer:
        here = ("--url", balancer.management_url)
        by_file = await watched(*here, "--key-file", key_file(tmp_path, ADMIN))
        by_variable = await watched(*here, PADDLER_API_KEY=ADMIN)
        without = await watched(*here)
        too_low = await watched(*here, "--key-file", key_file(tmp_path, USER))
    for shown in (by_file, by_variable):
        assert (shown.exit_code, '"source": "live"' in shown.output) == (0, True)
    assert without.exit_code == 1
    assert "asks for the key of an admin: --key-file FILE, or PADDLER_API_KEY" in without.output
    assert too_low.exit_code == 1
    assert "has to be of role admin" in too_low.output
    assert "--url" not in without.output + too_low.output


async def chatted(*arguments: str) -> tuple[int | None, str, str]:
    """Exit code, answer and what else was said, of a chat with one question."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "paddler_py", "chat", *arguments),
        cwd=PROJECT,
        env={name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE_S):
        out, err = await process.communicate(b"hi")
    return process.returncode, out.decode().strip(), err.decode()


async def test_chat_takes_its_key_from_a_file(tmp_path: Path) -> None:
    async with (
        running_balancer(auth=auth()) as balancer,
        FakeAgent(balancer.management_port, token=SYSTEM),
    ):
        here = ("--url", balancer.url)
        (code, answer, _), (code_without, _, why) = await asyncio.gather(
            chatted(*here, "--key-file", key_file(tmp_path, USER)), chatted(*here)
        )
    assert (code, bool(answer)) == (0, True)
    assert code_without == 1
    assert "--key-file FILE, or OPENAI_API_KEY" in why


@pytest.mark.parametrize("content", ["", "\n", "one\ntwo", "schlüssel", None])
def test_a_file_without_a_key_is_refused_by_its_name(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(click.UsageError, match=f"--key-file {path}"):
        key_of(path)
