"""The terminal client against the real balancer, and the balancer's own command line."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from pathlib import Path

import click
import pytest

from balancer.terminal.chat import chat, chat_url
from balancer.terminal.completion import served_models
from balancer.terminal.demo import on_signals
from protocol.refusals import RefusalCode
from tests.support.fake_agent import FakeAgent, Script
from tests.support.own_command import run_command as _run
from tests.support.running_balancer import running_balancer

PROJECT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60


async def test_a_piped_question_is_answered_on_standard_output() -> None:
    async with running_balancer() as balancer, FakeAgent(balancer.management_port) as agent:
        code, out, err = await _run(
            "chat", "--url", balancer.url, "--system", "be kind", stdin="hello?\n"
        )
        assert (code, out, err) == (0, "Hello, world\n", "")
        messages = agent.started[0].messages
        assert messages is not None
        assert [message.content for message in messages] == ["be kind", "hello?"]


async def test_a_script_gets_the_answer_as_one_object() -> None:
    async with running_balancer() as balancer, FakeAgent(balancer.management_port):
        code, out, err = await _run("chat", "--url", balancer.url, "--json", stdin="hello?")
    assert (code, err) == (0, "")
    assert json.loads(out) == {"content": "Hello, world", "reasoning": "", "is_cut": False}


async def test_models_that_are_served_are_completed() -> None:
    def complete(url: str, typed: str) -> list[str]:
        context = click.Context(chat)
        context.params["url"] = url
        return served_models(context, chat.params[1], typed)

    async with running_balancer() as balancer, FakeAgent(balancer.management_port):
        for url in (balancer.url, f"{balancer.url}/v1"):
            assert await asyncio.to_thread(complete, url, "de") == ["demo"]
        assert await asyncio.to_thread(complete, balancer.url, "other") == []


def test_no_file_is_read_to_complete_a_model(tmp_path: Path) -> None:
    (tmp_path / "v1").mkdir()
    (tmp_path / "v1" / "models").write_text('{"data":[{"id":"demo"}]}')
    context = click.Context(chat)
    context.params["url"] = tmp_path.as_uri()
    assert served_models(context, chat.params[1], "") == []


async def test_a_piped_question_that_is_not_utf_8_is_asked_all_the_same() -> None:
    async with running_balancer() as balancer, FakeAgent(balancer.management_port) as agent:
        code, out, _ = await _run("chat", "--url", balancer.url, stdin=b"caf\xe9?")
        assert (code, out) == (0, "Hello, world\n")
        messages = agent.started[0].messages
        assert messages is not None
        assert messages[0].content == "caf\N{REPLACEMENT CHARACTER}?"


@pytest.mark.parametrize(
    ("events", "exit_code", "says"),
    [
        (b'data: {"error":null,"choices":[{"delta":{"content":"hi"}}]}\n\ndata: [DONE]\n\n', 0, ""),
        (b"data: []\n\ndata: [DONE]\n\n", 1, "does not speak this protocol"),
        (b"data: nonsense\n\n", 1, "does not speak this protocol"),
        (b'data: {"choices":[{"delta":{"content":"hi"}}]}\n\n', 1, "broke off"),
    ],
)
async def test_another_server_s_odd_stream_is_read_or_said_so_in_one_line(
    events: bytes, exit_code: int, says: str
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}]")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(events), events))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        code, _, err = await _run("chat", "--url", f"127.0.0.1:{port}", stdin="hello?")
    assert code == exit_code
    assert says in err
    assert "Traceback" not in err


async def test_a_server_s_refusal_is_one_line_and_an_exit_code() -> None:
    script = Script(refuse_with=RefusalCode.CONTEXT_TOO_LONG)
    async with (
        running_balancer() as balancer,
        FakeAgent(balancer.management_port, script=script),
    ):
        code, _, err = await _run("chat", "--url", balancer.url, stdin="hello?")
        assert code == 1
        assert "by the script" in err
        assert "Traceback" not in err


async def test_a_server_that_is_not_there_is_said_so() -> None:
    code, _, err = await _run("chat", "--url", "http://127.0.0.1:9", stdin="hello?")
    assert code == 1
    assert "cannot talk to http://127.0.0.1:9/v1/chat/completions" in err


@pytest.mark.parametrize(
    ("url", "route"),
    [
        ("http://h:8080", "http://h:8080/v1/chat/completions"),
        ("h:8080/", "http://h:8080/v1/chat/completions"),
        ("https://h/v1", "https://h/v1/chat/completions"),
        ("https://h/api/openai/", "https://h/api/openai/chat/completions"),
        ("https://h/v1/chat/completions", "https://h/v1/chat/completions"),
    ],
)
def test_a_server_may_be_given_in_several_ways(url: str, route: str) -> None:
    assert chat_url(url) == route


async def test_a_taken_port_ends_the_balancer_with_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, _, err = await _run("balancer", "--inference", address, "--management", "127.0.0.1:0")
    assert code == 1
    assert err.count("\n") == 1
    assert address in err
    assert "--inference" in err


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--inference", "0.0.0.0:0"), "--insecure"),
        (("--queue-timeout", "soon"), "--queue-timeout"),
        (("--inference", "nonsense"), "HOST:PORT"),
    ],
)
async def test_a_wrong_setting_ends_the_balancer_with_one_line(
    flags: tuple[str, ...], says: str
) -> None:
    code, _, err = await _run("balancer", *flags)
    assert code == 2
    assert err.count("\n") == 1
    assert says in err


async def test_a_terminated_balancer_ends_well() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "paddler_py", "balancer"),
        *("--inference", "127.0.0.1:0", "--management", "127.0.0.1:0"),
        cwd=PROJECT,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    async with asyncio.timeout(PATIENCE_S):
        while b"balancer listens" not in await process.stderr.readline():
            assert process.returncode is None
        process.send_signal(signal.SIGTERM)
        rest = await process.stderr.read()
        assert await process.wait() == 0
    assert b"balancer stopped" in rest


async def test_the_demo_ends_tidily_when_its_terminal_closes_but_not_under_nohup() -> None:
    loop = asyncio.get_running_loop()
    closed = asyncio.Event()
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        on_signals((signal.SIGHUP,), closed.set)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        on_signals((signal.SIGHUP,), closed.set)
        os.kill(os.getpid(), signal.SIGHUP)
        async with asyncio.timeout(PATIENCE_S):
            await closed.wait()
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
        signal.signal(signal.SIGHUP, before)
