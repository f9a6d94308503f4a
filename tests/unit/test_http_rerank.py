"""Between the canonical reranking and the shape that Cohere and Jina gave it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from balancer.errors import InvalidRequest
from balancer.http.body import decode_json
from balancer.http.rerank.schema import EXPECTED, RerankBody
from balancer.http.rerank.translate import ranking, rerank_question
from protocol.embeddings import MAX_INPUTS, Scores
from protocol.to_agent import Rerank

QUESTION = Rerank(query="q", documents=("a", "b", "c"))
ANSWER = Scores(scores=(0.25, 0.75, 0.25), tokens=(3, 4, 5))


def decoded(**fields: Any) -> RerankBody:
    data = msgspec.json.encode(fields)
    decoder = msgspec.json.Decoder(RerankBody)
    return decode_json(data, decoder, max_depth=64, expected=EXPECTED)


def ranked(**fields: Any) -> Any:
    body = decoded(query="q", documents=["a", "b", "c"], **fields)
    return ranking(QUESTION, ANSWER, model="demo", body=body)


def test_documents_are_texts_or_objects_with_one() -> None:
    body = decoded(model="demo", query="q", documents=["a", {"text": "b", "more": 1}])
    assert rerank_question(body) == Rerank(model="demo", query="q", documents=("a", "b"))


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"documents": ["a"]}, "missing_required_parameter", "query"),
        ({"query": "q"}, "missing_required_parameter", "documents"),
        ({"query": "", "documents": ["a"]}, "invalid_value", "query"),
        ({"query": "q", "documents": []}, "invalid_value", "documents"),
        ({"query": "q", "documents": ["a"] * (MAX_INPUTS + 1)}, "invalid_value", "documents"),
        ({"query": "q", "documents": ["a", 1]}, "invalid_type", "documents[1]"),
        (
            {"query": "q", "documents": ["a", {"id": 1}]},
            "missing_required_parameter",
            "documents[1].text",
        ),
        ({"query": "q", "documents": ["a"], "top_n": 0}, "invalid_value", "top_n"),
        (
            {"query": "q", "documents": ["a"], "rank_fields": ["title"]},
            "unsupported_parameter",
            "rank_fields",
        ),
        (
            {"query": "q", "documents": ["a"], "max_chunks_per_doc": 1},
            "unsupported_parameter",
            "max_chunks_per_doc",
        ),
        (
            {"query": "q", "documents": ["a"], "max_tokens_per_doc": 9},
            "unsupported_parameter",
            "max_tokens_per_doc",
        ),
    ],
)
def test_what_cannot_be_ranked_is_named(fields: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        rerank_question(decoded(**fields))
    assert (refused.value.code, refused.value.param) == (code, param)


def test_the_best_document_comes_first_and_of_two_alike_the_earlier() -> None:
    assert ranked() == {
        "object": "list",
        "model": "demo",
        "results": [
            {"index": 1, "relevance_score": 0.75},
            {"index": 0, "relevance_score": 0.25},
            {"index": 2, "relevance_score": 0.25},
        ],
        "usage": {"total_tokens": 12, "prompt_tokens": 12},
    }


def test_only_the_best_are_shown_if_asked_and_with_their_texts() -> None:
    assert ranked(top_n=1, return_documents=True)["results"] == [
        {"index": 1, "relevance_score": 0.75, "document": {"text": "b"}}
    ]
    assert len(ranked(top_n=9)["results"]) == 3
