"""`paddler-py top`: what a balancer does, in a terminal, as one frame of text, or as JSON."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import click
import msgspec
from rich.console import Console
from rich.text import Text

from balancer.terminal.api_key import headers_with, key_file_option, key_of
from balancer.terminal.top.actions import Action, perform
from balancer.terminal.top.feed import CANNOT, Feed, has_remedy, reason_of
from balancer.terminal.top.frame import Canvas, clean, draw
from balancer.terminal.top.picture import Picture
from balancer.terminal.top.screen import Screen
from balancer.terminal.top.view import View
from balancer.terminal.trust import ca_file_option, trust_of

_SHORTEST_FRAME_S = 0.05
_CLOCK_EVERY_S = 1.0
_DUMB_EVERY_S = 5.0
_DUMB_WIDTH = 80


class Server(NamedTuple):
    """Whom to watch, whose certificates it may show, and the key that it is asked with."""

    base: str
    trust: ssl.SSLContext
    key: str = ""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--url",
    default="http://127.0.0.1:8081",
    show_default=True,
    help="The balancer's management port.",
)
@key_file_option
@ca_file_option
@click.option("--once", is_flag=True, help="Print one frame as plain text and end.")
@click.option("--json", "as_json", is_flag=True, help="Print one snapshot as JSON and end.")
def top(*, url: str, key_file: Path | None, ca_file: str | None, once: bool, as_json: bool) -> None:
    """Watch agents, models and requests as they are, and drain, undrain or cancel them.

    `?` shows the keys. Without a terminal it prints one frame, as with --once; where the terminal
    can do nothing (TERM=dumb) a frame every 5 s. NO_COLOR is heeded. The key of an admin is taken
    from --key-file, else from PADDLER_API_KEY.
    """
    if once and as_json:
        raise click.UsageError("--once and --json are two ways to print: choose one")
    key = key_of(key_file, os.environ.get("PADDLER_API_KEY"))
    server = Server(base_url(url), trust_of(ca_file), key)
    if as_json:
        _finish(_print_json(server))
    elif once or not (sys.stdin.isatty() and sys.stdout.isatty()):
        _finish(_print_frame(server))
    elif Console().is_dumb_terminal:
        _finish(_print_frames(server))
    else:
        _finish(_watch(server))


def base_url(url: str) -> str:
    """The address of a balancer, given with or without its scheme, a path or a slash at its end."""
    return (url if "://" in url else f"http://{url}").rstrip("/")


def _finish(program: Any) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(program)


async def _print_json(server: Server) -> None:
    picture = await _known(server)
    snapshot = {
        "at": round(time.time() + picture.ahead_s, 3),
        "url": server.base,
        "source": picture.state.link,
        "balancer": picture.control.get("balancer"),
        "figures": picture.figures,
        **{name: _plain_rows(picture, name) for name in ("agents", "models", "requests")},
    }
    click.echo(msgspec.json.format(msgspec.json.encode(snapshot), indent=2))


def _plain_rows(picture: Picture, table: str) -> list[Any]:
    found = picture.control.get(table)
    return list(found.values()) if isinstance(found, dict) else []


async def _print_frame(server: Server) -> None:
    picture = await _known(server)
    canvas = Canvas(_width(), None, is_ascii=_is_ascii())
    for table in ("agents", "requests"):
        view = View(table)
        lines = draw(picture, view, canvas, url=server.base, now_s=time.time())
        _echo(lines if table == "agents" else lines[_HEAD_LINES:])


_HEAD_LINES = 6


async def _known(server: Server) -> Picture:
    """What there is now. Raises `ClickException` where nothing can be learnt."""
    picture = Picture()
    why = ""
    async with _session(server) as session:
        try:
            await Feed(session, server.base, picture).snapshot()
        except* CANNOT as errors:
            why = clean(reason_of(errors))
            if not has_remedy(errors):
                why += "; give the balancer's management port with --url"
    if why:
        raise click.ClickException(f"{server.base}: {why}")
    return picture


async def _print_frames(server: Server) -> None:
    """For a terminal that only prints: a frame, a pause, and again until Ctrl-C."""
    picture, view, known = Picture(), View(), asyncio.Event()
    async with _following(server, picture, known.set):
        await known.wait()
        while True:
            canvas = Canvas(_width(), None, is_ascii=_is_ascii())
            _echo([*draw(picture, view, canvas, url=server.base, now_s=time.time()), Text("")])
            await asyncio.sleep(_DUMB_EVERY_S)


async def _watch(server: Server) -> None:
    """Until the operator leaves."""
    picture, view, changed = Picture(), View(), asyncio.Event()
    screen = Screen(Console(highlight=False))
    actions: asyncio.Queue[Action] = asyncio.Queue(maxsize=8)

    def press(key: str) -> None:
        action = view.press(key, picture)
        if action is not None:
            with contextlib.suppress(asyncio.QueueFull):
                actions.put_nowait(action)
                view.said = f"{action.deed} {action.target} ..."
        changed.set()

    def leave() -> None:
        view.leave()
        changed.set()

    async with _following(server, picture, changed.set) as session, asyncio.TaskGroup() as tasks:
        working = tasks.create_task(_work(session, server.base, actions, view, changed))
        with screen.opened(on_key=press, on_resize=changed.set, on_leave=leave):
            await _show_all(picture, view, screen, changed, server.base)
        working.cancel()


async def _show_all(
    picture: Picture, view: View, screen: Screen, changed: asyncio.Event, base: str
) -> None:
    """A frame when something changed, and one a second for the ages."""
    while not view.is_over:
        changed.clear()
        size = os.get_terminal_size()
        canvas = Canvas(size.columns, size.lines, is_ascii=_is_ascii())
        screen.show(draw(picture, view, canvas, url=base, now_s=time.time()))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOCK_EVERY_S):
                await changed.wait()
        await asyncio.sleep(_SHORTEST_FRAME_S)


async def _work(
    session: aiohttp.ClientSession,
    base: str,
    actions: asyncio.Queue[Action],
    view: View,
    changed: asyncio.Event,
) -> None:
    while True:
        view.said = await perform(session, base, await actions.get())
        changed.set()


@asynccontextmanager
async def _following(
    server: Server, picture: Picture, on_change: Callable[[], None]
) -> AsyncIterator[aiohttp.ClientSession]:
    async with _session(server) as session, asyncio.TaskGroup() as tasks:
        following = tasks.create_task(
            Feed(session, server.base, picture, on_change=on_change).run()
        )
        try:
            yield session
        finally:
            following.cancel()


def _session(server: Server) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=server.trust),
        headers={"User-Agent": "paddler-py-top", **headers_with(server.key)},
    )


def _width() -> int:
    """Of the terminal; 80 where there is none, or COLUMNS."""
    try:
        return int(os.environ.get("COLUMNS") or os.get_terminal_size(sys.stdout.fileno()).columns)
    except (OSError, ValueError):
        return _DUMB_WIDTH


def _is_ascii() -> bool:
    return not (sys.stdout.encoding or "ascii").lower().replace("-", "").startswith("utf")


def _echo(lines: list[Text]) -> None:
    for line in lines:
        click.echo(line.plain.rstrip())
