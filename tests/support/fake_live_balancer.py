"""A balancer as `paddler-py top` sees it: live sockets by hand, or only lists to ask for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import WSMsgType, web

AGENT = {
    "id": "gpu-1",
    "state": "ready",
    "model": {"name": "demo"},
    "slots_total": 4,
    "slots_used": 1,
    "issues": [],
    "kv_cells_used": 10,
    "kv_cells_total": 100,
}
REQUEST = {
    "id": "req_1",
    "choice": 0,
    "model": "demo",
    "state": "running",
    "agent": "gpu-1",
    "attempts": 1,
    "completion_tokens": 7,
}
CONTROL = {
    "agents": {"gpu-1": {**AGENT, "last_heard": 1000}},
    "models": {"demo": {"id": "demo", "agents": ["gpu-1"], "slots_total": 4, "slots_used": 1}},
    "requests": {"req_1#0": {**REQUEST, "arrived": 1000}},
    "balancer": {"status": "healthy", "version": "0.1.0", "started": 1000, "draining": False},
}
METRICS = {
    "now": {"requests": {"per_second": 2.5}, "providers": {"gpu-1": {"tokens_per_second": 81.0}}},
    "series": {"interval_s": 1, "end": 1000, "paths": {"tokens.per_second": [1, None, 3]}},
}
HEALTH = {
    "status": "degraded",
    "performance": {"requests_per_second": 0.5, "avg_response_time_ms": 12.5},
    "providers": {"total": 1, "healthy": 1},
    "system": {"cpu_percent": 10.0},
}


class FakeLiveBalancer:
    """Keeps the sockets that are open, and what readers said."""

    def __init__(self, *, has_sockets: bool = True) -> None:
        self.url = ""
        self.has_sockets = has_sockets
        self.sockets: dict[str, web.WebSocketResponse] = {}
        self.said: list[Any] = []
        self._heard = asyncio.Event()
        self.connections = 0
        self._seqs = {"control": 0, "metrics": 0}
        self.data: dict[str, Any] = {"control": CONTROL, "metrics": METRICS}

    async def tell(self, kind: str, *, skip: int = 0, **fields: Any) -> None:
        """A change; `skip` leaves numbers out, as if messages had been lost."""
        self._seqs[kind] += 1 + skip
        message = {"type": "delta", "seq": self._seqs[kind], "set": {}, "gone": [], **fields}
        await self.sockets[kind].send_json(message)

    async def send_snapshot(self, kind: str) -> None:
        """Everything as it is now."""
        self._seqs[kind] += 1
        message = {"type": "snapshot", "seq": self._seqs[kind], "data": self.data[kind]}
        await self.sockets[kind].send_json(message)

    async def until_said(self, message: Any) -> None:
        """Wait until a reader has said so."""
        async with asyncio.timeout(30):
            while message not in self.said:
                self._heard.clear()
                await self._heard.wait()

    async def hang_up(self) -> None:
        """Close every socket."""
        for socket in tuple(self.sockets.values()):
            await socket.close()

    async def serve_socket(self, request: web.Request) -> web.StreamResponse:
        """One live socket to its end."""
        if not self.has_sockets:
            raise web.HTTPNotFound
        kind = request.match_info["kind"]
        socket = self.sockets[kind] = web.WebSocketResponse()
        await socket.prepare(request)
        self.connections += 1
        await self.send_snapshot(kind)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                self.said.append(message.json())
                self._heard.set()
                if message.json().get("type") == "snapshot":
                    await self.send_snapshot(kind)
        return socket

    async def serve_list(self, request: web.Request) -> web.StreamResponse:
        """What an older balancer has to ask for."""
        rows = {
            "/agents": {"data": [{**AGENT, "last_heard_s_ago": 1.5, "connected_for_s": 9.0}]},
            "/requests": {"data": [{**REQUEST, "age_ms": 2000.0}]},
            "/health": HEALTH,
        }
        return web.json_response(rows[request.path])


@asynccontextmanager
async def fake_live_balancer(*, has_sockets: bool = True) -> AsyncIterator[FakeLiveBalancer]:
    """Listens on a port of the system's choice."""
    fake = FakeLiveBalancer(has_sockets=has_sockets)
    app = web.Application()
    app.router.add_get("/ws/{kind}", fake.serve_socket)
    for path in ("/agents", "/requests", "/health"):
        app.router.add_get(path, fake.serve_list)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield fake
    finally:
        async with asyncio.timeout(5):
            await fake.hang_up()
            await runner.cleanup()
