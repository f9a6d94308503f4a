"""OpenAI's requests for responses as canonical ones, and what answers repeat of them. Pure: raises
`InvalidRequest`, touches nothing else.

Every parameter is honoured or refused by name; only fields nobody declared are ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from balancer.http.attached import check_media
from balancer.http.faults import missing, refuse_unless_harmless, refuse_value, unsupported
from balancer.http.offered_tools import function_tool
from balancer.http.openai.grammars import json_schema_grammar
from balancer.http.openai.refused import HARMLESS_CACHE_OPTIONS
from balancer.http.openai.tools import tool_fields
from balancer.http.openai.translate import THINKING_BY_EFFORT
from balancer.http.responses.items import items_in, messages_of
from balancer.http.responses.schema import (
    FormatIn,
    InputTokensRequest,
    ItemIn,
    PromptFields,
    ReasoningIn,
    ResponseRequest,
    ToolIn,
)
from protocol.chat import Message, Tool
from protocol.generation import MAX_MESSAGES, GenerationRequest
from protocol.grammar import Grammar
from protocol.to_agent import Render

LOGPROBS = "message.output_text.logprobs"
INCLUDES = (LOGPROBS, "message.input_image.image_url", "reasoning.encrypted_content")
"""Images are always shown where they were sent. Thoughts are never encrypted: they come in the
clear, and may be sent back so."""

_HARMLESS: dict[str, tuple[Any, ...]] = {
    "access_programs": (),
    "background": (False,),
    "background_options": (),
    "context_management": ([],),
    "conversation": (),
    "image": (),
    "max_tool_calls": (),
    "moderation": (),
    "personality": (),
    "prompt": (),
    "prompt_cache_options": HARMLESS_CACHE_OPTIONS,
    "prompt_cache_retention": ("in_memory", "24h"),
    "service_tier": ("auto", "default"),
    "truncation": ("disabled",),
}
"""Parameters that cannot be honoured, with the values that ask for nothing (null always)."""
_HARMLESS_OF_REASONING: dict[str, tuple[str, ...]] = {
    "summary": ("auto",),
    "generate_summary": ("auto",),
    "context": ("auto",),
    "mode": ("standard",),
}


def response_request(
    body: ResponseRequest, history: Sequence[ItemIn], *, seed: int
) -> GenerationRequest:
    """The canonical form. `history` is what was said before `input`. OpenAI's Responses have no
    seeds, so one is drawn."""
    refuse_unless_harmless(body, _HARMLESS)
    return GenerationRequest(
        model=body.model or "",
        messages=_messages(body, history),
        **tool_fields(
            tuple(_tool(tool, f"tools[{i}]") for i, tool in enumerate(body.tools or ())),
            body.tool_choice,
            is_parallel=body.parallel_tool_calls,
            within="",
        ),
        enable_thinking=_thinks(body.reasoning),
        template_arguments=_effort(body.reasoning),
        max_tokens=body.max_output_tokens,
        temperature=1.0 if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        top_logprobs=_logprobs(body),
        grammar=_grammar(body),
        seed=seed,
    )


def count_question(body: InputTokensRequest, history: Sequence[ItemIn], *, created: int) -> Render:
    """How many tokens does the prompt of such a response have?"""
    refuse_unless_harmless(body, _HARMLESS)
    fields = {name: getattr(body, name) for name in PromptFields.__struct_fields__}
    request = response_request(ResponseRequest(**fields), history, seed=0)
    return Render(
        model=request.model,
        messages=request.messages or (),
        tools=request.tools,
        enable_thinking=request.enable_thinking,
        template_arguments=request.template_arguments,
        created=created,
        with_prompt=False,
        with_count=True,
    )


def repeated_fields(body: ResponseRequest) -> dict[str, Any]:
    """What every answer says of a request that `response_request` took."""
    return {
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": None,
        "metadata": body.metadata or {},
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": body.previous_response_id,
        "prompt_cache_key": body.prompt_cache_key,
        "reasoning": {"effort": body.reasoning.effort if body.reasoning else None, "summary": None},
        "safety_identifier": body.safety_identifier,
        "service_tier": "default",
        "store": body.store is not False,
        "temperature": 1.0 if body.temperature is None else body.temperature,
        "text": {"format": _repeated_format(body), "verbosity": "medium"},
        "tool_choice": _repeated_choice(body.tool_choice),
        "tools": [_repeated_tool(tool) for tool in body.tools or ()],
        "top_logprobs": body.top_logprobs or 0,
        "top_p": 1.0 if body.top_p is None else body.top_p,
        "truncation": "disabled",
        "user": body.user,
        **dict.fromkeys(_NEVER_SET),
        "background": False,
    }


_NEVER_SET = (
    "access_programs", "conversation", "image", "input_transformations", "moderation", "prompt",
    "prompt_cache_diagnostics", "prompt_cache_options", "prompt_cache_retention", "tool_usage",
)  # fmt: skip
"""What an answer of OpenAI's may tell of things that are not done here."""


