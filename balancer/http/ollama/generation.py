"""POST /api/chat and POST /api/generate."""

from __future__ import annotations

import secrets
from functools import partial

import msgspec
from aiohttp.web import StreamResponse

from balancer.fleet.roster import Roster
from balancer.http.answering import answer
from balancer.http.answers import json_answer
from balancer.http.body import decode_json, read_body
from balancer.http.exchange import Exchange, Wiring
from balancer.http.ollama.answer import (
    MESSAGE,
    RESPONSE,
    AnswerLines,
    GatheredAnswer,
    Shape,
    loaded_answer,
    whole_answer,
)
from balancer.http.ollama.errors import LINES
from balancer.http.ollama.names import served_model, served_name
from balancer.http.ollama.schema import EXPECTED, ChatRequest, GenerateRequest, GenerationFields
from balancer.http.ollama.translate import asks_to_load, chat_request, generate_request
from balancer.http.shape import Generation
from protocol.generation import GenerationRequest

_CHAT = msgspec.json.Decoder(ChatRequest)
_GENERATE = msgspec.json.Decoder(GenerateRequest)


async def chat(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """Read, translate, generate, answer. Raises `BalancerError`."""
    asked = _asked_chat(exchange, wiring, await read_body(exchange, wiring.settings))
    return asked if isinstance(asked, StreamResponse) else await answer(exchange, wiring, asked)


async def generate(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """Read, translate, generate, answer. Raises `BalancerError`."""
    asked = _asked_text(exchange, wiring, await read_body(exchange, wiring.settings))
    return asked if isinstance(asked, StreamResponse) else await answer(exchange, wiring, asked)


def _asked_chat(exchange: Exchange, wiring: Wiring, data: bytes) -> Generation | StreamResponse:
    """What the body asks for, or what is known at once; nothing else of it is held while the
    request waits."""
    max_depth = wiring.settings.max_json_depth
    body = decode_json(data, _CHAT, max_depth=max_depth, expected=EXPECTED)
    if asks_to_load(body):
        return _loaded(exchange, wiring, body, MESSAGE)
    request = chat_request(
        body, model=served_name(body.model, wiring.roster), drawn_seed=secrets.randbits(63)
    )
    return _generation(body, request, shape=MESSAGE, body_bytes=len(data))


def _asked_text(exchange: Exchange, wiring: Wiring, data: bytes) -> Generation | StreamResponse:
    """As `_asked_chat`."""
    max_depth = wiring.settings.max_json_depth
    body = decode_json(data, _GENERATE, max_depth=max_depth, expected=EXPECTED)
    if asks_to_load(body):
        return _loaded(exchange, wiring, body, RESPONSE)
    model = served_name(body.model, wiring.roster)
    request = generate_request(
        body,
        model=model,
        has_template=_has_template(model, wiring.roster),
        drawn_seed=secrets.randbits(63),
    )
    return _generation(body, request, shape=RESPONSE, body_bytes=len(data))


def _generation(
    body: GenerationFields, request: GenerationRequest, *, shape: Shape, body_bytes: int
) -> Generation:
    return Generation(
        request=request,
        id_prefix="",
        body_bytes=body_bytes,
        is_stream=body.stream is not False,
        chunks=partial(AnswerLines, shape=shape, model=body.model),
        gathered=partial(GatheredAnswer, shape=shape),
        whole=partial(whole_answer, model=body.model),
        form=LINES,
        grammar_param="format",
    )


def _loaded(
    exchange: Exchange, wiring: Wiring, body: GenerationFields, shape: Shape
) -> StreamResponse:
    """Agents have their models in memory before anybody asks."""
    name = served_model(body.model, wiring.roster).name
    loaded = loaded_answer(body.model or name, exchange.created, shape=shape)
    return json_answer(exchange, loaded)


def _has_template(model: str, roster: Roster) -> bool:
    """Whether prompts can be shown to the model as chats; of one that is not there yet: yes."""
    agents = roster.candidates(model) if model else roster.agents()
    served = [agent.model for agent in agents if agent.model is not None]
    return not served or any(one.has_chat_template for one in served)
