"""POST /v1/messages."""

from __future__ import annotations

import secrets

import msgspec
from aiohttp.web import StreamResponse

from balancer.http.answering import answer
from balancer.http.anthropic.answer import GatheredMessage, MessageEvents, whole_message
from balancer.http.anthropic.errors import EVENTS
from balancer.http.anthropic.images import remote_images
from balancer.http.anthropic.output_form import grammar_param
from balancer.http.anthropic.schema import EXPECTED, MessagesRequest
from balancer.http.anthropic.translate import messages_request
from balancer.http.body import decode_json, read_body
from balancer.http.exchange import Exchange, Wiring
from balancer.http.remote_images import fetch_images
from balancer.http.shape import Generation

_DECODER = msgspec.json.Decoder(MessagesRequest)


async def messages(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """Read, translate, generate, answer. Raises `BalancerError`."""
    return await answer(exchange, wiring, await _asked(exchange, wiring))


async def _asked(exchange: Exchange, wiring: Wiring) -> Generation:
    """What the body asks for; nothing else of it is held while the request waits."""
    settings = wiring.settings
    data = await read_body(exchange, settings)
    body = decode_json(data, _DECODER, max_depth=settings.max_json_depth, expected=EXPECTED)
    fetched_bytes = await fetch_images(exchange, wiring, body.messages, remote_images)
    return Generation(
        request=messages_request(body, seed=secrets.randbits(63)),
        id_prefix="msg_",
        body_bytes=len(data) + fetched_bytes,
        is_stream=bool(body.stream),
        chunks=MessageEvents,
        gathered=GatheredMessage,
        whole=whole_message,
        form=EVENTS,
        headers={"request-id": exchange.id},
        grammar_param=grammar_param(body),
        tool_schema="input_schema",
    )
