"""Of a request's tools, the grammar that its model's calls are held to."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import structs

from agent.chat.tool_calls.table import TOOL_FORMATS
from agent.errors import ToolsRefused
from agent.grammar.call_form import CallForm
from agent.grammar.tools import ToolGrammar, tool_grammar
from protocol.chat import FunctionDefinition, Message, NamedTool, Tool
from protocol.generation import GenerationRequest
from protocol.grammar import MAX_GRAMMAR_CHARS, Grammar
from protocol.refusals import RefusalCode

HERMES = TOOL_FORMATS["hermes"].form
JSON = Grammar(kind="json_object")
WHOLE = CallForm(
    opening="",
    before_name='{"name": "',
    before_arguments='", "parameters": ',
    after_arguments="}",
    between_calls="; ",
)


def tool(name: str, **more: Any) -> Tool:
    return Tool(function=FunctionDefinition(name=name, **more))


def made(form: CallForm | None = HERMES, **more: Any) -> ToolGrammar | None:
    messages = (Message(role="user", content="x"),)
    request = GenerationRequest(messages=messages, tools=(tool("a"), tool("b", strict=True)))
    return tool_grammar(structs.replace(request, **more), form)


def refused(form: CallForm | None = HERMES, **more: Any) -> ToolsRefused:
    with pytest.raises(ToolsRefused) as caught:
        made(form, **more)
    return caught.value


def test_of_tools_that_may_be_called_only_strict_ones_bind() -> None:
    grammar = made()
    assert grammar is not None
    assert (grammar.must_call, grammar.several) == (False, True)
    assert [(one.name, one.binds, one.place) for one in grammar.tools] == [
        ("a", False, 0),
        ("b", True, 1),
    ]


def test_tools_that_must_be_called_bind() -> None:
    grammar = made(tool_choice="required", parallel_tool_calls=False)
    assert grammar is not None
    assert (grammar.must_call, grammar.several) == (True, False)
    assert all(one.binds for one in grammar.tools)


def test_a_named_tool_is_the_only_one_and_is_called_once() -> None:
    grammar = made(tool_choice=NamedTool(name="b"))
    assert grammar is not None
    assert [(one.name, one.place) for one in grammar.tools] == [("b", 1)]
    assert (grammar.must_call, grammar.several) == (True, False)


def test_arguments_are_always_an_object() -> None:
    grammar = made(tools=(tool("a"), tool("b", parameters={"properties": {"x": {}}})))
    assert grammar is not None
    assert [json.loads(one.schema) for one in grammar.tools] == [
        {"type": "object"},
        {"type": "object", "properties": {"x": {}}},
    ]


@pytest.mark.parametrize(
    ("form", "more"),
    [
        (HERMES, {"tools": ()}),
        (HERMES, {"messages": None, "prompt": "x"}),
        (None, {}),
        (None, {"grammar": JSON, "parallel_tool_calls": False}),
        (WHOLE, {}),
        (structs.replace(WHOLE, between_calls=None), {"parallel_tool_calls": False}),
    ],
)
def test_nothing_holds_calls_that_cannot_be_told_from_text(
    form: CallForm | None, more: dict[str, Any]
) -> None:
    assert made(form, **more) is None


def test_calls_without_an_opening_can_be_demanded() -> None:
    assert made(WHOLE, tool_choice="required") is not None


def test_json_may_stand_beside_calls() -> None:
    assert made(grammar=JSON) is not None


@pytest.mark.parametrize(
    ("form", "more", "param", "code"),
    [
        (None, {"tool_choice": "required"}, "tool_choice", RefusalCode.UNSUPPORTED),
        (HERMES, {"tool_choice": "required", "tools": ()}, "tool_choice", None),
        (HERMES, {"tool_choice": NamedTool(name="c")}, "tool_choice", None),
        (WHOLE, {"grammar": JSON}, "grammar", RefusalCode.UNSUPPORTED),
        (HERMES, {"grammar": Grammar(kind="gbnf")}, "grammar", RefusalCode.UNSUPPORTED),
        (
            HERMES,
            {"grammar": structs.replace(JSON, trigger="x")},
            "grammar",
            RefusalCode.UNSUPPORTED,
        ),
        (WHOLE, {"parallel_tool_calls": False}, "parallel_tool_calls", RefusalCode.UNSUPPORTED),
        (
            HERMES,
            {"tools": (tool("a", parameters={"x": "y" * MAX_GRAMMAR_CHARS}),)},
            "tools",
            None,
        ),
    ],
)
def test_what_cannot_be_had_is_refused_by_name(
    form: CallForm | None, more: dict[str, Any], param: str, code: RefusalCode | None
) -> None:
    error = refused(form, **more)
    assert (error.param, error.code) == (param, code or RefusalCode.INVALID_GRAMMAR)
