"""From the engine's steps to messages for the balancer: one `tokens` notification a step.

What the steps say of the cache goes to the desk's `CachedPrefixes`, which tells of it by itself.
"""

from __future__ import annotations

from typing import Any

from msgspec import structs

from agent.chat.answer import answer_of
from agent.chat.output import joined
from agent.commands.calls import Call
from agent.commands.desk import Desk
from agent.commands.tokens_message import encode_tokens
from agent.engine.engine import EngineDeath
from agent.engine.frames import Accepted, CallFailed, CancelCall, Ended, Refused, Step
from protocol.codec import encode_error, encode_notification, encode_result
from protocol.generation import SamplerState, StepDelta, TokenLogprob, emitted_chars
from protocol.jsonrpc import CallId, ErrorObject
from protocol.prefix_chain import PrefixChain
from protocol.refusals import RefusalCode
from protocol.to_agent import Committed
from protocol.to_balancer import Failed, Finished, PrefillProgress, Tokens


def relay_step(desk: Desk, step: Step) -> None:
    """Answer calls that were accepted or refused, pass tokens on, end what ended."""
    desk.calls.standing = step.waiting
    for accepted in step.accepted:
        desk.calls.answered(accepted.call)
        _accepted(desk, accepted)
    for refused in step.refused:
        desk.calls.answered(refused.call)
        _refused(desk, refused)
    if step.tokens or step.ended or step.prefill:
        _tokens(desk, step)
    for ended in step.ended:
        _ended(desk, ended)
    for failed in step.failed:
        _failed(desk, failed)
    for news in step.cache:
        desk.cached.take(news)


def relay_death(desk: Desk, death: EngineDeath) -> None:
    """The engine took its calls with it: refuse those not committed yet, fail the others."""
    facts: dict[str, Any] = {"signal": death.signal, "phase": death.phase, "step": death.step}
    error = ErrorObject(code=int(RefusalCode.ENGINE_FAILED), message=death.message, data=facts)
    desk.calls.engine_gone()
    desk.moves.engine_gone()
    for query in desk.queries:
        desk.queries.close(query.number)
        desk.send(encode_error(query.id, error))
    desk.cached.forget_all()
    for call in desk.calls:
        if call.state == "rendering":
            continue
        desk.calls.end(call)
        if call.state == "committed":
            desk.send(encode_notification(Failed(call=call.id, error=error)))
        else:
            desk.send(encode_error(call.id, error))


def abandon_calls(desk: Desk) -> None:
    """Their link broke: end them in the engine, tell nobody."""
    for query in desk.queries:
        desk.queries.close(query.number)
        desk.engine.send(CancelCall(call=query.number))
        desk.moves.unwanted(query.number)
    for call in desk.calls:
        if call.state == "rendering":
            desk.calls.end(call)
        else:
            desk.calls.abandon(call)
            desk.engine.send(CancelCall(call=call.number))


def _accepted(desk: Desk, accepted: Accepted) -> None:
    call = desk.calls.numbered(accepted.call)
    if call is None:
        return
    request = call.request
    if not request.prompt_logprobs:  # else nothing of it is left in the cache
        chain = PrefixChain.of(request, cache_scope=request.cache_scope, known=request.prefix_chain)
        desk.cached.begin(call.number, chain, prompt_tokens=accepted.prompt_tokens)
    resume = request.resume
    if resume is not None:
        emitted = _replayed_chars(call, accepted.resumed_texts)
        if emitted != resume.emitted_chars:
            desk.calls.abandon(call)
            desk.engine.send(CancelCall(call=call.number))
            message = f"{emitted} characters here, {resume.emitted_chars} where it comes from"
            desk.refuse(call.id, RefusalCode.RESUME_MISMATCH, message)
            return
    committed = Committed(
        prompt_tokens=accepted.prompt_tokens,
        max_tokens=accepted.max_tokens,
        cached_tokens=accepted.cached_tokens,
    )
    desk.calls.commit(call)
    desk.send(encode_result(call.id, committed))


