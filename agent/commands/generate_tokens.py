"""`generate_tokens`: validate, render, submit. The answer comes with the engine's next step.

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
from agent.commands.served import Served
from agent.engine.frames import PauseCall, Sampling, Submit
from agent.errors import TemplateBusy, TemplateRefused
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
    params = request.params
    assert isinstance(params, GenerateTokens)
    refusal = _refusal(desk, params)
    if refusal is not None:
        desk.refuse(request.id, *refusal)
        return
    call = desk.calls.open(request.id, params)
    if call is None:
        _refuse_duplicate(desk, request.id)
    elif params.messages is None:
        _submit(desk, call, params.prompt or "")
    else:
        desk.spawn(_render_and_submit(desk, call))


def _refuse_duplicate(desk: Desk, call_id: CallId) -> None:
    log.warning("duplicate call id refused", call=call_id)
    desk.refuse(call_id, RpcCode.INVALID_REQUEST, f"the call id {call_id!r} is in use")


def _refusal(desk: Desk, params: GenerateTokens) -> _Refusal | None:
    if (params.messages is None) == (params.prompt is None):
        return RpcCode.INVALID_PARAMS, "exactly one of `messages` and `prompt` must be set"
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
    if params.messages is not None and not served.template:
        return (
            RefusalCode.UNSUPPORTED,
            f"the model {served.model.name!r} has no chat template: use /v1/completions, or start "
            "its agent with --chat-template FILE",
        )
    if len(desk.calls) >= served.slots + MAX_WAITING_CALLS:
        return RefusalCode.NO_FREE_SLOT, "too many calls wait for a slot"
    return None


async def _render_and_submit(desk: Desk, call: Call) -> None:
    """The outermost edge of a call's task: nothing is raised."""
    served = desk.served
    assert served is not None
    try:
        prompt = await _rendered(desk, call, served)
    except TemplateRefused as refusal:
        _refuse_if_open(desk, call, RefusalCode.INVALID_TEMPLATE, str(refusal))
    except TemplateBusy as busy:
        _refuse_if_open(desk, call, RefusalCode.NO_FREE_SLOT, str(busy))
    except Exception:
        log.exception("rendering failed", call=call.id)
        _refuse_if_open(desk, call, RpcCode.INTERNAL_ERROR, "the chat could not be rendered")
    else:
        if desk.calls.is_open(call):
            _submit(desk, call, prompt)


async def _rendered(desk: Desk, call: Call, served: Served) -> str:
    """The prompt; the call gets its parser and the time it took."""
    request = call.request
    started = time.monotonic()
    variables = template_variables(
        request, served.template, bos_token=served.bos_token, eos_token=served.eos_token
    )
    prompt = await desk.renderer.render(
        served.template,
        variables,
        created=request.created,
        is_wanted=lambda: desk.calls.is_open(call),
    )
    call.template_ms = (time.monotonic() - started) * 1000
    call.parser = parser_for(
        served.output_format,
        prompt,
        with_tools=bool(request.tools),
        seed=request.seed,
        trace_id=request.trace_id,
    )
    return prompt


def _refuse_if_open(desk: Desk, call: Call, code: int, message: str) -> None:
    if desk.calls.is_open(call):
        desk.end_refused(call, code, message)


def _submit(desk: Desk, call: Call, prompt: str | tuple[int, ...]) -> None:
    if desk.engine.facts is None:
        desk.end_refused(call, RefusalCode.MODEL_NOT_LOADED, "the engine is not ready")
        return
    call.state = "submitted"
    request = call.request
    # emitted characters are compared after the parsers, on commit: that is what the client saw
    desk.engine.send(
        Submit(
            call=call.number,
            prompt=prompt,
            sampling=sampling_of(request),
            max_tokens=request.max_tokens,
            min_tokens=request.min_tokens,
            stop=request.stop,
            resume_ids=request.resume.token_ids if request.resume else (),
            resume_emitted_chars=None,
        )
    )
    if call.paused:
        desk.engine.send(PauseCall(call=call.number))


def sampling_of(request: GenerateTokens) -> Sampling:
    """The sampler chain's part of a request."""
    return structs.replace(
        Sampling(), **{name: getattr(request, name) for name in _SAMPLING_FIELDS}
    )
