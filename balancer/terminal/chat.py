"""`paddler-py chat`: talk to any OpenAI-compatible server from a terminal, or through a pipe."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import ssl
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import click
import msgspec

from balancer.terminal.api_key import headers_with, key_file_option, key_of
from balancer.terminal.completion import served_models
from balancer.terminal.events import Piece, ServerSaidNo, joined, stream_chat
from balancer.terminal.trust import ca_file_option, trouble_of, trust_of
from protocol.visible import harmless

_CONNECT_TIMEOUT_S = 10.0
_SILENCE_TIMEOUT_S = 300.0
_NO_KEY = ": --key-file FILE, or OPENAI_API_KEY"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="The server.")
@click.option(
    "--model",
    default=None,
    shell_complete=served_models,
    help="The model; needed where several are served.",
)
@key_file_option
@ca_file_option
@click.option("--system", default=None, metavar="TEXT", help="Instructions for the model.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print the answer to a piped question as JSON."
)
def chat(
    *,
    url: str,
    model: str | None,
    key_file: Path | None,
    ca_file: str | None,
    system: str | None,
    as_json: bool,
) -> None:
    """Chat in the terminal; Ctrl-C stops an answer, Ctrl-D leaves.

    With something piped in, that is the question: its answer is printed and the program ends;
    --json makes that one object with `content`, `reasoning` and `is_cut` (by a limit).
    An API key is taken from --key-file, else from OPENAI_API_KEY.
    """
    key = key_of(key_file, os.environ.get("OPENAI_API_KEY"))
    talk = Talk(url=url, model=model, system=system, trust=trust_of(ca_file), key=key)
    if sys.stdin.isatty():
        if as_json:
            raise click.UsageError("--json is for a question that comes through a pipe")
        _converse(talk)
        return
    question = sys.stdin.buffer.read().decode("utf-8", "replace").strip()
    if not question:
        raise click.ClickException("nothing came through the pipe; send a question")
    pieces: list[Piece] = []
    is_complete = asyncio.run(_ask(talk, question, pieces.append if as_json else _show))
    if not as_json:
        click.echo()
    elif is_complete:
        click.echo(json.dumps(msgspec.to_builtins(joined(pieces)), ensure_ascii=False))
    if not is_complete:
        sys.exit(1)


class Talk:
    """A conversation: where it is held and what was said."""

    def __init__(
        self,
        *,
        url: str,
        model: str | None,
        system: str | None,
        trust: ssl.SSLContext,
        key: str = "",
    ) -> None:
        self.url = chat_url(url)
        self.trust = trust
        self.key = key
        self._model = model
        self.messages: list[dict[str, str]] = []
        if system:
            self.messages.append({"role": "system", "content": system})

    def body(self, question: str) -> dict[str, Any]:
        """The request for the next answer."""
        messages = [*self.messages, {"role": "user", "content": question}]
        return {"messages": messages, **({"model": self._model} if self._model else {})}

    def remember(self, question: str, answer: str) -> None:
        """Keep a turn for the next question."""
        self.messages.append({"role": "user", "content": question})
        self.messages.append({"role": "assistant", "content": answer})

    def forget_oldest(self) -> bool:
        """Drop the first question and answer, never the system text; False: there is none."""
        first = 1 if self.messages and self.messages[0]["role"] == "system" else 0
        has_any = len(self.messages) > first
        del self.messages[first : first + 2]
        return has_any


def chat_url(url: str) -> str:
    """The chat route of a server given as its address, its base URL or the route itself."""
    base = url if "://" in url else f"http://{url}"
    base = base.rstrip("/")
    if base.endswith("/chat/completions"):
        return base
    has_path = "/" in base.partition("://")[2]
    return f"{base}/chat/completions" if has_path else f"{base}/v1/chat/completions"


def _converse(talk: Talk) -> None:
    with contextlib.suppress(ImportError):
        __import__("readline")  # line editing and history, where Python has it
    click.echo(f"Talking to {talk.url} (Ctrl-C stops an answer, Ctrl-D leaves)", err=True)
    while True:
        try:
            question = input("> ").strip()
        except EOFError:
            click.echo(err=True)
            return
        except KeyboardInterrupt:
            click.echo("  (Ctrl-D leaves)", err=True)
            continue
        if question:
            asyncio.run(_ask(talk, question, _show))
            click.echo()


async def _ask(talk: Talk, question: str, show: Callable[[Piece], None]) -> bool:
    """Show one answer as it comes; whether it came to its end."""
    said: list[str] = []
    is_complete = False
    with _interrupt_cancels():
        try:
            async with _session(talk) as session:
                await _answer(session, talk, question, said, show)
            is_complete = True
        except ServerSaidNo as error:
            remedy = _NO_KEY if error.code == "missing_credentials" else ""
            click.echo(f"\n[{error}{remedy}]", err=True)
        except (aiohttp.ClientError, TimeoutError) as error:
            why = trouble_of(error) or error or "no answer in time"
            click.echo(f"\n[cannot talk to {talk.url}: {why}]", err=True)
        except asyncio.CancelledError:
            click.echo("\n[stopped]", err=True)
        except ValueError as error:
            click.echo(f"\n[the server does not speak this protocol: {error}]", err=True)
    if any(said):
        talk.remember(question, "".join(said))
    return is_complete


async def _answer(
    session: aiohttp.ClientSession,
    talk: Talk,
    question: str,
    said: list[str],
    show: Callable[[Piece], None],
) -> None:
    """Show the answer; a conversation too long for the model loses its oldest turns first."""
    while True:
        try:
            async for piece in stream_chat(session, talk.url, talk.body(question)):
                show(piece)
                said.append(piece.content)
        except ServerSaidNo as error:
            if error.code != "context_length_exceeded" or not talk.forget_oldest():
                raise
            click.echo("[the conversation is too long: its oldest turn is left out]", err=True)
        else:
            return


def _show(piece: Piece) -> None:
    if piece.reasoning:
        click.secho(harmless(piece.reasoning), nl=False, dim=True, err=True)
    if piece.content:
        # a pipe or a file has the answer as it is; a terminal would do what it says
        text = harmless(piece.content) if sys.stdout.isatty() else piece.content
        click.echo(text, nl=False)
        sys.stdout.flush()
    if piece.is_cut:
        click.echo("\n[cut off: the answer reached its limit]", err=True)


@contextlib.contextmanager
def _interrupt_cancels() -> Iterator[None]:
    """Ctrl-C ends the answer instead of the program."""
    task = asyncio.current_task()
    if task is None:
        raise AssertionError("a coroutine runs in a task")
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, task.cancel)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        while task.uncancel():
            pass


def _session(talk: Talk) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=talk.trust),
        headers=headers_with(talk.key),
        timeout=aiohttp.ClientTimeout(
            total=None, sock_connect=_CONNECT_TIMEOUT_S, sock_read=_SILENCE_TIMEOUT_S
        ),
    )
