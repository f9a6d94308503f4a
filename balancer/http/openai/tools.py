"""The tools of a chat completion, and which of them must be called. Pure."""

from __future__ import annotations

from typing import Any

from balancer.http.faults import missing, refuse_value, unsupported
from balancer.http.offered_tools import check_choice, check_tools
from balancer.http.openai.schema import ChatCompletionRequest, ToolIn
from protocol.chat import FunctionDefinition, NamedTool, Tool, ToolChoice

_NAMED = "tool_choice.function.name"


def tool_fields(body: ChatCompletionRequest) -> dict[str, Any]:
    """What the canonical request says of tools; under `tool_choice: none` none are offered."""
    tools = tuple(_tool(tool, f"tools[{i}]") for i, tool in enumerate(body.tools or ()))
    check_tools(tools, name="function.name", schema="function.parameters")
    if body.tool_choice == "none":
        return {}
    choice = _choice(body.tool_choice)
    check_choice(choice, tools, param="tool_choice", name=_NAMED)
    return {
        "tools": tools,
        "tool_choice": choice,
        "parallel_tool_calls": not tools or body.parallel_tool_calls is not False,
    }


def _choice(given: Any) -> ToolChoice:
    match given:
        case None | "auto":
            return "auto"
        case "required":
            return "required"
        case {"type": "function", "function": {"name": str() as name}}:
            return NamedTool(name=name)
        case {"type": "function"}:
            raise missing(_NAMED)
        case {"type": kind}:
            raise unsupported("tool_choice.type", kind, '"function"')
        case _:
            raise refuse_value("tool_choice", given, "none, auto, required or a function")


def _tool(tool: ToolIn, at: str) -> Tool:
    if tool.type != "function":
        raise unsupported(f"{at}.type", tool.type, '"function"')
    if tool.function is None:
        raise missing(f"{at}.function")
    return Tool(
        function=FunctionDefinition(
            name=tool.function.name,
            description=tool.function.description or "",
            parameters=tool.function.parameters or {},
            strict=tool.function.strict,
        )
    )
