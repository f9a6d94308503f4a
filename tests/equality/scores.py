"""Documents by how well they answer a query: the scores that reranking models give them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import gguf
import numpy as np

from tests.equality.rows import Row, Vectors, largest_difference
from tests.equality.sites import MODEL, Site, ours, theirs
from tests.equality.vectors import ALLOWED, UNICODE, WHOLE
from tests.support.tiny_embedding_gguf import write_tiny_bert
from tests.support.tiny_gguf import write_tiny_causal_reranker

QUERY = "which dog ran on the mat"
TEMPLATE = "{query} is {document}"
DOCUMENTS = {
    "short": ["the cat sat"],
    "long": ["the dog ran on the mat " * 12],
    "unicode": [UNICODE],
    "batch of 24": [f"{'the dog ran on the mat ' * (i % 5)}{i}" for i in range(24)],
}


def compare(folder: Path) -> Iterator[Row]:
    """Models that score the first token, that have a prompt of their own, that score the last."""
    rank = gguf.PoolingType.RANK
    bert = write_tiny_bert(folder / "bert.gguf", pooling=rank)
    yield from _compared(folder / "1", bert, "bert")
    templated = write_tiny_bert(folder / "own.gguf", pooling=rank, rerank_template=TEMPLATE)
    yield from _compared(folder / "2", templated, "bert", ", own prompt")
    causal = write_tiny_causal_reranker(folder / "causal.gguf")
    yield from _compared(folder / "3", causal, "qwen3")


def _compared(folder: Path, model: Path, kind: str, more: str = "") -> Iterator[Row]:
    with (
        ours(model, folder, wait=False) as our_site,
        theirs(model, folder, "--rerank", *WHOLE) as their_site,
    ):
        for given, documents in DOCUMENTS.items():
            first, again = (_scores(our_site, documents) for _ in range(2))
            their = _scores(their_site, documents)
            yield Row(
                feature=f"rerank, {kind}{more}",
                given=given,
                compared=f"{len(documents)} scores",
                difference=largest_difference([first], [their]),
                again=largest_difference([first], [again]),
                allowed=ALLOWED.get(kind, ALLOWED["llama"]),
            )


def _scores(site: Site, documents: Sequence[str]) -> Vectors:
    """In the order of the documents."""
    body = {"model": MODEL, "query": QUERY, "documents": list(documents)}
    rows = sorted(site.ask("/v1/rerank", body)["results"], key=lambda row: int(row["index"]))
    assert [row["index"] for row in rows] == list(range(len(documents)))
    return np.array([row["relevance_score"] for row in rows], dtype=np.float64)
