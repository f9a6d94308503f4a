"""The real balancer inside the test's own process and loop, on ports that the system chooses."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from msgspec import Struct

from balancer.app import App, build
from balancer.config_file.configuration import Configuration
from balancer.settings import Address, PortName, Settings

PATIENCE_S = 20.0
ANY_PORT = Address("127.0.0.1", 0)


class Answer(Struct, frozen=True, kw_only=True):
    """An answer that was read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The decoded body."""
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        """The body's `error` member."""
        return self.json()["error"]


class RunningBalancer:
    """The app with a client for its two ports."""

    def __init__(self, app: App, session: aiohttp.ClientSession) -> None:
        self.app = app
        self.session = session
        self.inference_port = app.address_of("inference").port
        self.management_port = app.address_of("management").port

    @property
    def url(self) -> str:
        """Where clients go."""
        return f"{self._scheme('inference')}://127.0.0.1:{self.inference_port}"

    @property
    def management_url(self) -> str:
        """Where operators go."""
        return f"{self._scheme('management')}://127.0.0.1:{self.management_port}"

    def _scheme(self, port: PortName) -> str:
        is_encrypted = port in self.app.wiring.settings.encrypted_ports
        return "https" if is_encrypted else "http"

    async def chat(self, question: str = "hi", **fields: Any) -> Answer:
        """A chat request, read to its end."""
        body = {"messages": [{"role": "user", "content": question}], **fields}
        return await self.post("/v1/chat/completions", body)

    async def post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> Answer:
        """A POST to the inference port, read to its end. Bytes go as they are."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.session.post(self.url + path, data=data, headers=headers) as answer:
            body = await answer.read()
            return Answer(status=answer.status, headers=answer.headers, body=body)

    async def get_json(self, url: str) -> Any:
        """The decoded body of a GET."""
        async with self.session.get(url) as answer:
            return await answer.json()

    async def open_chat(self, **fields: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A chat request on a socket of its own, sent and not read."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.inference_port)
        writer.write(chat_bytes(**fields))
        await writer.drain()
        return reader, writer

    def metric(self, series: str) -> float:
        """A series' value, summed over its label sets."""
        lines = self.app.wiring.metrics.text().decode().splitlines()
        return sum(
            float(line.rpartition(" ")[2])
            for line in lines
            if line.partition(" ")[0].partition("{")[0] == series
        )

    @property
    def slots_used(self) -> int:
        """Slots claimed on all agents."""
        return sum(agent.slots_used for agent in self.app.wiring.roster.agents())

    @property
    def is_at_rest(self) -> bool:
        """Nothing waits, runs or holds a slot."""
        dispatcher = self.app.wiring.dispatcher
        return not (dispatcher.in_flight or dispatcher.waiting or self.slots_used)


@asynccontextmanager
async def running_balancer(
    prepare: Callable[[App], None] | None = None,
    *,
    configuration: Configuration | None = None,
    trust: ssl.SSLContext | bool = True,
    **settings: Any,
) -> AsyncIterator[RunningBalancer]:
    """A balancer that listens; `prepare` sees the app with its sockets bound, before it serves.
    With a configuration it has its settings from there alone. `trust`: whose certificates its
    client takes."""
    ports = {"inference": ANY_PORT, "management": ANY_PORT}
    quick = Settings(**{**ports, **QUICK, **settings})
    app = build(configuration or quick)
    app.bind()
    if prepare is not None:
        prepare(app)
    ready = asyncio.Event()
    connector = aiohttp.TCPConnector(ssl=trust)
    async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(app.run(lambda _: ready.set()))
        await ready.wait()
        try:
            yield RunningBalancer(app, session)
        finally:
            app.stop()
            app.stop()
            await serving


QUICK: dict[str, Any] = {"heartbeat_interval_s": 0.5, "queue_timeout_s": 20.0}


async def eventually(condition: Callable[[], Any], what: str) -> None:
    """Wait until the condition is true; `AssertionError` naming `what` when patience ends."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"still waiting after {PATIENCE_S:.0f} s for: {what}"
        await asyncio.sleep(0.005)


def chat_bytes(path: str = "/v1/chat/completions", **fields: Any) -> bytes:
    """A chat request on the wire."""
    body = {"messages": [{"role": "user", "content": "hi"}], **fields}
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data


def small_buffers(app: App) -> None:
    """Have the kernel hold little for clients, so that the balancer notices who does not read."""
    app.socket_of("inference").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
