"""POST /v1/messages/count_tokens."""

from __future__ import annotations

import msgspec
from aiohttp.web import StreamResponse

from balancer.http.answers import json_answer
from balancer.http.anthropic.schema import EXPECTED, CountTokensRequest
from balancer.http.anthropic.translate import prompt_fields
from balancer.http.asked import ask
from balancer.http.body import decode_json, read_body
from balancer.http.exchange import Exchange, Wiring
from protocol.rendering import Rendered
from protocol.to_agent import Render

_DECODER = msgspec.json.Decoder(CountTokensRequest)


async def count_tokens(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """How many tokens a message with this body would have before its answer. Raises
    `BalancerError`."""
    settings = wiring.settings
    data = await read_body(exchange, settings)
    body = decode_json(data, _DECODER, max_depth=settings.max_json_depth, expected=EXPECTED)
    question = count_question(body, created=exchange.created)
    answer, asked = await ask(exchange, wiring, question, Rendered, body_bytes=len(data))
    counted = msgspec.json.encode({"input_tokens": answer.prompt_tokens})
    return json_answer(exchange, counted, headers={"request-id": exchange.id, **asked.headers})


def count_question(body: CountTokensRequest, *, created: int) -> Render:
    """The question to an agent. Raises `InvalidRequest`."""
    fields = prompt_fields(body)
    return Render(
        model=fields["model"],
        messages=fields["messages"],
        tools=fields["tools"],
        enable_thinking=fields["enable_thinking"],
        created=created,
        with_prompt=False,
        with_count=True,
    )
