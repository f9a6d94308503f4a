"""POST /tokenize, /detokenize and /apply-template."""

from __future__ import annotations

import asyncio

import msgspec
from aiohttp.web import StreamResponse

from balancer.http.answers import json_answer
from balancer.http.asked import ask
from balancer.http.body import decode_json, read_body
from balancer.http.exchange import Exchange, Wiring
from balancer.http.llama_server.answers import token_pieces
from balancer.http.llama_server.schema import (
    EXPECTED,
    ApplyTemplateBody,
    DetokenizeBody,
    TokenizeBody,
)
from balancer.http.llama_server.translate import (
    detokenize_question,
    render_question,
    tokenize_question,
)
from protocol.embeddings import Text, TokenIds
from protocol.rendering import Rendered

_TOKENIZE = msgspec.json.Decoder(TokenizeBody)
_DETOKENIZE = msgspec.json.Decoder(DetokenizeBody)
_APPLY_TEMPLATE = msgspec.json.Decoder(ApplyTemplateBody)


async def tokenize(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """The ids of a text. Raises `BalancerError`."""
    depth = wiring.settings.max_json_depth
    data = await read_body(exchange, wiring.settings)
    question = tokenize_question(decode_json(data, _TOKENIZE, max_depth=depth, expected=EXPECTED))
    answer, asked = await ask(exchange, wiring, question, TokenIds, body_bytes=len(data))
    pieces = []
    for piece in token_pieces(answer, with_pieces=question.with_pieces):
        pieces.append(piece)
        await asyncio.sleep(0)  # streams go on meanwhile
    return json_answer(exchange, b"".join(pieces), headers=asked.headers)


async def detokenize(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """The text of ids. Raises `BalancerError`."""
    depth = wiring.settings.max_json_depth
    data = await read_body(exchange, wiring.settings)
    question = detokenize_question(
        decode_json(data, _DETOKENIZE, max_depth=depth, expected=EXPECTED)
    )
    answer, asked = await ask(
        exchange, wiring, question, Text, body_bytes=len(data), names={"token_ids": "tokens"}
    )
    body = msgspec.json.encode({"content": answer.text})
    return json_answer(exchange, body, headers=asked.headers)


async def apply_template(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """The prompt of a chat. Raises `BalancerError`."""
    depth = wiring.settings.max_json_depth
    data = await read_body(exchange, wiring.settings)
    question = render_question(
        decode_json(data, _APPLY_TEMPLATE, max_depth=depth, expected=EXPECTED),
        created=exchange.created,
    )
    answer, asked = await ask(exchange, wiring, question, Rendered, body_bytes=len(data))
    body = msgspec.json.encode({"prompt": answer.prompt})
    return json_answer(exchange, body, headers=asked.headers)
