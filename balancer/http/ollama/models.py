"""What is served, as Ollama says it: GET /, /api/tags, /api/ps, /api/version and POST /api/show."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
from aiohttp.web import Response, StreamResponse

from balancer.http.answers import SECURITY_HEADERS, value_answer
from balancer.http.body import decode_json, read_body
from balancer.http.exchange import Exchange, Wiring
from balancer.http.iso_time import iso_time
from balancer.http.listed_models import check_listed, is_adapted, models_for
from balancer.http.ollama.names import served_model, served_name, tagged
from balancer.http.ollama.schema import EXPECTED, ShowRequest
from balancer.policy.identity.principal import Principal
from protocol.models import ServedModel

API_VERSION = "0.12.6"
"""The release of Ollama whose API these routes follow: clients compare it with what they need."""
NEVER = "2999-12-31T00:00:00Z"
"""When a model leaves memory by itself."""

_SHOW = msgspec.json.Decoder(ShowRequest)
_SIZES = ((10**9, "B", 1), (10**6, "M", 2), (10**3, "K", 0))
"""How parameters are counted: a unit, its letter, and digits after the point."""


async def greeting(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """What Ollama's command line looks for before all else, and other clients read."""
    del wiring
    return Response(text="Ollama is running", headers={**SECURITY_HEADERS, **exchange.headers()})


async def version(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """Of the API, not of this program."""
    del wiring
    return value_answer(exchange, {"version": API_VERSION})


async def tags(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """Those that agents serve now, with what adapters make of them."""
    modified = {"modified_at": iso_time(wiring.started)}
    return value_answer(exchange, {"models": _rows(exchange.principal, wiring, modified)})


async def running(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """The same: what is served is in memory, and stays there."""
    rows = _rows(exchange.principal, wiring, {"expires_at": NEVER})
    return value_answer(exchange, {"models": rows})


async def show(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """What is known of one model. Raises `BalancerError`."""
    settings = wiring.settings
    data = await read_body(exchange, settings)
    body = decode_json(data, _SHOW, max_depth=settings.max_json_depth, expected=EXPECTED)
    given = body.model or body.name
    name = served_name(given, wiring.roster)
    if name:
        check_listed(name, exchange.principal)
    model = served_model(given, wiring.roster)
    shown = {
        "modelfile": "",
        "template": "",
        "parameters": f"{'num_ctx':<30} {model.context_tokens}",
        "modified_at": iso_time(wiring.started),
        "details": _details(name, model),
        "model_info": _model_info(model),
        "capabilities": _capabilities(name, model),
    }
    return value_answer(exchange, shown)


def _rows(principal: Principal, wiring: Wiring, more: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": tagged(name),
            "model": tagged(name),
            "size": model.size_bytes,
            "digest": _digest(name, model),
            "details": _details(name, model),
            "context_length": model.context_tokens,
            **more,
        }
        for name, model in models_for(principal, wiring.roster)
    ]


def _digest(name: str, model: ServedModel) -> str:
    """Of what an agent says of the model, and of its adapter: it changes when the model does."""
    adapter = model.adapter_names().get(name, "")
    return hashlib.sha256(msgspec.json.encode(model) + adapter.encode()).hexdigest()


def _details(name: str, model: ServedModel) -> dict[str, Any]:
    return {
        "parent_model": model.name if is_adapted(name, model) else "",
        "format": "gguf",
        "family": model.architecture,
        "families": [model.architecture],
        "parameter_size": _in_words(model.parameters),
        "quantization_level": "unknown",
    }


def _in_words(parameters: int) -> str:
    for unit, letter, digits in _SIZES:
        if parameters >= unit:
            return f"{parameters / unit:.{digits}f}{letter}"
    return str(parameters)


def _model_info(model: ServedModel) -> dict[str, Any]:
    family = model.architecture
    info = {
        "general.architecture": family,
        "general.parameter_count": model.parameters,
        f"{family}.context_length": model.trained_context_tokens or model.context_tokens,
    }
    if model.embedding_dimensions:
        info[f"{family}.embedding_length"] = model.embedding_dimensions
    return info


def _capabilities(name: str, model: ServedModel) -> list[str]:
    """Tools go through the chat template, so every model that has one is offered them."""
    has = {
        "completion": model.generates,
        "tools": model.generates and model.has_chat_template,
        "insert": model.infills,
        "vision": "vision" in model.modalities,
        "embedding": model.embedding_dimensions > 0 and not is_adapted(name, model),
    }
    return [name for name, is_there in has.items() if is_there]
