"""Anthropic's requests as canonical ones. Pure: raises `InvalidRequest`, touches nothing else.

Every parameter is honoured or refused by name; only fields nobody declared are ignored.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from balancer.http.anthropic.output_form import grammar_of
from balancer.http.anthropic.schema import (
    BlockIn,
    MessageIn,
    MessagesRequest,
    PromptFields,
    SourceIn,
    ThinkingIn,
    ToolChoiceIn,
    ToolIn,
)
from balancer.http.attached import check_media, decoded
from balancer.http.faults import missing, refuse_unless_harmless, refuse_value, unsupported
from balancer.http.offered_tools import check_choice, check_tools, function_tool
from protocol.chat import (
    FunctionCall,
    ImagePart,
    Message,
    NamedTool,
    Part,
    TextPart,
    Tool,
    ToolCall,
    ToolChoice,
)
from protocol.generation import GenerationRequest

MAX_BLOCKS = 10_000
"""Of the system prompt and all messages together, with those in results of tools: a bound
on what one request can make the loop do at a stretch."""
MOST_TOOL_NAME_CHARS = 128
_HARMLESS: dict[str, tuple[Any, ...]] = {
    "billing_policy": ({"type": "billing_policy", "bill_to": "self"},),
    "compaction": (),
    "container": (),
    "diagnostics": (),
    "fallback_credit_token": (),
    "fallbacks": ([],),
    "inference_geo": (),
    "mcp_servers": ([],),
    "service_tier": ("auto", "standard_only"),
    "speed": ("standard",),
    "thread": (),
}
"""Parameters that cannot be honoured, with the values that ask for nothing (null always)."""
_ROLES = ("user", "assistant")
_KEEP_ALL = ("all", {"type": "all"})


def messages_request(body: MessagesRequest, *, seed: int) -> GenerationRequest:
    """The canonical form of a message. Anthropic's API has no seeds, so one is drawn."""
    return GenerationRequest(
        **prompt_fields(body),
        **_tool_use(body),
        max_tokens=body.max_tokens,
        temperature=1.0 if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        top_k=body.top_k or 0,
        stop=tuple(body.stop_sequences or ()),
        grammar=grammar_of(body),
        seed=seed,
    )


def _check_edits(context_management: Any) -> None:
    """Nothing of a talk is cleared here, so only edits that clear nothing can be kept."""
    if context_management is None:
        return
    if not isinstance(context_management, dict):
        raise refuse_value(
            "context_management", context_management, "an object", code="invalid_type"
        )
    edits = context_management.get("edits") or []
    if not isinstance(edits, list):
        raise refuse_value("context_management.edits", edits, "a list", code="invalid_type")
    for i, edit in enumerate(edits):
        if not _clears_nothing(edit):
            expected = '{"type": "clear_thinking_20251015", "keep": "all"}'
            raise unsupported(f"context_management.edits[{i}]", edit, expected)


def _clears_nothing(edit: Any) -> bool:
    return (
        isinstance(edit, dict)
        and edit.get("type") == "clear_thinking_20251015"
        and edit.get("keep") in _KEEP_ALL
    )


def prompt_fields(body: PromptFields) -> dict[str, Any]:
    """What a prompt is made of, to be counted or to be answered."""
    refuse_unless_harmless(body, _HARMLESS)
    _check_edits(body.context_management)
    _check_blocks(body)
    messages = list(_system(body.system, "system"))
    for i, message in enumerate(body.messages):
        messages += _messages(message, f"messages[{i}]", is_first=i == 0)
    if body.messages[-1].role == "assistant":
        raise unsupported(
            f"messages[{len(body.messages) - 1}].role", "assistant", '"user" as the last message'
        )
    check_media(messages)
    return {
        "model": body.model or "",
        "messages": tuple(messages),
        "tools": _tools(body),
        "enable_thinking": _thinks(body.thinking),
    }


def _check_blocks(body: PromptFields) -> None:
    expected = f"such that the system prompt and all messages have at most {MAX_BLOCKS} blocks"
    blocks = _blocks_in(body.system)
    if blocks > MAX_BLOCKS:
        raise refuse_value("system", body.system, expected)
    for i, message in enumerate(body.messages):
        blocks += _blocks_in(message.content)
        if blocks > MAX_BLOCKS:
            raise refuse_value(f"messages[{i}]", message, expected)


