"""POST /v1/embeddings."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from itertools import chain, islice

import msgspec
from aiohttp.web import StreamResponse

from balancer.dispatch.embedding_batch import Embedded
from balancer.errors import ClientDropped
from balancer.http.answers import SECURITY_HEADERS, json_answer
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
    pieces = embedding_pieces(embedded, as_base64=body.encoding_format == "base64")
    first = list(islice(pieces, 2))
    if len(first) == 1:
        return json_answer(exchange, first[0], headers=_headers(embedded))
    return await _in_pieces(exchange, chain(first, pieces), headers=_headers(embedded))


async def _in_pieces(
    exchange: Exchange, pieces: Iterable[bytes], *, headers: dict[str, str]
) -> StreamResponse:
    """Make each piece when the client has read those before it but for what may be unsent: so its
    time to read begins anew with each. Raises `ClientDropped`."""
    answer = StreamResponse(headers={**SECURITY_HEADERS, **exchange.headers(), **headers})
    answer.content_type = "application/json"
    try:
        await answer.prepare(exchange.request)
        for piece in pieces:
            await answer.write(piece)
            await asyncio.sleep(0)  # streams go on meanwhile
    except ConnectionError as error:
        raise ClientDropped("the client left before it had read the whole answer") from error
    return answer


def _headers(embedded: Embedded) -> dict[str, str]:
    return {
        "X-Paddler-Agent": ", ".join(embedded.agents[:SHOWN_AGENTS]),
        "X-Paddler-Queue-Ms": f"{embedded.queue_ms:.3f}",
        "X-Paddler-Attempts": str(embedded.attempts),
    }
