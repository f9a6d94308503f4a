"""POST /v1/chat/completions."""

from __future__ import annotations

import secrets
from functools import partial

import msgspec
from aiohttp.web import StreamResponse

from balancer.http.answering import answer
from balancer.http.body import decode_json, read_body
from balancer.http.exchange import Exchange, Wiring
from balancer.http.openai.chat_answer import ChatAnswer, ChatChunks
from balancer.http.openai.ending import whole_body
from balancer.http.openai.grammars import grammar_param
from balancer.http.openai.parts import remote_images
from balancer.http.openai.schema import EXPECTED, ChatCompletionRequest
from balancer.http.openai.stream_form import SSE
from balancer.http.openai.translate import chat_request
from balancer.http.remote_images import fetch_images
from balancer.http.shape import Generation

_DECODER = msgspec.json.Decoder(ChatCompletionRequest)
_CHUNKS = {wanted: partial(ChatChunks, include_usage=wanted) for wanted in (False, True)}
_GATHERED = {wanted: partial(ChatAnswer, with_logprobs=wanted) for wanted in (False, True)}
_WHOLE = partial(whole_body, kind="chat.completion")


async def chat_completions(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """Read, translate, generate, answer. Raises `BalancerError`."""
    return await answer(exchange, wiring, await _asked(exchange, wiring))


async def _asked(exchange: Exchange, wiring: Wiring) -> Generation:
    """What the body asks for; nothing else of it is held while the request waits."""
    settings = wiring.settings
    data = await read_body(exchange, settings)
    body = decode_json(data, _DECODER, max_depth=settings.max_json_depth, expected=EXPECTED)
    fetched_bytes = await fetch_images(exchange, wiring, body.messages, remote_images)
    options = body.stream_options
    return Generation(
        request=chat_request(body, drawn_seed=secrets.randbits(63)),
        choices=body.n or 1,
        id_prefix="chatcmpl-",
        body_bytes=len(data) + fetched_bytes,
        timeout_s=body.timeout,
        is_stream=bool(body.stream),
        chunks=_CHUNKS[options is not None and bool(options.include_usage)],
        gathered=_GATHERED[bool(body.logprobs)],
        whole=_WHOLE,
        form=SSE,
        grammar_param=grammar_param(body.response_format, body.grammar, body.json_schema),
    )