def _blocks_in(content: str | list[BlockIn] | None) -> int:
    """With those in results of tools, which are not looked at yet."""
    if not isinstance(content, list):
        return 0 if content is None else 1
    nested = (len(one.content) for one in content if isinstance(one.content, list))
    return len(content) + sum(nested)


def _system(system: str | list[BlockIn] | None, at: str) -> Iterable[Message]:
    if not system:
        return
    if isinstance(system, str):
        yield Message(role="system", content=system)
        return
    texts = [_text(block, f"{at}[{i}]") for i, block in enumerate(system)]
    yield Message(role="system", content="\n\n".join(texts))


def _text(block: BlockIn, at: str) -> str:
    if block.type != "text":
        raise unsupported(f"{at}.type", block.type, '"text"')
    if block.text is None:
        raise missing(f"{at}.text")
    return block.text


def _messages(message: MessageIn, at: str, *, is_first: bool) -> list[Message]:
    """A turn of theirs may be several of ours: results of tools are messages of their own. What
    the system says before all of them is not among them, what it says in between is."""
    match message:
        case MessageIn(role="user", content=str() as text):
            return [Message(role="user", content=text)]
        case MessageIn(role="assistant", content=str() as text):
            return [Message(role="assistant", content=text)]
        case MessageIn(role="user", content=list() as blocks):
            return _user_turn(blocks, f"{at}.content")
        case MessageIn(role="assistant", content=list() as blocks):
            return [_assistant_turn(blocks, f"{at}.content")]
        case MessageIn(role="system", content=content) if not is_first:
            return list(_system(content, f"{at}.content"))
        case _:
            raise refuse_value(f"{at}.role", message.role, "one of " + ", ".join(_ROLES))


def _user_turn(blocks: list[BlockIn], at: str) -> list[Message]:
    results: list[Message] = []
    parts: list[Part] = []
    for i, block in enumerate(blocks):
        if block.type == "tool_result":
            results.append(_tool_result(block, f"{at}[{i}]"))
        else:
            parts.append(_part(block, f"{at}[{i}]"))
    if parts or not results:
        results.append(Message(role="user", content=_content(parts)))
    return results


def _content(parts: list[Part]) -> str | tuple[Part, ...]:
    """Templates for text alone want a string."""
    texts = [part.text for part in parts if isinstance(part, TextPart)]
    return "\n".join(texts) if len(texts) == len(parts) else tuple(parts)


def _part(block: BlockIn, at: str) -> Part:
    if block.type == "image":
        if block.source is None:
            raise missing(f"{at}.source")
        return ImagePart(data=_image(block.source, f"{at}.source"))
    if block.type == "document":
        return TextPart(text=_document(block, at))
    if block.type != "text":
        raise unsupported(f"{at}.type", block.type, '"text", "image", "document" or "tool_result"')
    return TextPart(text=_text(block, at))


def _image(source: SourceIn, at: str) -> bytes:
    if source.type != "base64":
        raise unsupported(f"{at}.type", source.type, '"base64": nothing is fetched from elsewhere')
    if source.data is None:
        raise missing(f"{at}.data")
    return decoded(source.data, f"{at}.data")


def _document(block: BlockIn, at: str) -> str:
    """Its title, its context and its text; files are not read."""
    if block.citations is not None and block.citations.enabled:
        raise unsupported(f"{at}.citations.enabled", True, "false")
    match block.source:
        case None:
            raise missing(f"{at}.source")
        case (
            SourceIn(type="text", data=str() as text)
            | SourceIn(type="content", content=str() as text)
        ):
            return "\n".join(piece for piece in (block.title, block.context, text) if piece)
        case SourceIn(type="text"):
            raise missing(f"{at}.source.data")
        case SourceIn(type="content", content=content):
            raise unsupported(f"{at}.source.content", content, "a string")
        case SourceIn(type=other):
            raise unsupported(f"{at}.source.type", other, '"text": no files are read here')


