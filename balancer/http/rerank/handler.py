"""POST /v1/rerank."""

from __future__ import annotations

import msgspec
from aiohttp.web import StreamResponse

from balancer.http.answers import json_answer
from balancer.http.asked import ask
from balancer.http.body import decode_json, read_body
from balancer.http.exchange import Exchange, Wiring
from balancer.http.rerank.schema import EXPECTED, RerankBody
from balancer.http.rerank.translate import ranking, rerank_question
from balancer.http.token_meter import texts_metered
from balancer.policy.limits.estimate import text_estimate
from protocol.embeddings import Scores

_DECODER = msgspec.json.Decoder(RerankBody)


async def rerank(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """The documents by how well they answer the query. Raises `BalancerError`."""
    settings = wiring.settings
    data = await read_body(exchange, settings)
    body = decode_json(data, _DECODER, max_depth=settings.max_json_depth, expected=EXPECTED)
    question = rerank_question(body)
    # each document is scored with the query
    texts = [part for document in question.documents for part in (question.query, document)]
    async with texts_metered(exchange, texts) as spent:
        answer, asked = await ask(
            exchange,
            wiring,
            question,
            Scores,
            body_bytes=len(data),
            on_left=lambda: spent(sum(map(text_estimate, texts))),
        )
        spent(sum(answer.tokens))
    exchange.facts.update(documents=len(question.documents), prompt_tokens=sum(answer.tokens))
    ranked = ranking(question, answer, model=asked.model, body=body)
    return json_answer(exchange, msgspec.json.encode(ranked), headers=asked.headers)
