"""POST /v1/responses."""

from __future__ import annotations

import secrets
from functools import partial

import msgspec
from aiohttp.web import StreamResponse

from balancer.http.answering import answer
from balancer.http.body import decode_json, read_body
from balancer.http.exchange import Exchange, Wiring
from balancer.http.remote_images import fetch_images
from balancer.http.responses.answer import (
    GatheredResponse,
    ResponseEvents,
    form_of,
    whole_response,
)
from balancer.http.responses.draft import Draft
from balancer.http.responses.images import remote_images
from balancer.http.responses.keeping import history_of, keep
from balancer.http.responses.schema import EXPECTED, ResponseRequest
from balancer.http.responses.translate import repeated_fields, response_request
from balancer.http.shape import Generation

_DECODER = msgspec.json.Decoder(ResponseRequest)


async def create_response(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """Read, look up what was said before, translate, generate, store, answer. Raises
    `BalancerError`."""
    settings = wiring.settings
    data = await read_body(exchange, settings)
    body = decode_json(data, _DECODER, max_depth=settings.max_json_depth, expected=EXPECTED)
    fetched_bytes = await fetch_images(exchange, wiring, body, remote_images)
    history = await history_of(exchange, wiring, body.previous_response_id)
    request = response_request(body, history.items, seed=secrets.randbits(63))
    draft = Draft(suffix=exchange.id.removeprefix("req_"), repeated=repeated_fields(body))
    return await answer(
        exchange,
        wiring,
        Generation(
            request=request,
            id_prefix="resp_",
            body_bytes=len(data) + fetched_bytes + history.size_bytes,
            is_stream=bool(body.stream),
            chunks=partial(ResponseEvents, draft=draft),
            gathered=partial(GatheredResponse, draft=draft),
            whole=partial(whole_response, draft=draft),
            form=form_of(draft),
            grammar_param="text.format",
            tool_schema="parameters",
            prompt_param="input",
            before_end=partial(keep, exchange, wiring, draft, body),
        ),
    )
