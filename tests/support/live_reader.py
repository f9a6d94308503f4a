"""Reads a live socket as a page does: keeps the state, takes changes, answers nothing by itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

from aiohttp import ClientWebSocketResponse, WSMsgType

from tests.support.running_balancer import PATIENCE_S, RunningBalancer


class LiveReader:
    """What one reader knows."""

    def __init__(self, socket: ClientWebSocketResponse) -> None:
        self.socket = socket
        self.data: dict[str, Any] = {}
        self.seq = 0
        self._ids = count(1)

    async def message(self) -> dict[str, Any]:
        """The next message, taken."""
        frame = await self.socket.receive(timeout=PATIENCE_S)
        assert frame.type is WSMsgType.TEXT, frame
        found: dict[str, Any] = json.loads(frame.data)
        match found.get("type"):
            case "snapshot":
                self.data, self.seq = found["data"], found["seq"]
            case "delta":
                assert found["seq"] == self.seq + 1, "a change was missed"
                self.seq = found["seq"]
                self._apply(found)
        return found

    async def until(self, condition: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """The first message after which the condition holds for what is known."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                message = await self.message()
                if condition(self.data):
                    return message

    async def until_message(self, **members: Any) -> dict[str, Any]:
        """The first message with these members."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                message = await self.message()
                if all(message.get(name) == value for name, value in members.items()):
                    return message

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """The answer to a call."""
        number = next(self._ids)
        await self.socket.send_json({"id": number, "method": method, "params": params})
        return await self.until_message(id=number)

    def _apply(self, change: dict[str, Any]) -> None:
        for path in change["gone"]:
            node, last = self._parent(path)
            del node[last]
        for path, value in change["set"].items():
            node, last = self._parent(path)
            node[last] = value

    def _parent(self, path: str) -> tuple[dict[str, Any], str]:
        *parents, last = (p.replace("~1", ".").replace("~0", "~") for p in path.split("."))
        node = self.data
        for name in parents:
            node = node.setdefault(name, {})
        return node, last


@asynccontextmanager
async def live_reader(balancer: RunningBalancer, path: str) -> AsyncIterator[LiveReader]:
    """An open socket whose snapshot has been taken."""
    url = f"ws://127.0.0.1:{balancer.management_port}{path}"
    async with balancer.session.ws_connect(url) as socket:
        reader = LiveReader(socket)
        first = await reader.message()
        assert first["type"] == "snapshot"
        yield reader