def _replayed_chars(call: Call, texts: tuple[str, ...]) -> int:
    """Bring the parser where the other agent's was; what that agent must have emitted."""
    call.answer += [call.parser.feed(text, tokens=1) for text in texts]
    return sum(map(emitted_chars, call.answer))


def _refused(desk: Desk, refused: Refused) -> None:
    call = desk.calls.numbered(refused.call)
    if call is None:
        desk.calls.abandoned_ended(refused.call)
    else:
        desk.end_refused(call, refused.code, refused.message, facts=refused.facts)


def _tokens(desk: Desk, step: Step) -> None:
    """All calls' news of the step in one message; text held back comes out with a call's end."""
    ids: list[CallId] = []
    token_ids: list[tuple[int, ...]] = []
    deltas: list[StepDelta] = []
    logprobs: list[tuple[TokenLogprob, ...]] = []
    has_logprobs = False
    states: dict[CallId, SamplerState] = {}
    ending = {ended.call for ended in step.ended if not _is_moved(desk, ended)}
    for part in step.tokens:
        call = desk.calls.numbered(part.call)
        if call is None:
            continue
        delta = call.parser.feed(part.text, len(part.token_ids))
        if part.call in ending:
            ending.remove(part.call)
            delta = joined(delta, call.parser.finish())
        if delta:
            call.answer.append(delta)
        ids.append(call.id)
        token_ids.append(part.token_ids)
        deltas.append(delta)
        logprobs.append(part.logprobs)
        has_logprobs = has_logprobs or bool(part.logprobs)
        if part.sampler_state:
            states[call.id] = part.sampler_state
    for number in ending:
        call = desk.calls.numbered(number)
        held = call.parser.finish() if call else ""
        if call and held:
            call.answer.append(held)
            ids.append(call.id)
            token_ids.append(())
            deltas.append(held)
            logprobs.append(())
    prefill = _prefill(desk, step) if step.prefill else ()
    if ids or prefill:
        tokens = Tokens(
            calls=tuple(ids),
            token_ids=tuple(token_ids),
            deltas=tuple(deltas),
            logprobs=tuple(logprobs) if has_logprobs else (),
            prefill=prefill,
            sampler_states=tuple(states.get(call_id, ()) for call_id in ids) if states else (),
        )
        for message in encode_tokens(tokens):
            desk.send(message)


def _is_moved(desk: Desk, ended: Ended) -> bool:
    """Whether a call ended to go on elsewhere, where its parser holds back the same text."""
    call = desk.calls.numbered(ended.call)
    return call is not None and call.released and ended.finish_reason == "cancelled"


def _prefill(desk: Desk, step: Step) -> tuple[PrefillProgress, ...]:
    known = ((desk.calls.numbered(part.call), part) for part in step.prefill)
    return tuple(PrefillProgress(call.id, part.done, part.total) for call, part in known if call)


def _ended(desk: Desk, ended: Ended) -> None:
    call = desk.calls.numbered(ended.call)
    answer = answer_of(call.answer) if call else None
    desk.cached.end(ended.call, answer, completion_tokens=ended.usage.completion_tokens)
    if call is None:
        desk.calls.abandoned_ended(ended.call)
        return
    if call.state != "committed":
        desk.end_refused(call, RefusalCode.CANCELLED, "cancelled before it began")
        return
    desk.calls.end(call)
    finished = Finished(
        call=call.id,
        finish_reason=call.parser.finish_reason(ended.finish_reason),
        usage=structs.replace(ended.usage, reasoning_tokens=call.parser.reasoning_tokens),
        timings=structs.replace(ended.timings, template_ms=call.template_ms),
        stop_sequence=ended.stop_sequence,
    )
    desk.send(encode_notification(finished))


def _failed(desk: Desk, failed: CallFailed) -> None:
    call = desk.calls.numbered(failed.call)
    desk.cached.end(failed.call, None, completion_tokens=0)
    if call is None:
        desk.calls.abandoned_ended(failed.call)
        return
    desk.calls.end(call)
    error = ErrorObject(code=failed.code, message=failed.message)
    if call.state == "committed":
        desk.send(encode_notification(Failed(call=call.id, error=error)))
    else:
        desk.send(encode_error(call.id, error))
