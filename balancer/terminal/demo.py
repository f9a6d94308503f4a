"""`paddler-py demo`: a balancer and an agent with the shipped model, asked one question.

Both run as child processes that end with this one, however it ends. They have the settings of the
demo alone: none of a balancer and agents that are set up here, whose stored data stay untouched.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Generator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import IO

import aiohttp
import click

from balancer.terminal.events import ServerSaidNo, stream_chat

QUESTION = "What is paddler-py?"
_INFERENCE_PORT, _MANAGEMENT_PORT = 8080, 8081
_START_PATIENCE_S = 120.0
_END_PATIENCE_S = 10.0
_PROBE_EVERY_S = 0.1
_SHOWN_LOG_LINES = 15
_PR_SET_PDEATHSIG = 1
_END_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
_EXIT_STOPPED = 130


class DemoFailed(Exception):
    """The demo cannot go on; the text says why."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--once", is_flag=True, help="End after the answer.")
@click.option("--slots", type=click.IntRange(1, 64), default=4, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the answer and the addresses as JSON.")
def demo(*, once: bool, slots: int, as_json: bool) -> None:
    """Start a balancer and an agent with the shipped model, and ask it something."""
    try:
        asyncio.run(_demo(once=once, slots=slots, as_json=as_json))
    except DemoFailed as failure:
        click.echo(f"\npaddler-py demo: {failure}", err=True)
        sys.exit(1)
    except (KeyboardInterrupt, asyncio.CancelledError):
        click.echo("stopped", err=True)
        sys.exit(_EXIT_STOPPED)


async def _demo(*, once: bool, slots: int, as_json: bool) -> None:
    task = asyncio.current_task()
    if task is None:
        raise AssertionError("a coroutine runs in a task")
    on_signals(_END_SIGNALS, task.cancel)
    inference = _free_port(_INFERENCE_PORT)
    management = _free_port(_MANAGEMENT_PORT, taken=inference)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="paddler-demo-")))
        settings = folder / "paddler.yaml"
        settings.touch()
        flags = (
            *("--config", str(settings)),  # beside it there is no `.env` either
            *("--inference", f"127.0.0.1:{inference}"),
            *("--management", f"127.0.0.1:{management}"),
        )
        balancer = await stack.enter_async_context(Child.running("balancer", flags, folder))
        load = ("--slots", str(slots), "--threads", str(_threads()))
        source = ("--balancer", f"127.0.0.1:{management}", "--model", "demo")
        agent = await stack.enter_async_context(Child.running("agent", (*source, *load), folder))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        base = f"http://127.0.0.1:{inference}"
        await _until_ready(session, base, (balancer, agent))
        places = {"inference": base, "management": f"http://127.0.0.1:{management}"}
        answer = await _ask(session, base, is_shown=not as_json)
        if as_json:
            click.echo(json.dumps({"question": QUESTION, "answer": answer, **places}))
        else:
            _show_where(**places)
        if once:
            click.echo("It ends now; without --once (ONCE=1) it stays up.", err=True)
        else:
            click.echo("It stays up until Ctrl-C.", err=True)
            await _until_ended((balancer, agent))


def on_signals(numbers: tuple[signal.Signals, ...], act: Callable[[], object]) -> None:
    """Act on these, but for what our caller had us ignore, as nohup does with SIGHUP."""
    loop = asyncio.get_running_loop()
    for number in numbers:
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, act)


class Child:
    """One of our own programs with its log."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log_path: Path) -> None:
        self.name = name
        self.process = process
        self._log_path = log_path

    @classmethod
    @asynccontextmanager
    async def running(cls, name: str, flags: tuple[str, ...], folder: Path) -> AsyncIterator[Child]:
        """The program, ended when the block is left."""
        log_path = folder / f"{name}.log"
        with log_path.open("wb") as log:
            process = await _spawn(name, flags, log)
        child = cls(name, process, log_path)
        try:
            yield child
        finally:
            await child.end()

    def check(self) -> None:
        """Raises `DemoFailed` with the end of its log where it ended by itself."""
        if self.process.returncode is None:
            return
        lines = self._log_path.read_text(errors="replace").splitlines()[-_SHOWN_LOG_LINES:]
        raise DemoFailed(
            f"the {self.name} ended with code {self.process.returncode}:\n" + "\n".join(lines)
        )

    async def end(self) -> None:
        """Ask it to end, then insist: twice, as a second signal ends it at once, then by force."""
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
            if self.process.returncode is not None:
                return
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_END_PATIENCE_S):
                    await self.process.wait()


async def _spawn(name: str, flags: tuple[str, ...], log: IO[bytes]) -> asyncio.subprocess.Process:
    """In a session of its own, so that Ctrl-C reaches only us and we end it in order."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "paddler_py",
        name,
        *flags,
        env=own_environment(os.environ),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
        preexec_fn=_die_with_parent if sys.platform == "linux" else None,
    )


