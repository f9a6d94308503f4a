"""POST /api/embed and POST /api/embeddings."""

from __future__ import annotations

import msgspec
from aiohttp.web import StreamResponse

from balancer.http import answers
from balancer.http.answers import value_answer
from balancer.http.body import decode_json, read_body
from balancer.http.exchange import Exchange, Wiring
from balancer.http.ollama.embedding_answer import embed_pieces, one_vector
from balancer.http.ollama.names import served_model, served_name
from balancer.http.ollama.schema import EXPECTED, EmbedRequest, PromptEmbeddingRequest
from balancer.http.ollama.translate import embed_request
from balancer.http.openai.embeddings import answer_embeddings
from balancer.http.openai.schema import EXPECTED as OPENAI_EXPECTED
from balancer.http.openai.schema import EmbeddingsRequest
from balancer.http.vectors import answer_vectors
from balancer.http.vectors import embed as embed_inputs
from protocol.embeddings import EmbeddingRequest

_EMBED = msgspec.json.Decoder(EmbedRequest)
_PROMPT = msgspec.json.Decoder(PromptEmbeddingRequest)
_OPENAI = msgspec.json.Decoder(EmbeddingsRequest)


async def embed(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """Read, translate, embed, answer. Raises `BalancerError`."""
    settings = wiring.settings
    data = await read_body(exchange, settings)
    body = decode_json(data, _EMBED, max_depth=settings.max_json_depth, expected=EXPECTED)
    if not body.input:
        served_model(body.model, wiring.roster)
        return value_answer(exchange, {"model": body.model, "embeddings": []})
    request = embed_request(body, model=served_name(body.model, wiring.roster))
    embedded = await embed_inputs(exchange, wiring, request, body_bytes=len(data))
    return await answer_vectors(exchange, embedded, embed_pieces(embedded, model=body.model))


async def embeddings(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """As Ollama did it before /api/embed, of one `prompt`; a body with `input` is OpenAI's, and so
    are then the answer and its errors. Raises `BalancerError`."""
    settings = wiring.settings
    data = await read_body(exchange, settings)
    body = decode_json(data, _PROMPT, max_depth=settings.max_json_depth, expected=EXPECTED)
    model = served_name(body.model, wiring.roster)
    if body.input is not None:
        exchange.error_form = answers.error_answer
        asked = decode_json(
            data, _OPENAI, max_depth=settings.max_json_depth, expected=OPENAI_EXPECTED
        )
        asked.model = model or None
        return await answer_embeddings(exchange, wiring, asked, body_bytes=len(data))
    if not body.prompt:
        served_model(body.model, wiring.roster)
        return value_answer(exchange, {"embedding": []})
    request = EmbeddingRequest(model=model, inputs=(body.prompt,), truncate=True)
    embedded = await embed_inputs(exchange, wiring, request, body_bytes=len(data))
    return await answer_vectors(exchange, embedded, iter([one_vector(embedded)]))
