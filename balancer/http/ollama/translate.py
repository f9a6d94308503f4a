"""Ollama's requests as canonical ones. Pure: raises `InvalidRequest`, touches nothing else.

Every parameter is honoured or refused by name; only fields nobody declared are ignored.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import structs

from balancer.http.attached import check_media, decoded
from balancer.http.faults import missing, refuse_unless_harmless, refuse_value, unsupported
from balancer.http.offered_tools import check_tools, function_tool
from balancer.http.ollama.call_ids import CallIds
from balancer.http.ollama.schema import (
    EXPECTED,
    ChatRequest,
    EmbedRequest,
    GenerateRequest,
    GenerationFields,
    MessageIn,
    OptionsIn,
    ToolCallIn,
    ToolIn,
)
from balancer.http.openai.schema import EmbeddingsRequest
from balancer.http.openai.translate_embeddings import embedding_request
from protocol.chat import (
    FunctionCall,
    ImagePart,
    Message,
    Part,
    Role,
    TextPart,
    Tool,
    ToolCall,
)
from protocol.embeddings import EmbeddingRequest
from protocol.generation import MAX_PENALTY_WINDOW, GenerationRequest
from protocol.grammar import MAX_GRAMMAR_CHARS, Grammar

MAX_SEED = 2**63 - 1
WHOLE_CONTEXT = MAX_PENALTY_WINDOW
MAX_PIECES = 10_000
"""Images and tool calls of all messages together: a bound on what one request can make the loop do
at a stretch."""

_DEFAULTS: dict[str, Any] = {"temperature": 0.8, "top_k": 40, "top_p": 0.9, "repeat_penalty": 1.1}
"""Ollama's own, where they are not the canonical ones."""
_SAME_NAME = (
    "temperature", "top_k", "top_p", "min_p", "typical_p", "repeat_penalty", "presence_penalty",
    "frequency_penalty", "mirostat", "mirostat_tau", "mirostat_eta",
)  # fmt: skip
_HARMLESS: dict[str, tuple[Any, ...]] = {
    "truncate": (True, False),
    "template": ("",),
    "context": ([],),
    "width": (0,),
    "height": (0,),
    "steps": (0,),
}
"""Parameters that cannot be honoured, with the values that ask for nothing (null always)."""
_INTEGERS = ("top_k", "seed", "num_predict", "repeat_last_n", "mirostat")
_HARMLESS_OPTIONS: dict[str, tuple[Any, ...]] = {"tfs_z": (1, 1.0), "penalize_newline": (True,)}
_ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
_LEVELS = ("low", "medium", "high")


def chat_request(body: ChatRequest, *, model: str, drawn_seed: int) -> GenerationRequest:
    """The canonical form of a chat to the model of this name. `drawn_seed` serves if the client
    gave none."""
    fields = _fields(body, model, drawn_seed)
    given = body.messages or []
    _check_pieces(given)
    ids = CallIds()
    messages = tuple(_message(one, f"messages[{i}]", ids) for i, one in enumerate(given))
    check_media(messages)
    tools = tuple(_tool(tool, f"tools[{i}]") for i, tool in enumerate(body.tools or ()))
    check_tools(tools, name="function.name", schema="function.parameters")
    return GenerationRequest(**fields, messages=messages, tools=tools)


def generate_request(
    body: GenerateRequest, *, model: str, has_template: bool, drawn_seed: int
) -> GenerationRequest:
    """The canonical form of a prompt: a chat of one turn where the model has a template for it,
    unless the prompt is to be taken as it is, or goes around a gap."""
    fields = _fields(body, model, drawn_seed)
    prompt = body.prompt or ""
    if body.raw or body.suffix or not has_template:
        for param in ("system", "images", "think"):
            if value := getattr(body, param):
                expected = "absent, as the prompt goes to the model as it is"
                raise refuse_value(param, value, expected, code="unsupported_parameter")
        return GenerationRequest(**fields, prompt=prompt, suffix=body.suffix or None)
    images = [decoded(data, f"images[{i}]") for i, data in enumerate(body.images or ())]
    messages = [Message(role="user", content=_content(images, prompt))]
    if body.system:
        messages.insert(0, Message(role="system", content=body.system))
    check_media(messages, param="images")
    return GenerationRequest(**fields, messages=tuple(messages))


def embed_request(body: EmbedRequest, *, model: str) -> EmbeddingRequest:
    """The canonical form of inputs for the model of this name. They are cut to what it takes,
    unless the client wants to be told of those that are too long."""
    inputs = embedding_request(EmbeddingsRequest(input=body.input)).inputs
    return EmbeddingRequest(
        model=model,
        inputs=inputs,
        dimensions=body.dimensions,
        truncate=body.truncate is not False,
    )


def asks_to_load(body: ChatRequest | GenerateRequest) -> bool:
    """Whether nothing is to be generated: a request without a prompt only loads the model."""
    if isinstance(body, ChatRequest):
        return not body.messages
    return not (body.prompt or body.suffix or body.images)


