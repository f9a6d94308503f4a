"""`paddler-py top` beside a balancer: its feed, what it prints, and keys in a real terminal."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import struct
import sys
import termios
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from fcntl import ioctl
from pathlib import Path

import aiohttp
import pytest

from balancer.terminal.top.actions import Action, perform
from balancer.terminal.top.feed import Feed
from balancer.terminal.top.picture import Picture
from tests.support.fake_agent import FakeAgent, Script
from tests.support.fake_live_balancer import CONTROL, FakeLiveBalancer, fake_live_balancer
from tests.support.running_balancer import running_balancer

PROJECT = Path(__file__).resolve().parents[2]
PATIENCE_S = 30


class Watched:
    """A feed's picture, with a way to wait for what it shows."""

    def __init__(self) -> None:
        self.picture = Picture()
        self.links: list[str] = []
        self._changed = asyncio.Event()

    def on_change(self) -> None:
        self.links.append(self.picture.state.link)
        self._changed.set()

    async def until(self, is_so: Callable[[Picture], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not is_so(self.picture):
                self._changed.clear()
                await self._changed.wait()


@asynccontextmanager
async def watching(url: str) -> AsyncIterator[Watched]:
    watched = Watched()
    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as tasks:
        feed = Feed(session, url, watched.picture, on_change=watched.on_change)
        running = tasks.create_task(feed.run())
        yield watched
        running.cancel()


def is_live(picture: Picture) -> bool:
    return picture.state.link == "live"


async def test_what_the_sockets_tell_is_in_the_picture() -> None:
    async with fake_live_balancer() as balancer, watching(balancer.url) as watched:
        await watched.until(is_live)
        await balancer.tell("control", set={"agents.gpu-1.state": "draining"})
        await balancer.tell(
            "metrics",
            set={"now.requests.per_second": 4},
            point={"at": 2000, "values": {"tokens.per_second": 9}},
        )
        await watched.until(lambda picture: picture.figure("requests.per_second") == 4)
        await watched.until(lambda picture: picture.rows("agents")[0]["state"] == "draining")
        assert list(watched.picture.history["tokens.per_second"]) == [1, None, 3, 9]


async def test_after_a_missed_change_everything_is_asked_for_again() -> None:
    async with fake_live_balancer() as balancer, watching(balancer.url) as watched:
        await watched.until(is_live)
        balancer.data["control"] = {**CONTROL, "agents": {}}
        await balancer.tell("control", skip=1, set={"agents.gpu-9": {"state": "ready"}})
        await watched.until(lambda picture: picture.rows("agents") == [])
        assert {"type": "snapshot"} in balancer.said


async def test_a_ping_is_answered() -> None:
    async with fake_live_balancer() as balancer, watching(balancer.url) as watched:
        await watched.until(is_live)
        await balancer.sockets["control"].send_json({"type": "ping"})
        await balancer.tell("control", set={"balancer.status": "draining"})
        await watched.until(lambda picture: picture.control["balancer"]["status"] == "draining")
        await balancer.until_said({"type": "pong"})


async def test_a_lost_connection_is_shown_and_made_again() -> None:
    async with fake_live_balancer() as balancer, watching(balancer.url) as watched:
        await watched.until(is_live)
        await balancer.hang_up()
        await watched.until(lambda picture: picture.state.link == "lost")
        assert watched.picture.state.retry_in_s > 0
        assert "closed" in watched.picture.state.why
        await watched.until(is_live)
        assert balancer.connections == 4


async def test_words_of_another_protocol_end_the_connection_with_a_reason() -> None:
    async with fake_live_balancer() as balancer, watching(balancer.url) as watched:
        await watched.until(is_live)
        await balancer.sockets["control"].send_str("[1, 2]")
        await watched.until(lambda picture: picture.state.link == "lost")
        assert "no object" in watched.picture.state.why


async def test_a_balancer_without_live_sockets_is_asked_again_and_again() -> None:
    async with (
        fake_live_balancer(has_sockets=False) as balancer,
        watching(balancer.url) as watched,
    ):
        await watched.until(lambda picture: picture.state.link == "polling")
        (agent,) = watched.picture.rows("agents")
        assert (agent["id"], agent["slots_used"]) == ("gpu-1", 1)
        assert watched.picture.rows("models")[0]["agents"] == ["gpu-1"]
        assert watched.picture.figure("requests.running") == 1
        assert watched.picture.figure("tokens.per_second") is None
        await watched.until(lambda _: watched.links.count("polling") > 1)


async def test_what_a_balancer_refuses_is_said_in_its_own_words() -> None:
    async with running_balancer() as balancer, aiohttp.ClientSession() as session:
        said = await perform(session, balancer.management_url, Action("drain", "a%b?c"))
        assert said.startswith("drain a%b?c: no agent 'a%b?c' is connected")
        said = await perform(session, "http://127.0.0.1:9", Action("cancel", "req_1"))
        assert said == "cancel req_1: cannot be reached: Connection refused"


async def run_top(*arguments: str, **environment: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "paddler_py", "top", *arguments),
        cwd=PROJECT,
        env={**os.environ, **environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE_S):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_a_frame_and_a_snapshot_of_the_real_balancer_are_printed() -> None:
    script = Script(is_held=True)
    async with (
        running_balancer() as balancer,
        FakeAgent(balancer.management_port, name="gpu-1", script=script) as agent,
    ):
        reader, writer = await balancer.open_chat()
        await agent.call()
        (code, frame, _), (json_code, snapshot, _) = await asyncio.gather(
            run_top("--url", balancer.management_url, "--once", COLUMNS="80"),
            run_top("--url", balancer.management_url, "--json"),
        )
        writer.close()
        assert (code, json_code) == (0, 0)
        assert "gpu-1" in frame
        assert "1/4" in frame
        assert "\x1b" not in frame
        assert max(len(line) for line in frame.splitlines()) <= 80
        shown = json.loads(snapshot)
        assert [row["id"] for row in shown["agents"]] == ["gpu-1"]
        assert [row["state"] for row in shown["requests"]] == ["running"]
        assert shown["figures"]["slots"] == {"total": 4, "used": 1}
        del reader


@pytest.mark.parametrize("way", ["--once", "--json"])
async def test_a_balancer_that_is_not_there_is_one_line_and_an_exit_code(way: str) -> None:
    code, out, err = await run_top("--url", "127.0.0.1:9", way)
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert "http://127.0.0.1:9: cannot be reached" in err


class Terminal:
    """`paddler-py top` on a pseudo-terminal of 80 by 24."""

    def __init__(self, leader: int, process: asyncio.subprocess.Process) -> None:
        self._leader = leader
        self.process = process
        self.shown = ""
        self._more = asyncio.Event()
        asyncio.get_running_loop().add_reader(leader, self._read)

    def type(self, text: str) -> None:
        self.shown = ""
        os.write(self._leader, text.encode())

    async def until(self, text: str) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                while text not in self.shown:
                    self._more.clear()
                    await self._more.wait()
        except TimeoutError:
            raise AssertionError(f"never shown: {text!r} in {self.shown[-3000:]!r}") from None

    def _read(self) -> None:
        try:
            self.shown += os.read(self._leader, 65536).decode("utf-8", "replace")
        except OSError:  # the other side has ended
            asyncio.get_running_loop().remove_reader(self._leader)
        self._more.set()


@asynccontextmanager
async def in_a_terminal(url: str, **environment: str) -> AsyncIterator[Terminal]:
    leader, follower = pty.openpty()
    ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    before = termios.tcgetattr(follower)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "paddler_py", "top", "--url", url),
        cwd=PROJECT,
        env={**os.environ, "TERM": "xterm", "LANG": "C.UTF-8", **environment},
        stdin=follower,
        stdout=follower,
        stderr=follower,
    )
    terminal = Terminal(leader, process)
    try:
        yield terminal
        async with asyncio.timeout(PATIENCE_S):
            assert await process.wait() == 0
        assert termios.tcgetattr(follower) == before
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        asyncio.get_running_loop().remove_reader(leader)
        os.close(follower)
        os.close(leader)


