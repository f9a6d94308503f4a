"""Embeddings: over HTTP with the pooling of the model's file, over the agent link with each."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from protocol.codec import decode_result
from protocol.embeddings import Embeddings, Pooling
from protocol.jsonrpc import Response
from protocol.to_agent import Embed
from tests.equality.rows import Row, Vectors, largest_difference, least_cosine
from tests.equality.sites import MODEL, Site, our_agent, ours, theirs
from tests.support.fake_balancer import FakeBalancer
from tests.support.random_gguf import prompt_tokens, random_gguf, text_of
from tests.support.tiny_embedding_gguf import write_tiny_bert

ALLOWED = {"llama": 1e-5, "bert": 1e-3}
"""Float32 added up in another order; llama.cpp's GELU rounds to half floats besides, so that such a
difference may become a step of those."""
SPLIT = ("--micro-batch", "64")
"""Long inputs are then decoded by us in pieces."""
WHOLE = ("--ubatch-size", "2048", "--batch-size", "2048", "--ctx-size", "2048")
"""llama-server pools what one micro-batch holds."""
POOLINGS: tuple[Pooling, ...] = ("none", "mean", "cls", "last")
Inputs = Mapping[str, Sequence[str]]
UNICODE = "Grüße, 世界! naïve café 🙂 ﬁn"
BERT_INPUTS: Inputs = {
    "short": ["the cat sat"],
    "long": ["which dog ran on the mat " * 20],
    "unicode": [UNICODE],
    "batch of 24": [f"the {'cat dog port '[: 4 * (i % 4)]} {i} sat" for i in range(24)],
}


def words(seed: int, count: int) -> str:
    """Text of so many tokens of the random llama."""
    return text_of(prompt_tokens(random.Random(seed), count))


LLAMA_INPUTS: Inputs = {
    "short": [words(1, 5)],
    "long": [words(2, 700)],
    "unicode": [UNICODE],
    "batch of 24": [words(seed, 3 + 9 * seed) for seed in range(24)],
}


def compare(folder: Path) -> Iterator[Row]:
    """A BERT, which sees an input as a whole, and a llama, which reads it in pieces."""
    for pooling in ("mean", "cls", "last"):
        kind = gguf.PoolingType[pooling.upper()]
        bert = write_tiny_bert(folder / f"bert-{pooling}.gguf", pooling=kind)
        yield from _over_http(folder / pooling, bert, "bert", pooling, BERT_INPUTS)
    llama = random_gguf("tiny-f32")
    yield from _over_http(folder / "llama", llama, "llama", "mean", LLAMA_INPUTS)
    bert = write_tiny_bert(folder / "bert-none.gguf", pooling=gguf.PoolingType.NONE)
    yield from asyncio.run(_over_link(folder / "link", bert, "bert", BERT_INPUTS))
    yield from asyncio.run(_over_link(folder / "link", llama, "llama", LLAMA_INPUTS))


def _over_http(folder: Path, model: Path, kind: str, pooling: str, inputs: Inputs) -> Iterator[Row]:
    flags = SPLIT if kind == "llama" else ()
    with (
        ours(model, folder, *flags, wait=False) as our_site,
        theirs(model, folder, "--embeddings", "--pooling", pooling, *WHOLE) as their_site,
    ):
        for given, texts in inputs.items():
            first, again = (_scaled(our_site, texts) for _ in range(2))
            feature = f"embeddings, {kind}, pooling {pooling}"
            their = _scaled(their_site, texts)
            yield _row(feature, given, first, again, their, ALLOWED[kind])


def _scaled(site: Site, texts: Sequence[str]) -> list[Vectors]:
    answer = site.ask("/v1/embeddings", {"model": MODEL, "input": list(texts)})
    rows = sorted(answer["data"], key=lambda row: int(row["index"]))
    return [np.array([row["embedding"]], dtype=np.float64) for row in rows]


async def _over_link(folder: Path, model: Path, kind: str, inputs: Inputs) -> list[Row]:
    """As they are, not scaled to length 1."""
    rows: list[Row] = []
    flags = SPLIT if kind == "llama" else ()
    async with our_agent(model, folder, *flags) as agent:
        for pooling in POOLINGS:
            with theirs(model, folder, "--embeddings", "--pooling", pooling, *WHOLE) as site:
                for given, texts in inputs.items():
                    first, again = [await _embedded(agent, texts, pooling) for _ in range(2)]
                    feature = f"embed on the link, {kind}, pooling {pooling}"
                    their = _plain(site, texts)
                    rows.append(_row(feature, given, first, again, their, ALLOWED[kind]))
    return rows


async def _embedded(agent: FakeBalancer, texts: Sequence[str], pooling: Pooling) -> list[Vectors]:
    params = Embed(model=MODEL, inputs=tuple(texts), pooling=pooling, normalize=False)
    call = await agent.ask(params)
    answer = await agent.answered(call)
    assert isinstance(answer, Response), answer
    result = decode_result(answer.result, Embeddings)
    assert not result.errors, result.errors
    data = result.vectors
    if result.vectors_follow:
        data = await agent.until(lambda: agent.data.get(call), "the vectors")
    numbers = np.frombuffer(data, "<f4").astype(np.float64).reshape(-1, result.dimensions)
    return list(np.split(numbers, np.cumsum(result.rows)[:-1]))


def _plain(site: Site, texts: Sequence[str]) -> list[Vectors]:
    answer: Any = site.ask("/embeddings", {"content": list(texts), "embd_normalize": -1})
    rows = sorted(answer, key=lambda row: int(row["index"]))
    return [np.array(row["embedding"], dtype=np.float64) for row in rows]


def _row(
    feature: str,
    given: str,
    first: list[Vectors],
    again: list[Vectors],
    their: list[Vectors],
    allowed: float,
) -> Row:
    count = sum(len(vectors) for vectors in first)
    cosine = least_cosine(first, their)
    return Row(
        feature=feature,
        given=given,
        compared=f"{count} vectors of {first[0].shape[1]}, 1 - cosine {1 - cosine:.0e}",
        difference=largest_difference(first, their),
        again=largest_difference(first, again),
        allowed=allowed,
    )