def _fields(body: GenerationFields, model: str, drawn_seed: int) -> dict[str, Any]:
    """What chats and prompts have in common."""
    options = _with_integers(body.options or OptionsIn())
    refuse_unless_harmless(body, _HARMLESS)
    refuse_unless_harmless(options, _HARMLESS_OPTIONS, within="options.")
    given = {name: getattr(options, name) for name in _SAME_NAME}
    fields = _DEFAULTS | {name: value for name, value in given.items() if value is not None}
    fields["top_k"] = max(fields["top_k"], 0)
    if options.repeat_last_n is not None:
        whole = options.repeat_last_n < 0
        fields["penalty_last_n"] = WHOLE_CONTEXT if whole else options.repeat_last_n
    is_drawn = options.seed is None or options.seed == -1
    most = options.num_predict
    stop = options.stop
    return {
        **fields,
        "model": model,
        "seed": drawn_seed if is_drawn else int(options.seed or 0) & MAX_SEED,
        "max_tokens": most if most and most > 0 else None,
        "stop": tuple(one for one in ([stop] if isinstance(stop, str) else stop or ()) if one),
        "grammar": _grammar(body.format),
        "enable_thinking": _thinks(body.think),
        "template_arguments": _effort(body.think),
        "context_shift": bool(body.shift),
        "top_logprobs": _logprobs(body),
    }


def _with_integers(options: OptionsIn) -> OptionsIn:
    """With integers where whole floats stand for them."""
    whole: dict[str, int] = {}
    for name in _INTEGERS:
        value = getattr(options, name)
        if not isinstance(value, float):
            continue
        if not value.is_integer():
            param = f"options.{name}"
            raise refuse_value(param, value, EXPECTED[param])
        whole[name] = int(value)
    return structs.replace(options, **whole)


def _logprobs(body: GenerationFields) -> int | None:
    if body.logprobs:
        return body.top_logprobs or 0
    if body.top_logprobs:
        raise refuse_value("top_logprobs", body.top_logprobs, "absent, or `logprobs` be true")
    return None


def _thinks(think: bool | str | None) -> bool | None:
    """A level means yes."""
    if think == "":
        return None
    if isinstance(think, str):
        if think not in _LEVELS:
            raise refuse_value("think", think, "true, false, " + " or ".join(_LEVELS))
        return True
    return think


def _effort(think: bool | str | None) -> dict[str, Any]:
    """What a template is told that knows levels."""
    return {"reasoning_effort": think} if think and isinstance(think, str) else {}


def _grammar(given: Any) -> Grammar | None:
    """Of `format`: `json`, or a schema."""
    if given is None or given == "":
        return None
    if given == "json":
        return Grammar(kind="json_object")
    if not isinstance(given, dict):
        raise refuse_value("format", given, '"json" or a JSON schema: an object')
    text = msgspec.json.encode(given).decode()
    if len(text) > MAX_GRAMMAR_CHARS:
        raise refuse_value("format", text, f"at most {MAX_GRAMMAR_CHARS} characters")
    return Grammar(kind="json_schema", text=text)


def _check_pieces(messages: list[MessageIn]) -> None:
    pieces = 0
    for i, message in enumerate(messages):
        pieces += len(message.images or ()) + len(message.tool_calls or ())
        if pieces > MAX_PIECES:
            expected = f"such that all messages have at most {MAX_PIECES} images and tool calls"
            raise refuse_value(f"messages[{i}]", message, expected)


def _message(message: MessageIn, at: str, ids: CallIds) -> Message:
    role = _ROLES.get(message.role)
    if role is None:
        raise refuse_value(f"{at}.role", message.role, "one of " + ", ".join(_ROLES))
    if message.tool_calls and role != "assistant":
        raise refuse_value(f"{at}.tool_calls", message.tool_calls, "absent but for role assistant")
    images = [decoded(one, f"{at}.images[{i}]") for i, one in enumerate(message.images or ())]
    calls = tuple(
        _tool_call(call, f"{at}.tool_calls[{i}]", ids)
        for i, call in enumerate(message.tool_calls or ())
    )
    content = _content(images, message.content or "")
    is_result = role == "tool"
    return Message(
        role=role,
        content=None if calls and not content else content,
        name=(message.tool_name or None) if is_result else None,
        tool_calls=calls,
        tool_call_id=ids.of_result(message.tool_call_id, message.tool_name) if is_result else None,
        reasoning_content=message.thinking or None,
    )


def _content(images: list[bytes], text: str) -> str | tuple[Part, ...]:
    """Images come before the text, as Ollama shows them to a model."""
    if not images:
        return text
    parts: list[Part] = [ImagePart(data=data) for data in images]
    return (*parts, TextPart(text=text)) if text else tuple(parts)


def _tool_call(call: ToolCallIn, at: str, ids: CallIds) -> ToolCall:
    name = call.function.name
    if not name:
        raise missing(f"{at}.function.name")
    arguments = msgspec.json.encode(call.function.arguments or {}).decode()
    return ToolCall(
        id=ids.of_call(call.id, name), function=FunctionCall(name=name, arguments=arguments)
    )


def _tool(tool: ToolIn, at: str) -> Tool:
    if tool.type not in (None, "", "function"):
        raise unsupported(f"{at}.type", tool.type, '"function"')
    return function_tool(
        tool.function.name,
        description=tool.function.description,
        parameters=tool.function.parameters,
    )
