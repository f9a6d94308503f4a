"""What people write to models, what these answer and what opens doors is written down nowhere: a
canary in all of it, and a look at everything that the balancer writes and shows."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import structlog
from msgspec import structs

from balancer.app import App
from balancer.http.calls import Call
from balancer.http.exchange import Wiring
from balancer.observability.logging import configure
from protocol.codec import encode_notification
from protocol.generation import ContentDelta, ReasoningDelta, ToolCallDelta
from protocol.jsonrpc import ErrorObject, RpcCode
from protocol.to_balancer import Failed
from tests.support.fake_agent import FakeAgent, Script
from tests.support.keys import ADMIN, SYSTEM, auth, bearer, credential, unlimited
from tests.support.live_reader import LiveReader
from tests.support.running_balancer import RunningBalancer, eventually, running_balancer

WORD = "qzcanaryqz"
KEY = f"pk_{WORD}"
SAYS = (
    f"content {WORD}",
    (
        ReasoningDelta(text=f"thinks {WORD}"),
        ContentDelta(text=WORD),
        ToolCallDelta(index=0, id=f"call_{WORD}", name=WORD, arguments=f'{{"a": "{WORD}"}}'),
    ),
)
TOOL = {"type": "function", "function": {"name": "look", "description": WORD}}
CALLS = [{"id": "c1", "type": "function", "function": {"name": WORD, "arguments": f'"{WORD}"'}}]
MESSAGES = [
    {"role": "system", "content": WORD},
    {"role": "user", "content": f"hi {WORD}"},
    {"role": "assistant", "content": WORD, "tool_calls": CALLS},
    {"role": "tool", "tool_call_id": "c1", "content": WORD},
]
CHAT: dict[str, Any] = {"messages": MESSAGES, "tools": [TOOL], "user": WORD, "stop": [WORD]}
IMAGE = {"type": "image_url", "image_url": {"url": f"https://u:{WORD}@host.invalid/{WORD}"}}
ASKED: list[tuple[str, Any]] = [
    ("/v1/chat/completions", CHAT),
    ("/v1/chat/completions", {**CHAT, "stream": True, "n": 2}),
    ("/v1/completions", {"prompt": WORD, "suffix": WORD, "stream": True}),
    ("/v1/completions", {"prompt": [WORD, WORD]}),
    ("/v1/responses", {"input": WORD, "instructions": WORD, "metadata": {WORD: WORD}}),
    ("/v1/messages", {"messages": MESSAGES[1:2], "system": WORD, "max_tokens": 5}),
    ("/api/chat", {"model": "demo", "messages": MESSAGES}),
    ("/api/generate", {"model": "demo", "prompt": WORD, "system": WORD}),
    ("/v1/embeddings", {"input": [WORD]}),
    ("/v1/rerank", {"query": WORD, "documents": [WORD]}),
    ("/tokenize", {"content": WORD}),
    ("/apply-template", {"messages": MESSAGES}),
    ("/v1/chat/completions", {**CHAT, "model": WORD}),
    ("/v1/chat/completions", {**CHAT, "temperature": WORD}),
    ("/v1/chat/completions", {**CHAT, WORD: WORD}),
    ("/v1/chat/completions", {"messages": [{"role": WORD, "content": WORD}]}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": [IMAGE]}]}),
    ("/v1/chat/completions", f'{{"messages": "{WORD}'.encode()),
    ("/v1/responses", {"input": WORD, "previous_response_id": WORD}),
    (f"/v1/chat/completions?api_key={WORD}&token={WORD}", CHAT),
    (f"/v1/streams/{WORD}", {}),
]
HEADERS = {
    "Cookie": f"paddler_session={WORD}",
    "Proxy-Authorization": f"Basic {WORD}",
    "User-Agent": WORD,
    "Referer": WORD,
    "X-Anything": WORD,
}


@pytest.fixture
def log_of_everything(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """At every level, as machines read it."""
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    root, before = logging.getLogger(), structlog.get_config()
    handlers, level = list(root.handlers), root.level
    configure("debug", "json")
    for library in ("websockets", "aiohttp.client"):  # the test's own side
        logging.getLogger(library).setLevel("WARNING")
    structlog.configure(**(structlog.get_config() | {"cache_logger_on_first_use": False}))
    yield log
    structlog.configure(**before)
    root.handlers[:] = handlers
    root.setLevel(level)
    for library in ("websockets", "aiohttp.client"):
        logging.getLogger(library).setLevel(logging.NOTSET)


async def ask_everything(balancer: RunningBalancer, key: str) -> None:
    for path, body in ASKED:
        answered = await balancer.post(path, body, {**HEADERS, **bearer(key)})
        assert answered.status < 500 or path.startswith("/inference"), (path, answered.body)


async def shown(balancer: RunningBalancer) -> list[str]:
    """Everything that operators can look at."""
    base, session = balancer.management_url, balancer.session
    async with session.get(f"{base}/requests/finished", headers=bearer(ADMIN)) as answer:
        finished = await answer.json()
    told = [json.dumps(finished)]
    paths = ["/requests", "/agents", "/models", "/config", "/config/status", "/metrics", "/health"]
    for row in finished["data"]:
        paths += [f"/requests/{row['id']}/route", f"/requests/{row['id']}/timeline"]
    for path in paths:
        async with session.get(base + path, headers=bearer(ADMIN)) as answer:
            assert answer.status == 200, path
            told.append(await answer.text())
    for path in ("/ws/control", "/ws/metrics", "/ws/logs"):
        async with session.ws_connect(base + path, headers=bearer(ADMIN)) as socket:
            told.append(json.dumps(await LiveReader(socket).message()))
    return told


def crashing(app: App) -> None:
    """A handler with a fault that quotes what it was given."""

    async def health(call: Call, _wiring: Wiring) -> Any:
        return float(str(call.params["paths"]))

    row = structs.replace(app.wiring.calls["metrics.series"], answer=health)
    app.wiring.calls["metrics.series"] = row  # type: ignore[index]  # for the test


async def fail_quoting(balancer: RunningBalancer, agent: FakeAgent) -> None:
    """An agent's fault, whose words repeat what it was given."""
    failing = asyncio.ensure_future(balancer.post("/v1/chat/completions", CHAT, bearer(KEY)))
    while not failing.done():  # it may be tried again
        if agent.calls:
            call = await agent.call()
            del agent.calls[call.id]
            error = ErrorObject(code=int(RpcCode.INTERNAL_ERROR), message=f"no float: '{WORD}'")
            await agent.send_raw(encode_notification(Failed(call=call.id, error=error)).decode())
        await asyncio.sleep(0.001)


