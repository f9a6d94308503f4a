"""POST /inference."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from functools import partial

import msgspec
from aiohttp.web import StreamResponse

from balancer.dispatch.sink import Outcome
from balancer.errors import ClientMistake
from balancer.http.answering import answer
from balancer.http.body import decode_json, read_body
from balancer.http.exchange import Exchange, Wiring
from balancer.http.inference.answer import GatheredText, inference_body
from balancer.http.inference.schema import EXPECTED, InferenceBody, Parameters
from balancer.http.inference.translate import inference_request, place_of
from balancer.http.openai.completion_answer import CompletionChunks
from balancer.http.openai.grammars import grammar_param
from balancer.http.openai.stream_form import SSE
from balancer.http.shape import AnswerHead, Generation

_DECODER = msgspec.json.Decoder(InferenceBody)


async def inference(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """Read, translate, generate, answer. Raises `BalancerError`."""
    settings = wiring.settings
    data = await read_body(exchange, settings)
    body = decode_json(data, _DECODER, max_depth=settings.max_json_depth, expected=EXPECTED)
    try:
        return await answer(exchange, wiring, _generation(wiring, body, body_bytes=len(data)))
    except ClientMistake as error:
        error.param = place_of(error.param)
        raise


def _generation(wiring: Wiring, body: InferenceBody, *, body_bytes: int) -> Generation:
    def whole(_: AnswerHead, texts: Sequence[msgspec.Raw], outcome: Outcome) -> bytes:
        version = body.model_version or _version(wiring, outcome.agent)
        return inference_body(texts, outcome, model_id=body.model_id, model_version=version)

    given = body.parameters or Parameters()
    return Generation(
        request=inference_request(body, drawn_seed=secrets.randbits(63)),
        id_prefix="inf-",
        body_bytes=body_bytes,
        timeout_s=given.timeout,
        is_stream=False,
        chunks=partial(CompletionChunks, include_usage=False),  # of streams, as is `form`
        gathered=GatheredText,
        whole=whole,
        form=SSE,
        grammar_param=grammar_param(given.response_format, given.grammar, given.json_schema),
    )


def _version(wiring: Wiring, agent_name: str) -> str:
    """Of what the agent serves that answered; the first, where it has gone meanwhile."""
    agent = wiring.roster.agent(agent_name)
    return "1" if agent is None or agent.model is None else agent.model.version
