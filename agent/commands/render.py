"""`render`: the prompt that a chat makes, and of how many tokens it is.

Rendering goes on in a task of its own; the tokens are then counted by the engine. How many wait for
the template's worker is bounded there, for the engine here as for any query.
"""

from __future__ import annotations

from agent.chat.template import template_variables
from agent.commands.asking import open_query
from agent.commands.desk import Desk
from agent.commands.media import media_of
from agent.commands.prepared import Refusal, prepared
from agent.commands.queries import Query
from agent.commands.served import Served
from agent.engine.query_frames import TokenizeCall
from protocol.codec import encode_result
from protocol.generation import GenerationRequest
from protocol.invariants import instance_of, present
from protocol.jsonrpc import Request
from protocol.refusals import RefusalCode
from protocol.rendering import Rendered
from protocol.to_agent import Render


def render(desk: Desk, request: Request) -> None:
    """Take the query or refuse it."""
    params = instance_of(request.params, Render)
    query = open_query(desk, request, params.model)
    if query is None:
        return
    served = present(desk.served)
    chat = GenerationRequest(
        messages=params.messages,
        tools=params.tools,
        enable_thinking=params.enable_thinking,
        template_arguments=params.template_arguments,
    )
    if refusal := served.refusal_to_render():
        _refuse(desk, query, *refusal)
    elif media_of(chat):
        message = "`messages` hold images or sounds, and only text is rendered: leave them out"
        _refuse(desk, query, RefusalCode.UNSUPPORTED, message, param="messages")
    else:
        desk.spawn(_render(desk, query, served, params, chat))


async def _render(
    desk: Desk, query: Query, served: Served, params: Render, chat: GenerationRequest
) -> None:
    ready = await prepared(
        _prompt(desk, query, served, params, chat),
        call=query.id,
        or_else="the messages could not be rendered",
    )
    if isinstance(ready, Refusal):
        _refuse(desk, query, ready.code, ready.message, **ready.facts)
    elif desk.queries.is_open(query):
        _answer(desk, query, params, ready)


async def _prompt(
    desk: Desk, query: Query, served: Served, params: Render, chat: GenerationRequest
) -> str:
    return await desk.renderer.render(
        served.template,
        template_variables(
            chat, served.template, bos_token=served.bos_token, eos_token=served.eos_token
        ),
        created=params.created,
        is_wanted=lambda: desk.queries.is_open(query),
    )


def _answer(desk: Desk, query: Query, params: Render, prompt: str) -> None:
    """At once, or when the engine has counted."""
    shown = prompt if params.with_prompt else ""
    if params.with_count:
        query.prompt = shown
        desk.engine.send(TokenizeCall(call=query.number, text=prompt, as_prompt=True))
    else:
        desk.queries.close(query.number)
        desk.send(encode_result(query.id, Rendered(prompt=shown)))


def _refuse(desk: Desk, query: Query, code: int, message: str, **facts: int | str) -> None:
    """Answer it with an error, unless it is over."""
    if desk.queries.close(query.number) is not None:
        desk.refuse(query.id, code, message, facts=facts)