async def crash(balancer: RunningBalancer) -> None:
    url = f"{balancer.management_url}/ws/control"
    async with balancer.session.ws_connect(url, headers=bearer(ADMIN)) as socket:
        answered = await LiveReader(socket).call("metrics.series", paths=WORD)
        assert answered["error"]["code"] == "internal_error"
        assert WORD not in json.dumps(answered)


@pytest.mark.parametrize("is_logged", [False, True])
async def test_nothing_of_what_is_said_is_written_down_unless_that_was_asked_for(
    tmp_path: Path,
    log_of_everything: io.StringIO,
    capsys: pytest.CaptureFixture[str],
    *,
    is_logged: bool,
) -> None:
    settings: dict[str, Any] = {
        "auth": auth(credential(KEY, id="team")),
        "limits": unlimited(),
        "audit_log": str(tmp_path / "audit.jsonl"),
        "record_routes": str(tmp_path / "routes.jsonl"),
        "log_content": is_logged,
    }
    async with AsyncExitStack() as stack:
        balancer = await stack.enter_async_context(running_balancer(crashing, **settings))
        port = balancer.management_port
        agent = FakeAgent(port, token=SYSTEM, script=Script(pieces=SAYS))
        await stack.enter_async_context(agent)
        await ask_everything(balancer, KEY)
        await ask_everything(balancer, f"{KEY}-wrong")
        await stack.enter_async_context(balancer.session.get(f"{balancer.url}/{WORD}/{WORD}"))
        agent.script = Script(is_held=True)
        await fail_quoting(balancer, agent)
        running = asyncio.ensure_future(balancer.post("/v1/chat/completions", CHAT, bearer(KEY)))
        call = await agent.call()
        await agent.tokens(call, f"halfway {WORD}")
        await crash(balancer)
        told = await shown(balancer)
        await agent.finish(call)
        await running
        await eventually(lambda: balancer.is_at_rest, "the end of it")
    written = [file_text(tmp_path / name) for name in ("audit.jsonl", "routes.jsonl")]
    assert all(written)
    out, log = capsys.readouterr().out, log_of_everything.getvalue()
    lines = [line for line in log.splitlines() if WORD in line]
    content = [line for line in lines if '"event": "content"' in line]
    assert [line for line in lines if line not in content] == []
    assert [text for text in [out, *told, *written] if WORD in text] == []
    assert bool(content) is is_logged
    assert ("prompts and answers are logged" in log) is is_logged
    assert log.count('"event": "request"') >= len(ASKED)
    assert "could not convert string to float" in log


def file_text(path: Path) -> str:
    return path.read_text()
