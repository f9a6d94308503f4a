"""`generate_tokens`: validate, render, check the grammar, submit. The engine's next step answers.

Deadlines are the balancer's business: it cancels. `deadline_ms` is not looked at here.
"""

from __future__ import annotations

import time

import structlog
from msgspec import structs

from agent.chat.output import parser_for
from agent.chat.template import template_variables
from agent.commands.calls import Call
from agent.commands.desk import Desk
from agent.commands.media import (
    as_frames,
    media_of,
    media_refusal,
    new_marker,
    without_markers,
)
from agent.commands.prepared import Refusal, prepared
from agent.commands.served import Served
from agent.commands.text_form import FREE, TextForm, checked_form
from agent.engine.frames import PauseCall, Sampling, Submit
from protocol.invariants import instance_of, present
from protocol.jsonrpc import CallId, Request, RpcCode
from protocol.refusals import RefusalCode
from protocol.to_agent import GenerateTokens

log = structlog.get_logger()

MAX_WAITING_CALLS = 256
"""Calls that may be on their way to a slot; more are refused at once."""
_SAMPLING_FIELDS = tuple(Sampling.__struct_fields__)

_Refusal = tuple[int, str]


def generate_tokens(desk: Desk, request: Request) -> None:
    """Take the call or refuse it; rendering goes on in a task of its own."""
    params = instance_of(request.params, GenerateTokens)
    refusal = _refusal(desk, params) or _media_refusal(desk, params)
    if refusal is not None:
        desk.refuse(request.id, *refusal)
        return
    call = desk.calls.open(request.id, params)
    if call is None:
        _refuse_duplicate(desk, request.id)
    elif params.messages is None and params.grammar is None and params.tool_choice == "auto":
        _submit(desk, call, params.prompt or "")
    else:
        desk.spawn(_prepare_and_submit(desk, call))


def _refuse_duplicate(desk: Desk, call_id: CallId) -> None:
    log.warning("duplicate call id refused", call=call_id)
    desk.refuse(call_id, RpcCode.INVALID_REQUEST, f"the call id {call_id!r} is in use")


def _refusal(desk: Desk, params: GenerateTokens) -> _Refusal | None:
    if (params.messages is None) == (params.prompt is None):
        return RpcCode.INVALID_PARAMS, "exactly one of `messages` and `prompt` must be set"
    if params.suffix is not None and params.prompt is None:
        return RefusalCode.UNSUPPORTED, "`suffix` goes with a `prompt`, not with `messages`"
    if desk.draining:
        return RefusalCode.DRAINING, "the agent is stopping"
    served = desk.served
    if served is None or desk.engine.facts is None:
        return RefusalCode.MODEL_NOT_LOADED, "the engine is not ready"
    if not served.answers_to(params.model):
        return (
            RefusalCode.MODEL_NOT_LOADED,
            f"this agent serves {served.model.name!r}, not {params.model!r}",
        )
    if params.messages is not None and (refusal := served.refusal_to_render()):
        return refusal
    if len(desk.calls) >= served.slots + MAX_WAITING_CALLS:
        return RefusalCode.NO_FREE_SLOT, "too many calls wait for a slot"
    return None


def _media_refusal(desk: Desk, params: GenerateTokens) -> _Refusal | None:
    return media_refusal(media_of(params), present(desk.engine.facts))


async def _prepare_and_submit(desk: Desk, call: Call) -> None:
    ready = await prepared(
        _ready(desk, call), call=call.id, or_else="the call could not be prepared"
    )
    if not desk.calls.is_open(call):
        return
    if isinstance(ready, Refusal):
        desk.end_refused(call, ready.code, ready.message, facts=ready.facts)
    else:
        _submit(desk, call, *ready)


async def _ready(desk: Desk, call: Call) -> tuple[str | tuple[int, ...], TextForm]:
    """The prompt, and what the text is held to."""
    served = present(desk.served)
    prompt = await _prompt(desk, call, served)
    form = await checked_form(desk, call, served, prompt)
    await _decode_media(desk, call)
    return prompt, form


async def _prompt(desk: Desk, call: Call, served: Served) -> str | tuple[int, ...]:
    if call.request.messages is None:
        return call.request.prompt or ""
    return await _rendered(desk, call, served)


async def _decode_media(desk: Desk, call: Call) -> None:
    """Have the call's images and sounds where the engine can open them."""
    parts = media_of(call.request)
    facts = desk.engine.facts
    if not parts or facts is None:
        return
    media = await desk.media.decode(
        parts, sample_rate=facts.audio_sample_rate, is_wanted=lambda: desk.calls.is_open(call)
    )
    if desk.calls.is_open(call) and desk.engine.facts is not None:
        desk.calls.hold_media(call, media)
    else:
        media.close()


async def _rendered(desk: Desk, call: Call, served: Served) -> str:
    """The prompt; the call gets its parser, where its media stand, and the time it took."""
    request = call.request
    started = time.monotonic()
    marker = new_marker()
    variables = template_variables(
        request,
        served.template,
        bos_token=served.bos_token,
        eos_token=served.eos_token,
        marker=marker,
    )
    rendered = await desk.renderer.render(
        served.template,
        variables,
        created=request.created,
        is_wanted=lambda: desk.calls.is_open(call),
    )
    call.template_ms = (time.monotonic() - started) * 1000
    if not desk.calls.is_open(call):
        return ""
    prompt, call.media_places = without_markers(rendered, marker, len(media_of(request)))
    call.parser = parser_for(
        served.output_format,
        prompt,
        tools=frozenset(tool.function.name for tool in request.tools),
        parameters={tool.function.name: tool.function.parameters for tool in request.tools},
        seed=request.seed,
        trace_id=request.trace_id,
    )
    return prompt


def _submit(
    desk: Desk,
    call: Call,
    prompt: str | tuple[int, ...],
    form: TextForm = FREE,
) -> None:
    if desk.engine.facts is None:
        desk.end_refused(call, RefusalCode.MODEL_NOT_LOADED, "the engine is not ready")
        return
    call.state = "submitted"
    request = call.request
    media = desk.calls.media_of(call)
    # emitted characters are compared after the parsers, on commit: that is what the client saw
    desk.engine.send(
        Submit(
            call=call.number,
            prompt=prompt,
            sampling=sampling_of(request),
            max_tokens=request.max_tokens,
            min_tokens=request.min_tokens,
            stop=request.stop,
            suffix=request.suffix,
            resume_ids=request.resume.token_ids if request.resume else (),
            resume_emitted_chars=None,
            resume_sampler_state=request.resume.sampler_state if request.resume else (),
            scope=request.cache_scope,
            grammar=form.grammar,
            reasoning=form.reasoning,
            tools=form.tools,
            adapters=request.adapters,
            priority=request.priority,
            context_shift=request.context_shift,
            media=as_frames(media, call.media_places) if media is not None else (),
            shown_specials=_shown_specials(desk, request),
            prompt_logprobs=request.prompt_logprobs,
        )
    )
    if call.paused:
        desk.engine.send(PauseCall(call=call.number))


def _shown_specials(desk: Desk, request: GenerateTokens) -> tuple[str, ...]:
    """Control tokens whose texts the call's parsers need; a prompt that is no chat has none."""
    if request.messages is None or desk.served is None:
        return ()
    return desk.served.output_format.specials(with_tools=bool(request.tools))


def sampling_of(request: GenerateTokens) -> Sampling:
    """The sampler chain's part of a request."""
    return structs.replace(
        Sampling(), **{name: getattr(request, name) for name in _SAMPLING_FIELDS}
    )