async def test_an_operator_drains_an_agent_and_cancels_a_request_by_keys() -> None:
    script = Script(is_held=True)
    async with (
        running_balancer() as balancer,
        FakeAgent(balancer.management_port, name="gpu-1", script=script) as agent,
        in_a_terminal(balancer.management_url) as terminal,
    ):
        await terminal.until("gpu-1")
        chat = asyncio.create_task(balancer.chat())
        await agent.call()
        terminal.type("d")
        await terminal.until("drain gpu-1?")
        terminal.type("y")
        await terminal.until("gpu-1 is drained")
        await terminal.until("draining")
        terminal.type("3")
        await terminal.until("running")
        terminal.type("c")
        await terminal.until("cancel req_")
        terminal.type("y")
        assert (await chat).status == 409
        await terminal.until("no requests")
        terminal.type("q")


async def test_a_dumb_terminal_gets_frames_of_plain_text(
    balancer_of_a_fake: FakeLiveBalancer,
) -> None:
    async with in_a_terminal(balancer_of_a_fake.url, TERM="dumb", LANG="C") as terminal:
        await terminal.until("gpu-1")
        assert "\x1b" not in terminal.shown
        terminal.process.send_signal(2)


@pytest.fixture
async def balancer_of_a_fake() -> AsyncIterator[FakeLiveBalancer]:
    async with fake_live_balancer() as balancer:
        yield balancer


async def test_without_colour_nothing_is_coloured(balancer_of_a_fake: FakeLiveBalancer) -> None:
    async with in_a_terminal(balancer_of_a_fake.url, NO_COLOR="1") as terminal:
        await terminal.until("gpu-1")
        assert "\x1b[3" not in terminal.shown
        await terminal.until("\N{FULL BLOCK}")
        terminal.process.terminate()
