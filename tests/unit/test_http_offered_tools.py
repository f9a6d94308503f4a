"""Tools and their choice in OpenAI's and Anthropic's requests: what becomes of them, and what is
refused under which name."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from balancer.errors import InvalidRequest
from balancer.http.anthropic.schema import EXPECTED as ANTHROPICS
from balancer.http.anthropic.schema import MessagesRequest
from balancer.http.anthropic.translate import messages_request
from balancer.http.body import decode_json
from balancer.http.openai.schema import EXPECTED as OPENAIS
from balancer.http.openai.schema import ChatCompletionRequest
from balancer.http.openai.translate import chat_request
from protocol.chat import NamedTool
from protocol.generation import GenerationRequest
from protocol.grammar import MAX_GRAMMAR_CHARS

HI = [{"role": "user", "content": "hi"}]
LARGE = {"type": "object", "description": "x" * (MAX_GRAMMAR_CHARS // 2)}
_CHAT = msgspec.json.Decoder(ChatCompletionRequest)
_MESSAGES = msgspec.json.Decoder(MessagesRequest)


def function(name: str = "weather", **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **more}}


def openai(**fields: Any) -> GenerationRequest:
    data = msgspec.json.encode({"messages": HI, "tools": [function()], **fields})
    body = decode_json(data, _CHAT, max_depth=64, expected=OPENAIS)
    return chat_request(body, drawn_seed=4)


def anthropic(**fields: Any) -> GenerationRequest:
    tools = [{"name": "weather", "input_schema": {"type": "object"}}]
    data = msgspec.json.encode({"messages": HI, "max_tokens": 9, "tools": tools, **fields})
    body = decode_json(data, _MESSAGES, max_depth=64, expected=ANTHROPICS)
    return messages_request(body, seed=4)


@pytest.mark.parametrize(
    ("request_", "choice", "is_parallel"),
    [
        (openai(), "auto", True),
        (openai(tool_choice="auto", parallel_tool_calls=True), "auto", True),
        (openai(parallel_tool_calls=False), "auto", False),
        (openai(tool_choice="required"), "required", True),
        (openai(tool_choice=function()), NamedTool(name="weather"), True),
        (anthropic(), "auto", True),
        (anthropic(tool_choice={"type": "auto"}), "auto", True),
        (
            anthropic(tool_choice={"type": "any", "disable_parallel_tool_use": True}),
            "required",
            False,
        ),
        (
            anthropic(tool_choice={"type": "tool", "name": "weather"}),
            NamedTool(name="weather"),
            True,
        ),
    ],
)
def test_a_choice_is_told_to_the_agent(
    request_: GenerationRequest, choice: Any, is_parallel: bool
) -> None:
    assert (request_.tool_choice, request_.parallel_tool_calls) == (choice, is_parallel)
    assert [tool.function.name for tool in request_.tools] == ["weather"]


@pytest.mark.parametrize(
    "request_", [openai(tool_choice="none"), anthropic(tool_choice={"type": "none"})]
)
def test_where_none_may_be_called_none_is_offered(request_: GenerationRequest) -> None:
    assert (request_.tools, request_.tool_choice) == ((), "auto")


@pytest.mark.parametrize(
    ("given", "code", "param"),
    [
        ({"tools": None, "tool_choice": "required"}, "invalid_value", "tool_choice"),
        ({"tools": [], "tool_choice": function()}, "invalid_value", "tool_choice"),
        ({"tool_choice": function("other")}, "invalid_value", "tool_choice.function.name"),
        (
            {"tool_choice": {"type": "function"}},
            "missing_required_parameter",
            "tool_choice.function.name",
        ),
        ({"tool_choice": {"type": "allowed_tools"}}, "unsupported_parameter", "tool_choice.type"),
        ({"tool_choice": "sometimes"}, "invalid_value", "tool_choice"),
        ({"tool_choice": {}}, "invalid_value", "tool_choice"),
        ({"tools": [{"type": "function"}]}, "missing_required_parameter", "tools[0].function"),
        ({"tools": [function("a b")]}, "invalid_value", "tools[0].function.name"),
        ({"tools": [function("x" * 65)]}, "invalid_value", "tools[0].function.name"),
        ({"tools": [function("a\n")]}, "invalid_value", "tools[0].function.name"),
        ({"tools": [function(), function()]}, "invalid_value", "tools[1].function.name"),
        (
            {"tools": [function(parameters={"type": "array"})], "tool_choice": "none"},
            "invalid_value",
            "tools[0].function.parameters.type",
        ),
        (
            {"tools": [function("a", parameters=LARGE), function("b", parameters=LARGE)]},
            "invalid_value",
            "tools[1].function.parameters",
        ),
        ({"parallel_tool_calls": 1}, "invalid_type", "parallel_tool_calls"),
    ],
)
def test_openais_tools_are_refused_by_name(given: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        openai(**given)
    assert (refused.value.code, refused.value.param) == (code, param)


@pytest.mark.parametrize(
    ("given", "code", "param"),
    [
        ({"tools": None, "tool_choice": {"type": "any"}}, "invalid_value", "tool_choice"),
        ({"tool_choice": {"type": "tool", "name": "x"}}, "invalid_value", "tool_choice.name"),
        ({"tool_choice": {"type": "tool"}}, "missing_required_parameter", "tool_choice.name"),
        ({"tool_choice": {"type": "some"}}, "unsupported_parameter", "tool_choice.type"),
        ({"tools": [{"name": "é"}]}, "invalid_value", "tools[0].name"),
        ({"tools": [{"name": "x" * 129}]}, "invalid_value", "tools[0].name"),
        (
            {"tools": [{"name": "x", "input_schema": {"type": ["object"]}}]},
            "invalid_value",
            "tools[0].input_schema.type",
        ),
    ],
)
def test_anthropics_tools_are_refused_by_name(given: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        anthropic(**given)
    assert (refused.value.code, refused.value.param) == (code, param)


def test_anthropics_names_may_be_twice_as_long() -> None:
    assert anthropic(tools=[{"name": "x" * 128}]).tools
