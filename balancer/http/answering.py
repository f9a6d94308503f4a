"""Carries generations from the dispatcher to their client: as a stream of events or as JSON.

All families of APIs share this; they differ in the shapes that they hand in.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence

from aiohttp.web import StreamResponse

from balancer.dispatch.choices import Answers, ChoiceSink, generate_choices
from balancer.errors import Forbidden, InvalidRequest, RequestTooLarge
from balancer.http.answers import json_answer, shown_error
from balancer.http.content_log import HeardSink, log_content
from balancer.http.exchange import Exchange, Wiring
from balancer.http.replay import Replay
from balancer.http.sanitising import flush, sanitised_generation, sanitised_sinks
from balancer.http.shape import Generation, StreamForm
from balancer.http.sinks import (
    Course,
    CourseSink,
    GatheringSink,
    StreamingSink,
    gathered_body,
)
from balancer.http.sse import EventStream
from balancer.http.token_meter import metered
from balancer.settings import MIB

__all__ = ["Generation", "answer", "read_replay"]

MOST_CHOICE_BYTES = 64 * MIB
"""Bytes of a body times its choices: every agent that works on one is sent the whole request."""

MOST_GATHERED_LOGPROBS = 128
"""Log probabilities of one position, of all choices, that an answer in one piece may have: they
are held until its end. A stream holds none."""
_IS_TOOL = re.compile(r"tools\[\d+\]")


def answer(exchange: Exchange, wiring: Wiring, generation: Generation) -> Awaitable[StreamResponse]:
    """Run the generations and answer, when it is awaited. Raises `BalancerError` while a real
    status is possible."""
    if wiring.settings.sanitise:
        return _answer_sanitised(exchange, wiring, generation)
    return _answer(exchange, wiring, generation)


async def _answer_sanitised(
    exchange: Exchange, wiring: Wiring, generation: Generation
) -> StreamResponse:
    rules = wiring.settings.sanitise
    return await _answer(exchange, wiring, await sanitised_generation(generation, rules))


def _answer(
    exchange: Exchange, wiring: Wiring, generation: Generation
) -> Awaitable[StreamResponse]:
    _check_priority(exchange, generation)
    _check_size(generation)
    if not generation.is_stream:
        _check_logprobs(generation)
        return _answer_whole(exchange, wiring, generation)
    if generation.form.comment and _is_wished(exchange, "X-Paddler-Resumable"):
        return _answer_resumable(exchange, wiring, generation)
    return _answer_stream(exchange, wiring, generation)


async def _answer_whole(
    exchange: Exchange, wiring: Wiring, generation: Generation
) -> StreamResponse:
    course = Course(exchange, wiring, generation)
    sinks = [GatheringSink(course) for _ in range(generation.made)]
    answers = await _generate(exchange, wiring, course, sinks)
    course.agent = answers.whole.agent  # another may have begun it
    return json_answer(
        exchange, await gathered_body(course, sinks, answers), headers=course.headers()
    )


def _check_priority(exchange: Exchange, generation: Generation) -> None:
    """Others give way to a call of a higher priority."""
    highest, priority = exchange.principal.highest_priority, generation.request.priority
    if priority > highest:
        raise Forbidden(
            f"`priority` is {priority}, and at most {highest} for you: what is above it belongs to "
            "admins",
            param="priority",
            details={"parameter": "priority", "received_value": priority},
        )


def _check_size(generation: Generation) -> None:
    """One choice is bounded by the body's own limit; several prompts share it."""
    choices, size_bytes = generation.made_of_each, generation.body_bytes
    if choices > 1 and choices * size_bytes > MOST_CHOICE_BYTES:
        raise RequestTooLarge(
            f"{choices} choices of a request of {size_bytes} bytes are too much at once; ask for "
            f"at most {max(MOST_CHOICE_BYTES // size_bytes, 1)}, or shorten the request",
            param="n",
            details={"parameter": "n", "limit_bytes": MOST_CHOICE_BYTES},
        )


def _check_logprobs(generation: Generation) -> None:
    """What is gathered is held until its end."""
    top_logprobs, choices = generation.request.top_logprobs, generation.made
    if top_logprobs is None or choices * (top_logprobs + 1) <= MOST_GATHERED_LOGPROBS:
        return
    name = generation.logprobs_param
    what = "prompts times `n`" if generation.prompts else "`n`"
    raise InvalidRequest(
        f"{what} times (`{name}` + 1) is {choices * (top_logprobs + 1)}, and at most "
        f"{MOST_GATHERED_LOGPROBS} in an answer that is not streamed; ask for at most "
        f"{MOST_GATHERED_LOGPROBS // (top_logprobs + 1)} choices or for fewer log probabilities, "
        "or send `stream: true`",
        code="invalid_value",
        param="n",
        details={"parameter": "n", "received_value": choices, name: top_logprobs},
    )


async def _answer_stream(
    exchange: Exchange, wiring: Wiring, generation: Generation
) -> StreamResponse:
    course = Course(exchange, wiring, generation)
    stream = _event_stream(exchange, wiring, course)
    sinks = _streaming_sinks(course, stream)
    try:
        return stream.finish(_closing(sinks, await _generate(exchange, wiring, course, sinks)))
    except Exception as error:
        if not stream.is_open:
            raise
        return stream.finish(_error_event(exchange, generation.form, error))
    finally:
        stream.close()


