"""WS /ws/control, /ws/metrics and /ws/logs: from the handshake to the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import cast

from aiohttp import WSCloseCode, WSMsgType
from aiohttp.web import StreamResponse, WebSocketResponse

from balancer.errors import ClientDropped, InvalidRequest, QueueFull
from balancer.http.answers import SECURITY_HEADERS
from balancer.http.connection import ClientConnection
from balancer.http.exchange import Exchange, Wiring
from balancer.http.faults import refuse_value
from balancer.http.frames import is_handshake
from balancer.http.management.live.calling import MAX_MESSAGE_BYTES, Caller
from balancer.http.management.live.hub import Room
from balancer.http.management.live.logs import LogFilter
from balancer.http.management.live.reader import SILENCE_S, Reader
from balancer.observability.log_ring import RANKS

_CLOSE_PATIENCE_S = 2.0


async def control_socket(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """Agents, models and requests as they change."""
    room = wiring.live.control
    return await _serve(exchange, wiring, room, room.join)


async def metrics_socket(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """The figures, each second."""
    room = wiring.live.metrics
    return await _serve(exchange, wiring, room, room.join)


async def logs_socket(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """The log as it is written. Raises `InvalidRequest` for a level that there is not."""
    query, room = exchange.request.query, wiring.live.logs
    level = query.get("level", "debug").lower()
    if level not in RANKS:
        raise refuse_value("level", level, ", ".join(RANKS))
    wanted = LogFilter(
        level=level,
        component=query.get("component", ""),
        request_id=query.get("request_id", ""),
    )
    return await _serve(exchange, wiring, room, partial(room.join, wanted=wanted))


async def _serve(
    exchange: Exchange, wiring: Wiring, room: Room, join: Callable[[Reader], None]
) -> StreamResponse:
    """Until either side ends it. Raises `BalancerError` before it begins."""
    socket = WebSocketResponse(
        compress=False,
        heartbeat=SILENCE_S,
        max_msg_size=MAX_MESSAGE_BYTES,
        timeout=_CLOSE_PATIENCE_S,
    )
    if not is_handshake(socket, exchange.request):
        raise InvalidRequest(f"{exchange.route_path} is a WebSocket; connect to it with one")
    room.check_space()
    socket.headers.update({**SECURITY_HEADERS, **exchange.headers()})
    try:
        await socket.prepare(exchange.request)
    except ConnectionError as error:
        raise ClientDropped("the reader left before its socket was open") from error
    exchange.status = 101
    reader = Reader(cast(ClientConnection, exchange.request.protocol))
    end = partial(reader.close, code=WSCloseCode.POLICY_VIOLATION)
    try:
        with wiring.gate.lasting_for(exchange, end):
            join(reader)
            async with asyncio.TaskGroup() as tasks:
                refresh = partial(room.refresh, reader)
                caller = Caller(exchange, wiring, reader, tasks=tasks, refresh=refresh)
                await _read(socket, reader, caller)
                caller.end()
    except QueueFull as error:  # others were quicker
        reader.close(error.message)
    finally:
        room.leave(reader)
        reader.closed()
    return socket


async def _read(socket: WebSocketResponse, reader: Reader, caller: Caller) -> None:
    """Take what the reader says until its socket ends; nothing more from one that does not read
    what it was answered."""
    while True:
        message = await socket.receive()
        if message.type is WSMsgType.TEXT:
            caller.take(message.data.encode("utf-8", "surrogatepass"))
        elif message.type is WSMsgType.BINARY:
            caller.take(message.data)
        else:
            return
        await reader.can_be_written()
