"""What templates see of a request."""

from __future__ import annotations

from typing import Any

from agent.chat.template import template_variables
from protocol.chat import (
    FunctionCall,
    FunctionDefinition,
    ImagePart,
    Message,
    TextPart,
    Tool,
    ToolCall,
)
from protocol.generation import GenerationRequest


def seen(request: GenerationRequest, template: str = "") -> dict[str, Any]:
    return template_variables(request, template, bos_token="<s>", eos_token="</s>")


def test_an_image_is_the_marker_where_it_stands() -> None:
    parts = (TextPart(text="a"), ImagePart(data=b"GIF89a"), TextPart(text="b"))
    request = GenerationRequest(messages=(Message(role="user", content=parts),))
    variables = template_variables(request, "", bos_token="", eos_token="", marker="<*>")
    assert variables["messages"] == [{"role": "user", "content": "a<*>b"}]


def test_plain_messages_are_dictionaries_without_empty_keys() -> None:
    request = GenerationRequest(messages=(Message(role="user", content="Hi"),))
    variables = seen(request)
    assert variables["messages"] == [{"role": "user", "content": "Hi"}]
    assert variables["add_generation_prompt"] is True
    assert variables["tools"] is None
    assert (variables["bos_token"], variables["eos_token"]) == ("<s>", "</s>")
    assert "enable_thinking" not in variables


def test_parts_become_one_text_and_no_content_the_empty_one() -> None:
    parts = (TextPart(text="a"), TextPart(text="b"))
    call = ToolCall(id="c1", function=FunctionCall(name="f", arguments='{"a": 1}'))
    request = GenerationRequest(
        messages=(
            Message(role="user", content=parts),
            Message(role="assistant", tool_calls=(call,)),
        )
    )
    user, assistant = seen(request)["messages"]
    assert user["content"] == "ab"
    assert assistant["content"] == ""
    assert assistant["tool_calls"][0]["function"] == {"name": "f", "arguments": {"a": 1}}


def test_arguments_that_are_no_object_stay_text() -> None:
    def shown(arguments: str) -> Any:
        call = ToolCall(function=FunctionCall(name="f", arguments=arguments))
        request = GenerationRequest(messages=(Message(role="assistant", tool_calls=(call,)),))
        return seen(request)["messages"][0]["tool_calls"][0]["function"]["arguments"]

    assert shown("not json") == "not json"
    assert shown("[1]") == "[1]"


def test_ids_are_names_and_numbers_where_a_template_shows_nothing_else_of_a_call() -> None:
    def call(call_id: str, name: str) -> ToolCall:
        return ToolCall(id=call_id, function=FunctionCall(name=name, arguments="{}"))

    request = GenerationRequest(
        messages=(
            Message(role="assistant", tool_calls=(call("call_1", "f"), call("call_2", "g"))),
            Message(role="tool", content="2", tool_call_id="call_2"),
            Message(role="tool", content="1", tool_call_id="call_1"),
            Message(role="assistant", tool_calls=(call("call_1", "f"),)),
            Message(role="tool", content="3", tool_call_id="call_1"),
            Message(role="tool", content="?", tool_call_id="unknown"),
        ),
    )

    def ids(template: str) -> list[str]:
        found: list[str] = []
        for message in seen(request, template)["messages"]:
            found += [each["id"] for each in message.get("tool_calls", ())]
            found += [message["tool_call_id"]] if "tool_call_id" in message else []
        return found

    assert ids("{{ tool_call.id }}<|tool_call_argument_begin|>") == [
        *("functions.f:0", "functions.g:1", "functions.g:1", "functions.f:0"),
        *("functions.f:2", "functions.f:2", "unknown"),
    ]
    assert ids("{{ tool_call.id }}")[:2] == ["call_1", "call_2"]


def test_a_developer_is_a_system_prompt_where_the_template_does_not_know_the_role() -> None:
    request = GenerationRequest(messages=(Message(role="developer", content="x"),))
    assert seen(request)["messages"][0]["role"] == "system"
    assert seen(request, "… 'developer' …")["messages"][0]["role"] == "developer"


def test_a_request_may_add_variables_but_not_replace_its_messages() -> None:
    request = GenerationRequest(
        messages=(Message(role="user", content="Hi"),),
        template_arguments={"messages": [], "style": "brief", "add_generation_prompt": False},
        enable_thinking=False,
        tools=(Tool(function=FunctionDefinition(name="f", parameters={"type": "object"})),),
    )
    variables = seen(request)
    assert len(variables["messages"]) == 1
    assert (variables["style"], variables["add_generation_prompt"]) == ("brief", False)
    assert variables["enable_thinking"] is False
    assert variables["thinking"] is False
    [tool] = variables["tools"]
    assert tool == {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
