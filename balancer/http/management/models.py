"""/models: what is served now, by whom, and what its file and its agent tell of it."""

from __future__ import annotations

import asyncio
from typing import Any

from balancer.errors import BalancerError, ModelNotFound
from balancer.http.calls import Call
from balancer.http.exchange import Wiring
from balancer.http.management.rows import model_row, model_rows
from protocol.descriptions import ModelDescription
from protocol.invariants import instance_of
from protocol.to_agent import DescribeModel

DESCRIBED_WITHIN_S = 5.0
"""An agent that takes longer is not waited for: the rest is known without it."""


async def list_models(call: Call, wiring: Wiring) -> dict[str, Any]:
    """Every name that a request may use; for clients of either kind of list."""
    del call
    rows = model_rows(wiring.roster, created=wiring.started)
    return {"object": "list", "data": rows, "models": [row["id"] for row in rows]}


async def model_metadata(call: Call, wiring: Wiring) -> dict[str, Any]:
    """One of them with its chat template and formats, which an agent is asked for; null with the
    reason in `unknown` where none can tell. Raises `ModelNotFound`."""
    name = call.text("name")
    agents = wiring.roster.candidates(name)
    model = next((agent.model for agent in agents if agent.model is not None), None)
    if model is None:
        raise ModelNotFound(
            f"nobody serves a model {name[:200]!r}; GET /models lists those that are served",
            param="name",
            details={"model": name[:200]},
        )
    row = model_row(name, model, agents, created=wiring.started)
    return {**row, **await _described(call, wiring, name)}


async def _described(call: Call, wiring: Wiring, name: str) -> dict[str, Any]:
    found, unknown = ModelDescription(), None
    try:
        async with asyncio.timeout(DESCRIBED_WITHIN_S):
            question = DescribeModel(model=name)
            answered = await wiring.asker.ask(question, call.principal, request_id=call.id)
        found = instance_of(answered.answer, ModelDescription)
    except TimeoutError:
        unknown = f"no agent told within {DESCRIBED_WITHIN_S:g} s"
    except BalancerError as error:
        unknown = error.message
    return {
        "chat_template": found.chat_template if unknown is None else None,
        "chat_template_chars": found.template_chars if unknown is None else None,
        "bos_token": found.bos_token or None,
        "eos_token": found.eos_token or None,
        "reasoning_format": found.reasoning_format or None,
        "tool_format": found.tool_format or None,
        "unknown": unknown,
    }