def _tool_result(block: BlockIn, at: str) -> Message:
    if not block.tool_use_id:
        raise missing(f"{at}.tool_use_id")
    content = _result_content(block.content, f"{at}.content")
    if block.is_error and isinstance(content, str):
        content = f"Error: {content}"
    return Message(role="tool", tool_call_id=block.tool_use_id, content=content)


def _result_content(content: Any, at: str) -> str | tuple[Part, ...]:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    try:
        blocks = msgspec.convert(content, list[BlockIn])
    except msgspec.ValidationError as error:
        raise refuse_value(
            at, content, "a string or a list of blocks", code="invalid_type"
        ) from error
    return _content([_part(block, f"{at}[{i}]") for i, block in enumerate(blocks)])


def _assistant_turn(blocks: list[BlockIn], at: str) -> Message:
    texts, thoughts = list[str](), list[str]()
    calls: list[ToolCall] = []
    for i, block in enumerate(blocks):
        match block.type:
            case "text":
                texts.append(_text(block, f"{at}[{i}]"))
            case "thinking":
                thoughts.append(block.thinking or "")
            case "redacted_thinking":
                pass  # another model's, which nobody can read
            case "tool_use":
                calls.append(_tool_call(block, f"{at}[{i}]"))
            case other:
                expected = '"text", "thinking" or "tool_use"'
                raise unsupported(f"{at}[{i}].type", other, expected)
    return Message(
        role="assistant",
        content="".join(texts) if texts or not calls else None,
        tool_calls=tuple(calls),
        reasoning_content="".join(thoughts) or None,
    )


def _tool_call(block: BlockIn, at: str) -> ToolCall:
    if not block.name:
        raise missing(f"{at}.name")
    if not isinstance(block.input, dict | None):
        raise refuse_value(f"{at}.input", block.input, "an object", code="invalid_type")
    arguments = msgspec.json.encode(block.input or {}).decode()
    return ToolCall(id=block.id or "", function=FunctionCall(name=block.name, arguments=arguments))


def _tools(body: PromptFields) -> tuple[Tool, ...]:
    """What the model is offered; nothing under `tool_choice: none`."""
    tools = tuple(_tool(tool, f"tools[{i}]") for i, tool in enumerate(body.tools or ()))
    check_tools(tools, name="name", schema="input_schema", most_name_chars=MOST_TOOL_NAME_CHARS)
    choice = _choice(body.tool_choice)
    if choice is None:
        return ()
    check_choice(choice, tools, param="tool_choice", name="tool_choice.name")
    return tools


def _choice(given: ToolChoiceIn | None) -> ToolChoice | None:
    """None: no tool may be called."""
    match given:
        case None | ToolChoiceIn(type="auto"):
            return "auto"
        case ToolChoiceIn(type="none"):
            return None
        case ToolChoiceIn(type="any"):
            return "required"
        case ToolChoiceIn(type="tool", name=str() as name):
            return NamedTool(name=name)
        case ToolChoiceIn(type="tool"):
            raise missing("tool_choice.name")
        case _:
            raise unsupported("tool_choice.type", given.type, "auto, any, tool or none")


def _tool_use(body: MessagesRequest) -> dict[str, Any]:
    """Whether tools must be called, and how many."""
    choice = body.tool_choice
    return {
        "tool_choice": _choice(choice) or "auto",
        "parallel_tool_calls": not (body.tools and choice and choice.disable_parallel_tool_use),
    }


def _tool(tool: ToolIn, at: str) -> Tool:
    if tool.type not in (None, "custom"):
        raise unsupported(f"{at}.type", tool.type, '"custom": no tools are run here')
    if not tool.name:
        raise missing(f"{at}.name")
    return function_tool(
        tool.name,
        description=tool.description,
        parameters=tool.input_schema,
        strict=tool.strict,
    )


def _thinks(thinking: ThinkingIn | None) -> bool:
    """Nobody thinks unasked, and what is thought is shown."""
    if thinking is None:
        return False
    if thinking.display not in (None, "summarized"):
        raise unsupported("thinking.display", thinking.display, '"summarized"')
    match thinking.type:
        case "disabled":
            return False
        case "enabled" | "adaptive":
            return True
        case other:
            raise refuse_value("thinking.type", other, "enabled, adaptive or disabled")