def _is_wished(exchange: Exchange, header: str) -> bool:
    """Whether a header that switches something on is there, and does not say no."""
    return exchange.request.headers.get(header, "").strip().lower() not in ("", "0", "false")


def _event_stream(exchange: Exchange, wiring: Wiring, course: Course) -> EventStream:
    """Its client may want to know where the request stands while it waits."""
    form = course.generation.form
    tells_place = form.comment and _is_wished(exchange, "X-Paddler-Queue-Updates")
    return EventStream(
        exchange,
        settings=wiring.settings,
        metrics=wiring.metrics,
        form=form,
        head=course.headers,
        queued=_place(exchange, wiring, course) if tells_place else None,
    )


def _place(exchange: Exchange, wiring: Wiring, course: Course) -> Callable[[], bytes]:
    """What says where the request stands."""

    def place() -> bytes:
        row = wiring.dispatcher.places.of(exchange.id)
        if row is None:  # it runs, or it came after the others were looked up
            return b"" if course.flows.attempts else course.generation.form.comment
        return b": queue position=%d estimated_start_s=%d\n\n" % (
            row.position or 0,
            row.estimated_start_s or 0,
        )

    return place


def _streaming_sinks(course: Course, stream: EventStream | Replay) -> list[StreamingSink]:
    """One for each generation. Not in the coroutine that waits, where it would cost closures."""
    return [StreamingSink(course, stream, index) for index in range(course.generation.made)]


def _closing(sinks: Sequence[StreamingSink], answers: Answers) -> bytes:
    """The last events."""
    return sinks[answers.last].closing(answers.outcomes[answers.last], answers.whole)


def _error_event(exchange: Exchange, form: StreamForm, error: Exception) -> bytes:
    return form.error_event(shown_error(exchange, error), exchange.id)


async def _answer_resumable(
    exchange: Exchange, wiring: Wiring, generation: Generation
) -> StreamResponse:
    """As a stream, but the generations belong to its replay, and outlive the connection."""
    course = Course(exchange, wiring, generation)
    stream = _event_stream(exchange, wiring, course)
    replay = wiring.replays.open(exchange.id, exchange.principal.tenant, form=generation.form)
    replay.headers = course.headers
    sinks = _streaming_sinks(course, replay)

    async def fill() -> None:
        try:
            replay.send(_closing(sinks, await _generate(exchange, wiring, course, sinks)))
        except Exception as error:  # noqa: BLE001 (a task's outermost edge: readers are told)
            if any(sink.has_begun for sink in sinks):
                replay.send(_error_event(exchange, generation.form, error))
            else:
                replay.error = error

    exchange.stay()
    replay.run(fill(), exchange.leave)
    return await read_replay(exchange, replay, stream)


async def read_replay(
    exchange: Exchange, replay: Replay, stream: EventStream, *, start: int = 0
) -> StreamResponse:
    """Write a stream's events from one on, until its end. Raises as `answer` does."""
    try:
        await replay.read_by(stream, start=start)
        if replay.error is None:
            stream.open()
            return stream.finish(b"")
        if not stream.is_open:
            raise replay.error
        return stream.finish(_error_event(exchange, replay.form, replay.error))
    finally:
        stream.close()


async def _generate(
    exchange: Exchange,
    wiring: Wiring,
    course: Course,
    sinks: Sequence[CourseSink],
) -> Answers:
    """Let the sinks have what is generated."""
    generation = course.generation
    settings = wiring.settings
    heard = [HeardSink(sink) for sink in sinks] if settings.log_content else ()
    takers: Sequence[ChoiceSink] = heard or sinks
    if settings.sanitise:
        takers = sanitised_sinks(takers, settings.sanitise)
    meter = await metered(exchange, generation, wiring.prompt_counter)
    try:
        answers = await generate_choices(
            wiring.dispatcher,
            generation.request if meter is None else meter.capped(generation.request),
            exchange.principal,
            takers,
            prompts=generation.prompts,
            request_id=exchange.id,
            timeout_s=generation.timeout_s,
            body_bytes=generation.body_bytes,
            meter=meter,
        )
        if settings.sanitise:
            flush(takers)
    except InvalidRequest as error:
        error.param = _clients_name(error.param, generation)
        raise
    finally:
        if meter is not None:
            meter.settle()
        if heard:
            log_content(exchange.id, generation, heard)
    whole = answers.whole
    exchange.facts.update(
        agent=whole.agent,
        attempts=whole.attempts,
        queue_ms=round(whole.queue_ms, 3),
        ttft_ms=round(whole.ttft_ms, 3),
        prompt_tokens=whole.usage.prompt_tokens,
        completion_tokens=whole.usage.completion_tokens,
        finish_reason=whole.finish_reason,
    )
    if len(sinks) > 1:
        exchange.facts["choices"] = len(sinks)
    if generation.before_end is not None:
        await generation.before_end(course.head(), whole)
    return answers


def _clients_name(param: str | None, generation: Generation) -> str | None:
    """What the client calls a parameter that an agent named: it knows nothing of APIs."""
    match param:
        case "grammar":
            return generation.grammar_param
        case "messages":
            return generation.prompt_param
        case "adapters":
            return "model"
    if param is not None and _IS_TOOL.fullmatch(param):
        return f"{param}.{generation.tool_schema}"
    return param
