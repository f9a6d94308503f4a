"""POST /v1/responses/input_tokens."""

from __future__ import annotations

import msgspec
from aiohttp.web import StreamResponse

from balancer.http.answers import json_answer
from balancer.http.asked import ask
from balancer.http.body import decode_json, read_body
from balancer.http.exchange import Exchange, Wiring
from balancer.http.responses.keeping import history_of
from balancer.http.responses.schema import EXPECTED, InputTokensRequest
from balancer.http.responses.translate import count_question
from protocol.rendering import Rendered

_DECODER = msgspec.json.Decoder(InputTokensRequest)


async def count_input_tokens(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """How many tokens a response to this body would have before its answer. Raises
    `BalancerError`."""
    settings = wiring.settings
    data = await read_body(exchange, settings)
    body = decode_json(data, _DECODER, max_depth=settings.max_json_depth, expected=EXPECTED)
    history = await history_of(exchange, wiring, body.previous_response_id)
    question = count_question(body, history.items, created=exchange.created)
    size_bytes = len(data) + history.size_bytes
    answer, asked = await ask(exchange, wiring, question, Rendered, body_bytes=size_bytes)
    counted = {"object": "response.input_tokens", "input_tokens": answer.prompt_tokens}
    return json_answer(exchange, msgspec.json.encode(counted), headers=asked.headers)
