"""Embeddings on their way to a client, whatever its family of APIs: asked for, and written in
pieces, since many numbers take a while."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice

from aiohttp.web import StreamResponse

from balancer.dispatch.embedding_batch import Embedded
from balancer.errors import ClientDropped
from balancer.http.answers import json_answer, json_headers
from balancer.http.envelope import enveloped
from balancer.http.exchange import Exchange, Wiring
from balancer.http.sanitising import sanitised_inputs
from balancer.http.token_meter import texts_metered
from protocol.embeddings import FLOAT_BYTES, EmbeddingRequest

PIECE_FLOATS = 16 * 1024
"""Written as text at a stretch, or a few more: about 2 ms."""
SHOWN_AGENTS = 8


async def embed(
    exchange: Exchange,
    wiring: Wiring,
    request: EmbeddingRequest,
    *,
    body_bytes: int,
    timeout_s: float | None = None,
) -> Embedded:
    """Have the inputs embedded, and note what the log says of it. Raises `BalancerError`."""
    if rules := wiring.settings.sanitise:
        request = await sanitised_inputs(request, rules)
    async with texts_metered(exchange, request.inputs) as spent:
        embedded = await wiring.embedding.embed(
            request,
            exchange.principal,
            request_id=exchange.id,
            timeout_s=timeout_s,
            body_bytes=body_bytes,
            spent=spent,
        )
    exchange.facts.update(
        agent=embedded.agents[0],
        agents=len(embedded.agents),
        attempts=embedded.attempts,
        queue_ms=round(embedded.queue_ms, 3),
        inputs=len(request.inputs),
        prompt_tokens=embedded.prompt_tokens,
    )
    return embedded


async def answer_vectors(
    exchange: Exchange, embedded: Embedded, pieces: Iterator[bytes]
) -> StreamResponse:
    """Send a body that is made piece by piece. Raises `ClientDropped`."""
    first = list(islice(pieces, 2))
    if len(first) == 1:
        return json_answer(exchange, first[0], headers=_headers(embedded))
    return await _in_pieces(exchange, chain(first, pieces), headers=_headers(embedded))


def vector_pieces(
    embedded: Embedded, opening: bytes, show: Callable[[int, bytes], bytes], closing: bytes
) -> Iterator[bytes]:
    """A body's bytes, in order; `show` writes one vector, given its index. Pure. Whoever takes the
    pieces may do other things between two of them."""
    piece = bytearray(opening)
    floats = 0
    for index, vector in enumerate(embedded.vectors):
        piece += (b"," if index else b"") + show(index, vector)
        floats += len(vector) // FLOAT_BYTES
        if floats >= PIECE_FLOATS:
            yield bytes(piece)
            piece.clear()
            floats = 0
    yield bytes(piece + closing)


def numbers(vector: bytes) -> tuple[float, ...]:
    """A vector of raw little-endian float32. Pure."""
    return struct.unpack(f"<{len(vector) // FLOAT_BYTES}f", vector)


async def _in_pieces(
    exchange: Exchange, pieces: Iterable[bytes], *, headers: dict[str, str]
) -> StreamResponse:
    """Make each piece when the client has read those before it but for what may be unsent: so its
    time to read begins anew with each. Raises `ClientDropped`."""
    answer = StreamResponse(headers=json_headers(exchange, headers))
    try:
        await answer.prepare(exchange.request)
        for piece in enveloped(exchange, pieces):
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
