"""POST /v1/completions."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec
from aiohttp.web import StreamResponse

from balancer.http.answering import answer
from balancer.http.body import decode_json, read_body
from balancer.http.exchange import Exchange, Wiring
from balancer.http.openai.completion_answer import CompletionAnswer, CompletionChunks
from balancer.http.openai.ending import whole_body
from balancer.http.openai.grammars import grammar_param
from balancer.http.openai.prompts import (
    Prompt,
    best_of,
    check_echo,
    echoed_prompts,
    prompts_of,
    scores_prompts,
    wants_prompt_only,
)
from balancer.http.openai.schema import EXPECTED, CompletionRequest
from balancer.http.openai.scored_answer import ScoredAnswer, scored_body
from balancer.http.openai.stream_form import SSE
from balancer.http.openai.translate import completion_request
from balancer.http.shape import Generation

_DECODER = msgspec.json.Decoder(CompletionRequest)


async def completions(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """Read, translate, generate, answer. Raises `BalancerError`."""
    return await answer(exchange, wiring, await _asked(exchange, wiring))


async def _asked(exchange: Exchange, wiring: Wiring) -> Generation:
    """What the body asks for; nothing else of it is held while the request waits."""
    settings = wiring.settings
    data = await read_body(exchange, settings)
    body = decode_json(data, _DECODER, max_depth=settings.max_json_depth, expected=EXPECTED)
    prompts = prompts_of(body)
    check_echo(body, prompts)
    return Generation(
        request=completion_request(body, prompts, drawn_seed=secrets.randbits(63)),
        prompts=prompts if len(prompts) > 1 else (),
        choices=body.n or 1,
        best_of=best_of(body),
        id_prefix="cmpl-",
        body_bytes=len(data),
        timeout_s=body.timeout,
        is_stream=bool(body.stream),
        **_shapes(body, echoed_prompts(body, prompts)),
        form=SSE,
        logprobs_param="logprobs",
        prompt_param="prompt",
        grammar_param=grammar_param(body.response_format, body.grammar, body.json_schema),
    )


def _shapes(body: CompletionRequest, echoed: Sequence[Prompt]) -> dict[str, Any]:
    """What the choices' output becomes; `echoed` comes before it."""
    texts = [prompt for prompt in echoed if isinstance(prompt, str)]
    options = body.stream_options
    include_usage = options is not None and bool(options.include_usage)
    shapes = {"chunks": partial(CompletionChunks, include_usage=include_usage, echoed=texts)}
    if scores_prompts(body):
        prompt_only = wants_prompt_only(body)
        return {
            **shapes,
            "gathered": partial(ScoredAnswer, prompts=echoed, is_prompt_only=prompt_only),
            "whole": partial(scored_body, is_prompt_only=prompt_only),
        }
    with_logprobs = body.logprobs is not None
    return {
        **shapes,
        "gathered": partial(CompletionAnswer, with_logprobs=with_logprobs, echoed=texts),
        "whole": partial(whole_body, kind="text_completion"),
    }
