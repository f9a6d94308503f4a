"""The tools of OpenAI's APIs, and which of them must be called. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from balancer.http.faults import missing, refuse_value, unsupported
from balancer.http.offered_tools import check_choice, check_tools, function_tool
from balancer.http.openai.schema import ToolIn
from protocol.chat import NamedTool, Tool, ToolChoice

IN_FUNCTION = "function."
"""Where a chat completion's tool has its name and its parameters. A response's is itself flat."""


def tool_fields(
    tools: tuple[Tool, ...], choice: Any, *, is_parallel: bool | None, within: str
) -> dict[str, Any]:
    """What the canonical request says of tools; under `tool_choice: none` none are offered.

    `choice` and `is_parallel` are as the client sent them; `within` is `IN_FUNCTION`, or empty
    where tools are flat.
    """
    check_tools(tools, name=f"{within}name", schema=f"{within}parameters")
    if choice == "none":
        return {}
    chosen = _choice(choice, within)
    check_choice(chosen, tools, param="tool_choice", name=f"tool_choice.{within}name")
    return {
        "tools": tools,
        "tool_choice": chosen,
        "parallel_tool_calls": not tools or is_parallel is not False,
    }


def _choice(given: Any, within: str) -> ToolChoice:
    match given:
        case None | "auto":
            return "auto"
        case "required":
            return "required"
        case {"type": "function"}:
            return _named(given.get("function") if within else given, within)
        case {"type": kind}:
            raise unsupported("tool_choice.type", kind, '"function"')
        case _:
            raise refuse_value("tool_choice", given, "none, auto, required or a function")


def _named(function: Any, within: str) -> NamedTool:
    match function:
        case {"name": str() as name}:
            return NamedTool(name=name)
        case _:
            raise missing(f"tool_choice.{within}name")


def chat_tools(given: Sequence[ToolIn] | None) -> tuple[Tool, ...]:
    """Those of a chat completion."""
    return tuple(_chat_tool(tool, f"tools[{i}]") for i, tool in enumerate(given or ()))


def _chat_tool(tool: ToolIn, at: str) -> Tool:
    if tool.type != "function":
        raise unsupported(f"{at}.type", tool.type, '"function"')
    if tool.function is None:
        raise missing(f"{at}.function")
    function = tool.function
    return function_tool(
        function.name,
        description=function.description,
        parameters=function.parameters,
        strict=function.strict,
    )
