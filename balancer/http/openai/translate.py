"""OpenAI's requests as canonical ones. Pure: raises `InvalidRequest`, touches nothing else.

Every parameter is honoured or refused by name; only fields nobody declared are ignored.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from balancer.http.attached import check_media
from balancer.http.faults import missing, refuse_value, unsupported
from balancer.http.openai.grammars import grammar_of
from balancer.http.openai.parts import content_part
from balancer.http.openai.prompts import (
    MAX_TOKEN_ID,
    Prompt,
    best_of,
    scores_prompts,
    suffix_of,
    wants_prompt_only,
)
from balancer.http.openai.refused import refuse_unsupported
from balancer.http.openai.schema import (
    ChatCompletionRequest,
    CompletionRequest,
    MessageIn,
    SamplingFields,
    ToolCallIn,
)
from balancer.http.openai.tools import IN_FUNCTION, chat_tools, tool_fields
from protocol.chat import (
    FunctionCall,
    Message,
    Part,
    Role,
    ToolCall,
)
from protocol.generation import GenerationRequest

MAX_SEED = 2**63 - 1
MAX_BIASES = 10_000
MAX_PIECES = 10_000
"""Parts of contents and tool calls in the history, of all messages together. As the one above, a
bound on what one request can make the loop do at a stretch."""

_SAME_NAME = (
    "temperature", "top_p", "min_p", "typical_p", "presence_penalty", "frequency_penalty",
    "repeat_penalty", "dry_multiplier", "dry_base", "dry_allowed_length", "dry_penalty_last_n",
    "xtc_probability", "xtc_threshold", "mirostat", "mirostat_tau", "mirostat_eta",
    "min_tokens", "ignore_eos", "priority", "context_shift",
)  # fmt: skip
_read_same = attrgetter(*_SAME_NAME)

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "developer",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
THINKING_BY_EFFORT = {
    "none": False, "minimal": False, "low": True, "medium": True, "high": True, "xhigh": True,
    "max": True,
}  # fmt: skip


def chat_request(body: ChatCompletionRequest, *, drawn_seed: int) -> GenerationRequest:
    """The canonical form of a chat completion. `drawn_seed` serves if the client gave none."""
    fields = _sampling(body, drawn_seed)
    _check_pieces(body.messages)
    thinking, arguments = _template_arguments(body)
    messages = tuple(_message(m, f"messages[{i}]") for i, m in enumerate(body.messages))
    check_media(messages)
    return GenerationRequest(
        **fields,
        messages=messages,
        max_tokens=body.max_completion_tokens or _cap(body),
        **tool_fields(
            chat_tools(body.tools),
            body.tool_choice,
            is_parallel=body.parallel_tool_calls,
            within=IN_FUNCTION,
        ),
        enable_thinking=thinking,
        template_arguments=arguments,
        top_logprobs=_chat_logprobs(body),
    )


def completion_request(
    body: CompletionRequest, prompts: tuple[Prompt, ...], *, drawn_seed: int
) -> GenerationRequest:
    """The canonical form of a text completion, with the first of its prompts."""
    chooses = best_of(body) > (body.n or 1)
    return GenerationRequest(
        **_sampling(body, drawn_seed),
        prompt=prompts[0],
        suffix=suffix_of(body, prompts),
        # a token is sampled all the same: that is how a prompt's scores come
        max_tokens=1 if wants_prompt_only(body) else _cap(body),
        top_logprobs=0 if body.logprobs is None and chooses else body.logprobs,
        prompt_logprobs=scores_prompts(body),
    )


def _cap(body: SamplingFields) -> int | None:
    """On output. `n_predict` is what llama-server calls `max_tokens`."""
    if body.max_tokens is not None:
        return body.max_tokens
    if body.n_predict == 0:
        raise refuse_value("n_predict", 0, "at least 1, or -1 for no cap")
    return None if body.n_predict == -1 else body.n_predict


def _sampling(body: SamplingFields, drawn_seed: int) -> dict[str, Any]:
    refuse_unsupported(body)
    given = zip(_SAME_NAME, _read_same(body), strict=True)
    fields = {name: value for name, value in given if value is not None}
    fields["model"] = body.model or ""
    fields["top_k"] = max(body.top_k or 0, 0)
    if body.repeat_last_n is not None:
        fields["penalty_last_n"] = body.repeat_last_n
    if body.dry_sequence_breakers is not None:
        fields["dry_sequence_breakers"] = tuple(body.dry_sequence_breakers)
    fields["seed"] = drawn_seed if body.seed is None else body.seed & MAX_SEED
    fields["stop"] = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    fields["logit_bias"] = _logit_bias(body.logit_bias)
    fields["grammar"] = grammar_of(body.response_format, body.grammar, body.json_schema)
    return fields


def _logit_bias(bias: dict[str, float] | None) -> tuple[tuple[int, float], ...]:
    if bias is not None and len(bias) > MAX_BIASES:
        raise refuse_value("logit_bias", bias, f"an object of at most {MAX_BIASES} token ids")
    pairs = []
    for key, value in (bias or {}).items():
        if not key.isascii() or not key.isdigit() or len(key) > 10 or int(key) > MAX_TOKEN_ID:
            raise refuse_value("logit_bias", key, "an object whose keys are token ids")
        pairs.append((int(key), value))
    return tuple(pairs)


def _chat_logprobs(body: ChatCompletionRequest) -> int | None:
    if body.logprobs:
        return body.top_logprobs or 0
    if body.top_logprobs:
        raise refuse_value("top_logprobs", body.top_logprobs, "absent, or `logprobs` be true")
    return None


def _template_arguments(body: ChatCompletionRequest) -> tuple[bool | None, dict[str, Any]]:
    """Whether to think, and what else the chat template is given."""
    thinking = None
    arguments: dict[str, Any] = {}
    if body.reasoning_effort is not None:
        if body.reasoning_effort not in THINKING_BY_EFFORT:
            raise refuse_value(
                "reasoning_effort",
                body.reasoning_effort,
                "one of " + ", ".join(THINKING_BY_EFFORT),
            )
        thinking = THINKING_BY_EFFORT[body.reasoning_effort]
        arguments["reasoning_effort"] = body.reasoning_effort
    arguments |= body.chat_template_kwargs or {}
    explicit = arguments.pop("enable_thinking", None)
    if explicit is not None and not isinstance(explicit, bool):
        raise refuse_value(
            "chat_template_kwargs.enable_thinking", explicit, "a boolean", code="invalid_type"
        )
    return (thinking if explicit is None else explicit), arguments


def _check_pieces(messages: list[MessageIn]) -> None:
    pieces = 0
    for i, message in enumerate(messages):
        pieces += len(message.content) if isinstance(message.content, list) else 0
        pieces += len(message.tool_calls or ())
        if pieces > MAX_PIECES:
            expected = f"such that all messages have at most {MAX_PIECES} parts and tool calls"
            raise refuse_value(f"messages[{i}]", message, expected)


def _message(message: MessageIn, at: str) -> Message:
    role = _ROLES.get(message.role)
    if role is None:
        raise refuse_value(f"{at}.role", message.role, "one of " + ", ".join(_ROLES))
    if message.audio is not None:
        raise unsupported(f"{at}.audio", message.audio, "null")
    if message.function_call is not None:
        raise unsupported(f"{at}.function_call", message.function_call, "`tool_calls` instead")
    if role == "tool" and not message.tool_call_id:
        raise missing(f"{at}.tool_call_id")
    calls = tuple(
        _tool_call(call, f"{at}.tool_calls[{i}]") for i, call in enumerate(message.tool_calls or ())
    )
    if calls and role != "assistant":
        raise refuse_value(f"{at}.tool_calls", message.tool_calls, "absent but for role assistant")
    return Message(
        role=role,
        content=_content(message, role, f"{at}.content", may_lack=bool(calls)),
        name=message.name,
        tool_calls=calls,
        tool_call_id=message.tool_call_id,
        reasoning_content=message.reasoning_content,
    )


def _content(
    message: MessageIn, role: Role, at: str, *, may_lack: bool
) -> str | tuple[Part, ...] | None:
    content = message.content
    if isinstance(content, str):
        return content
    if content is not None:
        return tuple(content_part(part, f"{at}[{i}]") for i, part in enumerate(content))
    if may_lack:
        return None
    if role == "assistant":
        return message.refusal or ""
    raise missing(at)


def _tool_call(call: ToolCallIn, at: str) -> ToolCall:
    if call.type not in (None, "function"):
        raise unsupported(f"{at}.type", call.type, '"function"')
    if call.function is None:
        raise missing(f"{at}.function")
    function = FunctionCall(name=call.function.name, arguments=call.function.arguments)
    return ToolCall(id=call.id or "", function=function)
