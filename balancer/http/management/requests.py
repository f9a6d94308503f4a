"""/requests: what waits and runs, why it is where it is, and ending it."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from balancer.dispatch.journal import MOST_REQUESTS, Route
from balancer.dispatch.timeline import timeline
from balancer.errors import ResourceNotFound
from balancer.http.calls import Call, audited
from balancer.http.exchange import Wiring
from balancer.http.management.rows import finished_row, requests_of

SHOWN_FINISHED = 100


async def list_requests(call: Call, wiring: Wiring) -> dict[str, Any]:
    """Generations that have begun first, then those that wait in their order; then embeddings, then
    questions."""
    del call
    found = requests_of((wiring.dispatcher, wiring.embedding, wiring.asker))
    return {"object": "list", "data": [msgspec.to_builtins(row) for row in found]}


async def list_finished(call: Call, wiring: Wiring) -> dict[str, Any]:
    """The latest generations that are over, the last to end first. Raises `InvalidRequest`."""
    last = call.whole("last", least=1, most=MOST_REQUESTS, default=SHOWN_FINISHED)
    rows = [finished_row(route) for route in wiring.dispatcher.finished(last)]
    return {"object": "list", "data": rows}


@audited("request.cancel")
async def cancel_request(call: Call, wiring: Wiring) -> dict[str, Any]:
    """End one; its client gets 409 `request_cancelled`."""
    request_id = call.text("id")
    found = wiring.dispatcher.cancel(request_id) or wiring.embedding.cancel(request_id)
    if not (found or wiring.asker.cancel(request_id)):
        raise ResourceNotFound(
            f"no request {request_id[:200]!r} waits or runs; GET /requests lists those that do"
        )
    return {"id": request_id, "state": "cancelled"}


async def show_route(call: Call, wiring: Wiring) -> dict[str, Any]:
    """Every agent that was chosen for it, and for its choices but the first. The last 1000
    generations have one, fewer where they have more than 2000 choices; embeddings have none."""
    first, *others = msgspec.to_builtins(_routes(call, wiring))
    return {"object": "route", **first, "other_choices": others}


async def show_timeline(call: Call, wiring: Wiring) -> dict[str, Any]:
    """What it waited for, when and where; of its choices but the first, too. Remembered as routes
    are."""
    routes = _routes(call, wiring)
    age_ms = 1000 * (time.time() - routes[0].arrived)
    first, *others = (msgspec.to_builtins(timeline(one, age_ms=age_ms)) for one in routes)
    return {"object": "timeline", **first, "other_choices": others}


def _routes(call: Call, wiring: Wiring) -> list[Route]:
    request_id = call.text("id")
    routes = wiring.dispatcher.routes(request_id)
    if not routes:
        raise ResourceNotFound(
            f"no generation {request_id[:200]!r} is remembered; the id is in the answer's "
            "X-Paddler-Request-Id, the last 1000 generations have a route (fewer where they have "
            "more than 2000 choices), embeddings have none"
        )
    return routes
