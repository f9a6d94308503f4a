"""POST /v1/embeddings."""

from __future__ import annotations

import asyncio

import msgspec
from aiohttp.web import StreamResponse

from balancer.dispatch.embedding_batch import Embedded
from balancer.http.answers import json_answer
from balancer.http.body import decode_json, read_body
from balancer.http.exchange import Exchange, Wiring
from balancer.http.openai.embedding_answer import embedding_pieces
from balancer.http.openai.schema import EXPECTED, EmbeddingsRequest
from balancer.http.openai.translate_embeddings import embedding_request

SHOWN_AGENTS = 8

_DECODER = msgspec.json.Decoder(EmbeddingsRequest)


async def embeddings(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """Read, translate, embed, answer. Raises `BalancerError`."""
    settings = wiring.settings
    data = await read_body(exchange.request, settings)
    body = decode_json(data, _DECODER, max_depth=settings.max_json_depth, expected=EXPECTED)
    request = embedding_request(body)
    embedded = await wiring.embedding.embed(
        request,
        exchange.principal,
        request_id=exchange.id,
        timeout_s=body.timeout,
        body_bytes=len(data),
    )
    exchange.facts.update(
        agent=embedded.agents[0],
        agents=len(embedded.agents),
        attempts=embedded.attempts,
        queue_ms=round(embedded.queue_ms, 3),
        inputs=len(request.inputs),
        prompt_tokens=embedded.prompt_tokens,
    )
    pieces = []
    for piece in embedding_pieces(embedded, as_base64=body.encoding_format == "base64"):
        pieces.append(piece)
        await asyncio.sleep(0)  # streams go on meanwhile
    return json_answer(exchange, b"".join(pieces), headers=_headers(embedded))


def _headers(embedded: Embedded) -> dict[str, str]:
    return {
        "X-Paddler-Agent": ", ".join(embedded.agents[:SHOWN_AGENTS]),
        "X-Paddler-Queue-Ms": f"{embedded.queue_ms:.3f}",
        "X-Paddler-Attempts": str(embedded.attempts),
    }
