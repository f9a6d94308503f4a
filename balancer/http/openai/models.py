"""GET /v1/models, and one of them: rows that OpenAI's clients can read and Anthropic's too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiohttp.web import StreamResponse

from balancer.errors import ModelNotFound
from balancer.http.answers import value_answer
from balancer.http.exchange import Exchange, Wiring
from balancer.http.listed_models import check_listed, model_fields, models_for


async def list_models(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """Those that agents serve now, with what adapters make of them; for a key, its own."""
    roster = wiring.roster
    rows = [
        model_fields(name, model, roster.candidates(name), created=wiring.started)
        for name, model in models_for(exchange.principal, roster)
    ]
    return value_answer(exchange, {"object": "list", "data": rows, **_page_of(rows)})


async def show_model(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """One of them, by any name that it is called by. Raises `ModelNotFound`, `Forbidden`."""
    name = exchange.places["id"]
    check_listed(name, exchange.principal)
    agents = wiring.roster.candidates(name)
    model = next((agent.model for agent in agents if agent.model is not None), None)
    if model is None:
        raise ModelNotFound(
            f"there is no model {name[:200]!r} here; GET /v1/models lists those that are",
            param="model",
            details={"model": name[:200]},
        )
    return value_answer(exchange, model_fields(name, model, agents, created=wiring.started))


def _page_of(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Anthropic lists in pages; this is the only one."""
    ends = (rows[0]["id"], rows[-1]["id"]) if rows else (None, None)
    return {"first_id": ends[0], "last_id": ends[1], "has_more": False}