def own_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Without settings of ours."""
    return {
        name: value
        for name, value in variables.items()
        if not name.startswith("PADDLER_") and name != "LOG_LEVEL"
    }


def _die_with_parent() -> None:
    """A killed demo leaves nothing behind either (prctl(2), PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _threads() -> int:
    """Leave a core for the balancer and whoever asks; one thread where there are but two."""
    return max(1, min(4, (os.cpu_count() or 1) - 1))


def _free_port(wanted: int, *, taken: int = 0) -> int:
    """The port if it can be had, else another one, and a word about it."""
    if wanted != taken:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", wanted))
                return wanted
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    click.echo(f"Port {wanted} is taken, using {port} instead.", err=True)
    return port


async def _until_ready(
    session: aiohttp.ClientSession, base: str, children: tuple[Child, ...]
) -> None:
    deadline = time.monotonic() + _START_PATIENCE_S
    progress = _progress("Starting a balancer and an agent with the shipped model")
    while not await _is_ready(session, base):
        for child in children:
            child.check()
        if time.monotonic() > deadline:
            raise DemoFailed(f"not ready after {_START_PATIENCE_S:.0f} s")
        next(progress)
        await asyncio.sleep(_PROBE_EVERY_S)
    progress.close()


async def _is_ready(session: aiohttp.ClientSession, base: str) -> bool:
    try:
        async with session.get(f"{base}/ready") as answer:
            return answer.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


def _progress(what: str) -> Generator[None, None, None]:
    """A line that counts seconds on a terminal, two plain ones elsewhere."""
    is_terminal = sys.stderr.isatty()
    begun = time.monotonic()
    if not is_terminal:
        click.echo(f"{what} ...", err=True)
    try:
        for turn in range(sys.maxsize):
            if is_terminal:
                mark = "|/-\\"[turn % 4]
                click.echo(f"\r{mark} {what} {time.monotonic() - begun:4.1f} s", nl=False, err=True)
            yield
    finally:
        prefix = "\r" if is_terminal else ""
        click.echo(f"{prefix}  {what}: {time.monotonic() - begun:.1f} s", err=True)


async def _ask(session: aiohttp.ClientSession, base: str, *, is_shown: bool) -> str:
    """The answer, printed as it comes if it `is_shown`."""
    body = {"messages": [{"role": "user", "content": QUESTION}], "temperature": 0}
    text = ""
    if is_shown:
        click.echo(f"\n> {QUESTION}\n")
    try:
        async for piece in stream_chat(session, f"{base}/v1/chat/completions", body):
            text += piece.content
            if is_shown:
                click.echo(piece.content, nl=False)
                sys.stdout.flush()
    except (ServerSaidNo, aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise DemoFailed(f"no answer: {error or 'it took too long'}") from error
    if is_shown:
        click.echo("\n")
    if not text:
        raise DemoFailed("the answer was empty")
    return text


def _own_command() -> str:
    """How this program is called again from here."""
    on_path = shutil.which("paddler-py")
    return "paddler-py" if on_path else os.path.relpath(sys.argv[0])


def _show_where(*, inference: str, management: str) -> None:
    base = inference
    click.echo(f"API         {base}/v1   (any OpenAI client: base_url={base}/v1)")
    click.echo(f"Dashboard   {management}/")
    click.echo(f"Agents      {management}/agents")
    click.echo(f"Health      {management}/health")
    click.echo(f"Metrics     {base}/metrics")
    click.echo(f"Terminal    {_own_command()} chat --url {base}")
    click.echo(f"            {_own_command()} top --url {management}")
    click.echo(
        f"Try         curl -N {base}/v1/chat/completions -d "
        """'{"messages": [{"role": "user", "content": "Count from 1 to 20."}], "stream": true}'"""
    )


async def _until_ended(children: tuple[Child, ...]) -> None:
    """Wait for Ctrl-C or SIGTERM; raises `DemoFailed` where a child ends before."""
    asked = asyncio.Event()
    on_signals((signal.SIGINT, *_END_SIGNALS), asked.set)
    async with asyncio.TaskGroup() as tasks:
        waits = [tasks.create_task(_ended(child)) for child in children]
        waits.append(tasks.create_task(_happened(asked)))
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
    if not asked.is_set():
        for child in children:
            child.check()


async def _ended(child: Child) -> None:
    await child.process.wait()


async def _happened(event: asyncio.Event) -> None:
    await event.wait()
