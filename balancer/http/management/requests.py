"""/requests: what waits and runs, why it is where it is, and ending it."""

from __future__ import annotations

import msgspec
from aiohttp.web import StreamResponse

from balancer.errors import ResourceNotFound
from balancer.http.answers import value_answer
from balancer.http.exchange import Exchange, Wiring


async def list_requests(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """Generations that have begun first, then those that wait in their order; then embeddings, then
    questions."""
    found = [
        *wiring.dispatcher.requests(),
        *wiring.embedding.requests(),
        *wiring.asker.requests(),
    ]
    rows = [msgspec.to_builtins(row) for row in found]
    return value_answer(exchange, {"object": "list", "data": rows})


async def cancel_request(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """End one; its client gets 409 `request_cancelled`."""
    request_id = exchange.places["id"]
    found = wiring.dispatcher.cancel(request_id) or wiring.embedding.cancel(request_id)
    if not (found or wiring.asker.cancel(request_id)):
        raise ResourceNotFound(
            f"no request {request_id[:200]!r} waits or runs; GET /requests lists those that do"
        )
    return value_answer(exchange, {"id": request_id, "state": "cancelled"})


async def show_route(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """Every agent that was chosen for it, and for its choices but the first. The last 1000
    generations have one, fewer where they have more than 2000 choices; embeddings have none."""
    request_id = exchange.places["id"]
    routes = wiring.dispatcher.routes(request_id)
    if not routes:
        raise ResourceNotFound(
            f"no generation {request_id[:200]!r} is remembered; the id is in the answer's "
            "X-Paddler-Request-Id, the last 1000 generations have a route (fewer where they have "
            "more than 2000 choices), embeddings have none"
        )
    first, *others = msgspec.to_builtins(routes)
    return value_answer(exchange, {"object": "route", **first, "other_choices": others})
