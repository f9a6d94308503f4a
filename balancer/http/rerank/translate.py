"""Between the canonical reranking and the shape that Cohere and Jina gave it. Pure: raises
`InvalidRequest`."""

from __future__ import annotations

from typing import Any

from balancer.http.faults import unsupported
from balancer.http.rerank.schema import RerankBody
from protocol.embeddings import Scores
from protocol.to_agent import Rerank

_UNSUPPORTED = ("rank_fields", "max_chunks_per_doc", "max_tokens_per_doc")


def rerank_question(body: RerankBody) -> Rerank:
    """The question to an agent."""
    for param in _UNSUPPORTED:
        if (value := getattr(body, param)) is not None:
            raise unsupported(param, value, "null: documents are taken whole")
    return Rerank(
        model=body.model or "",
        query=body.query,
        documents=tuple(one if isinstance(one, str) else one.text for one in body.documents),
    )


def ranking(question: Rerank, answer: Scores, *, model: str, body: RerankBody) -> dict[str, Any]:
    """The best documents first, of two alike the one that came first. `answer` has a score for each
    of them, as the model gives it: higher is better."""
    scores = [0.0 if score is None else score for score in answer.scores]
    best = sorted(range(len(scores)), key=lambda index: -scores[index])[: body.top_n]
    rows: list[dict[str, Any]] = [
        {"index": index, "relevance_score": scores[index]} for index in best
    ]
    if body.return_documents:
        for row in rows:
            row["document"] = {"text": question.documents[row["index"]]}
    tokens = sum(answer.tokens)
    usage = {"total_tokens": tokens, "prompt_tokens": tokens}
    return {"object": "list", "model": model, "results": rows, "usage": usage}
