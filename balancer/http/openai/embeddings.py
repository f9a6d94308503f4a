"""POST /v1/embeddings."""

from __future__ import annotations

import msgspec
from aiohttp.web import StreamResponse

from balancer.http.body import decode_json, read_body
from balancer.http.exchange import Exchange, Wiring
from balancer.http.openai.embedding_answer import embedding_pieces
from balancer.http.openai.schema import EXPECTED, EmbeddingsRequest
from balancer.http.openai.translate_embeddings import embedding_request
from balancer.http.vectors import answer_vectors, embed

_DECODER = msgspec.json.Decoder(EmbeddingsRequest)


async def embeddings(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """Read, translate, embed, answer. Raises `BalancerError`."""
    settings = wiring.settings
    data = await read_body(exchange, settings)
    body = decode_json(data, _DECODER, max_depth=settings.max_json_depth, expected=EXPECTED)
    return await answer_embeddings(exchange, wiring, body, body_bytes=len(data))


async def answer_embeddings(
    exchange: Exchange, wiring: Wiring, body: EmbeddingsRequest, *, body_bytes: int
) -> StreamResponse:
    """The same, of a body that was read already."""
    embedded = await embed(
        exchange,
        wiring,
        embedding_request(body),
        body_bytes=body_bytes,
        timeout_s=body.timeout,
    )
    pieces = embedding_pieces(embedded, as_base64=body.encoding_format == "base64")
    return await answer_vectors(exchange, embedded, pieces)
