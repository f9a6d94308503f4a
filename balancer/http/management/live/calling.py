"""Calls over a live socket: `{id, method, params}`, answered as their routes are over HTTP."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Any

import msgspec
import structlog
from msgspec import Struct

from balancer.errors import BalancerError, InvalidRequest, LimitExceeded, RouteNotFound
from balancer.http.answers import error_object, known_error
from balancer.http.body import decode_json
from balancer.http.calls import Call, check_names
from balancer.http.exchange import Exchange, Wiring
from balancer.http.management.live.reader import Reader
from balancer.settings import KIB

log = structlog.get_logger(__name__)

MAX_MESSAGE_BYTES = 64 * KIB
MAX_CALLS = 32
"""Of one socket at a time."""


class Incoming(Struct, frozen=True, kw_only=True):
    """What a reader may say: a call has a method, anything else a type."""

    type: str = ""
    id: int | str | None = None
    method: str | None = None
    params: dict[str, Any] = {}


_DECODER = msgspec.json.Decoder(Incoming)
_EXPECTED = {"id": "a number or a string", "method": "a string", "params": "an object"}


class Caller:
    """What one reader says. `tasks` own the calls; `refresh` sends it a snapshot."""

    def __init__(
        self,
        exchange: Exchange,
        wiring: Wiring,
        reader: Reader,
        *,
        tasks: asyncio.TaskGroup,
        refresh: Callable[[], None],
    ) -> None:
        self._exchange = exchange
        self._wiring = wiring
        self._reader = reader
        self._tasks = tasks
        self._refresh = refresh
        self._running: set[asyncio.Task[None]] = set()

    def end(self) -> None:
        """Nobody reads the answers any more."""
        for call in self._running:
            call.cancel()

    def take(self, data: bytes) -> None:
        """One message."""
        try:
            depth = self._wiring.settings.max_json_depth
            message = decode_json(data, _DECODER, max_depth=depth, expected=_EXPECTED)
        except BalancerError as error:
            self._refuse(None, error, _new_id())
            return
        if message.method is not None:
            self._start(message)
        elif message.type == "ping":
            self._reader.send_value({"type": "pong"})
        elif message.type == "snapshot":
            self._refresh()
        elif message.type != "pong":
            words = "send a call, {id, method, params}, or a type: ping, pong or snapshot"
            self._refuse(message.id, InvalidRequest(words, param="type"), _new_id())

    def _start(self, message: Incoming) -> None:
        if len(self._running) >= MAX_CALLS:
            words = f"{MAX_CALLS} calls of this socket are not answered yet; wait for some"
            error = LimitExceeded(words, code="concurrency_limit_exceeded", retry_after_s=1)
            self._refuse(message.id, error, _new_id())
            return
        call = self._tasks.create_task(self._answer(message), name="call over a live socket")
        self._running.add(call)
        call.add_done_callback(self._running.discard)

    async def _answer(self, message: Incoming) -> None:
        request_id = _new_id()
        await self._reader.can_be_written()  # answers are made for who reads them
        try:
            result = await self._result(message, request_id)
            self._reader.send_value({"id": message.id, "result": result})
        except Exception as error:  # noqa: BLE001 (the call's outermost edge)
            shown = known_error(error, request_id=request_id, route=(message.method or "")[:200])
            self._refuse(message.id, shown, request_id)

    async def _result(self, message: Incoming, request_id: str) -> Any:
        method = message.method or ""
        route = self._wiring.calls.get(method)
        if route is None or route.answer is None:
            raise RouteNotFound(
                f"there is no method {method[:200]!r}; there are "
                + ", ".join(sorted(self._wiring.calls)),
                param="method",
            )
        self._wiring.gate.check_role(self._exchange.principal, route)
        check_names(message.params, route.params, method)
        if route.method != "GET":
            log.info("called over a socket", method=method, request_id=request_id)
        call = Call.from_client(self._exchange, message.params, call_id=request_id)
        return await route.answer(call, self._wiring)

    def _refuse(self, call_id: int | str | None, error: BalancerError, request_id: str) -> None:
        self._reader.send_value({"id": call_id, "error": error_object(error, request_id)})


def _new_id() -> str:
    return "req_" + secrets.token_hex(16)
