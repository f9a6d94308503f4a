"""The tools of a request, and which must be called: what all families of APIs check alike. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from balancer.http.faults import refuse_value
from protocol.chat import FunctionDefinition, NamedTool, Tool, ToolChoice
from protocol.grammar import MAX_GRAMMAR_CHARS

MOST_NAME_CHARS = 64
"""As OpenAI has it."""
_NAME = re.compile(r"[A-Za-z0-9_.-]+")


def function_tool(
    name: str,
    *,
    description: str | None,
    parameters: dict[str, Any] | None,
    strict: bool | None = None,
) -> Tool:
    """A function; one without a description or without parameters has an empty one."""
    return Tool(
        function=FunctionDefinition(
            name=name,
            description=description or "",
            parameters=parameters or {},
            strict=strict,
        )
    )


def check_tools(
    tools: Sequence[Tool], *, name: str, schema: str, most_name_chars: int = MOST_NAME_CHARS
) -> None:
    """Raise `InvalidRequest` for what cannot be offered, in total or alone. `name` and `schema` say
    where a tool has the two, for example `function.name`."""
    names = set[str]()
    schema_bytes = 0
    for i, tool in enumerate(tools):
        function = tool.function
        if not _NAME.fullmatch(function.name) or len(function.name) > most_name_chars:
            expected = f"1 to {most_name_chars} characters of A-Z a-z 0-9 _ . -"
            raise refuse_value(f"tools[{i}].{name}", function.name, expected)
        if function.name in names:
            expected = "a name that no other tool has"
            raise refuse_value(f"tools[{i}].{name}", function.name, expected)
        names.add(function.name)
        kind = function.parameters.get("type", "object")
        if kind != "object":
            raise refuse_value(f"tools[{i}].{schema}.type", kind, '"object"')
        schema_bytes += len(msgspec.json.encode(function.parameters))
        if schema_bytes > MAX_GRAMMAR_CHARS:
            expected = f"such that the schemas of all tools have at most {MAX_GRAMMAR_CHARS} bytes"
            raise refuse_value(f"tools[{i}].{schema}", function.parameters, expected)


def check_choice(choice: ToolChoice, tools: Sequence[Tool], *, param: str, name: str) -> None:
    """Raise `InvalidRequest` for a choice that no tool of these can satisfy. `param` is the choice,
    `name` where it names a tool."""
    if choice == "auto":
        return
    if not tools:
        raise refuse_value(param, "given", "absent where no `tools` are offered")
    if isinstance(choice, NamedTool) and all(tool.function.name != choice.name for tool in tools):
        raise refuse_value(name, choice.name, "the name of one of `tools`")