def _messages(body: ResponseRequest, history: Sequence[ItemIn]) -> tuple[Message, ...]:
    items = items_in(body.input)
    if len(history) + len(items) >= MAX_MESSAGES:
        expected = f"such that the whole conversation has fewer than {MAX_MESSAGES} items"
        raise refuse_value("input", items, expected)
    messages = messages_of(history, items)
    if body.instructions:
        messages.insert(0, Message(role="system", content=body.instructions))
    check_media(messages, param="input")
    return tuple(messages)


def _tool(tool: ToolIn, at: str) -> Tool:
    if tool.type != "function":
        raise unsupported(f"{at}.type", tool.type, '"function": no tools are run here')
    if tool.name is None:
        raise missing(f"{at}.name")
    return function_tool(
        tool.name,
        description=tool.description,
        parameters=tool.parameters,
        strict=tool.strict,
    )


def _repeated_choice(given: Any) -> Any:
    """As OpenAI's type has it, whatever else the client wrote into it."""
    if isinstance(given, dict):
        return {"type": "function", "name": given["name"]}
    return given or "auto"


def _repeated_tool(tool: ToolIn) -> dict[str, Any]:
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": tool.strict,
    }


def _effort(reasoning: ReasoningIn | None) -> dict[str, Any]:
    """What a template is told of it that has more to say than on or off."""
    effort = reasoning.effort if reasoning is not None else None
    return {} if effort is None else {"reasoning_effort": effort}


def _thinks(reasoning: ReasoningIn | None) -> bool | None:
    """None: as the template does unasked."""
    if reasoning is None:
        return None
    for name, harmless in _HARMLESS_OF_REASONING.items():
        if (value := getattr(reasoning, name)) is not None and value not in harmless:
            raise unsupported(f"reasoning.{name}", value, f'"{harmless[0]}"')
    if reasoning.effort is None:
        return None
    if reasoning.effort not in THINKING_BY_EFFORT:
        expected = "one of " + ", ".join(THINKING_BY_EFFORT)
        raise refuse_value("reasoning.effort", reasoning.effort, expected)
    return THINKING_BY_EFFORT[reasoning.effort]


def _logprobs(body: ResponseRequest) -> int | None:
    """Either parameter asks for them."""
    for i, included in enumerate(body.include or ()):
        if included not in INCLUDES:
            raise unsupported(f"include[{i}]", included, " or ".join(INCLUDES))
    if body.top_logprobs or LOGPROBS in (body.include or ()):
        return body.top_logprobs or 0
    return None


def _grammar(body: ResponseRequest) -> Grammar | None:
    text = body.text
    if text is None:
        return None
    if text.verbosity not in (None, "medium"):
        raise unsupported("text.verbosity", text.verbosity, '"medium"')
    match text.format:
        case None | FormatIn(type="text"):
            return None
        case FormatIn(type="json_object"):
            return Grammar(kind="json_object")
        case FormatIn(type="json_schema"):
            return _schema_grammar(text.format)
        case FormatIn(type=other):
            raise refuse_value("text.format.type", other, "text, json_object or json_schema")


def _schema_grammar(given: FormatIn) -> Grammar:
    if given.name is None:
        raise missing("text.format.name")
    if given.schema is None:
        raise missing("text.format.schema")
    return json_schema_grammar(given.schema, "text.format.schema")


def _repeated_format(body: ResponseRequest) -> dict[str, Any]:
    if body.text is None or body.text.format is None:
        return {"type": "text"}
    repeated: dict[str, Any] = msgspec.to_builtins(body.text.format)
    return repeated
