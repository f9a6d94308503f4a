"""System turns reach the model wherever a client puts them, whatever its chat template takes."""

from __future__ import annotations

from typing import Any

import pytest

from agent.chat.template import template_variables
from agent.chat.template_frames import RenderJob
from agent.chat.template_worker import render
from protocol.chat import FunctionCall, Message, ToolCall
from protocol.generation import GenerationRequest

PLAIN = "{% for m in messages %}[{{ m.role }}:{{ m.content }}]{% endfor %}"
FIRST_ONLY = (
    "{% for m in messages %}{% if m.role == 'system' and not loop.first %}"
    "{{ raise_exception('System message must be at the beginning.') }}{% endif %}"
    "[{{ m.role }}:{{ m.content }}]{% endfor %}"
)
ALTERNATING = (
    "{% if messages[0].role == 'system' %}{{ '<' + messages[0].content + '>' }}"
    "{% set turns = messages[1:] %}{% else %}{% set turns = messages %}{% endif %}"
    "{% for m in turns | rejectattr('role', 'equalto', 'tool') "
    "| rejectattr('tool_calls', 'defined') %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate.') }}{% endif %}{% endfor %}"
    "{% for m in turns %}[{{ m.role }}:{{ m.content }}]{% endfor %}"
)
NONE_AT_ALL = (
    "{% for m in messages %}"
    "{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate.') }}{% endif %}"
    "[{{ m.role }}:{{ m.content }}]{% endfor %}"
)
LEAVES_OUT = (
    "{% for m in messages %}{% if m.role != 'system' or loop.first %}[{{ m.role }}:{{ m.content }}]"
    "{% endif %}{% endfor %}"
)
REFUSING = [FIRST_ONLY, ALTERNATING, LEAVES_OUT]


def said(*turns: str) -> list[Message]:
    roles = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}
    made: list[Message] = []
    for turn in turns:
        role: Any = roles[turn[0]]
        made.append(Message(role=role, content=turn[2:]))
    return made


def prompt_of(template: str, messages: list[Message]) -> str:
    request = GenerationRequest(messages=tuple(messages))
    variables = template_variables(request, template, bos_token="", eos_token="")
    reply = render(RenderJob(template=template, variables=variables))
    assert reply.kind == "rendered", reply.text
    return reply.text


def test_a_template_that_takes_them_anywhere_gets_them_untouched() -> None:
    turns = said("s first", "u hi", "s be brief", "s and kind", "a yes", "s more", "u go")
    assert prompt_of(PLAIN, turns) == (
        "[system:first][user:hi][system:be brief][system:and kind][assistant:yes]"
        "[system:more][user:go]"
    )


@pytest.mark.parametrize("template", REFUSING)
def test_one_behind_the_users_first_turn_is_joined_to_it(template: str) -> None:
    prompt = prompt_of(template, said("s first", "u hi", "s be brief"))
    assert prompt.endswith("[user:hi\n\nbe brief]")
    assert "first" in prompt


@pytest.mark.parametrize("template", [*REFUSING, NONE_AT_ALL])
def test_a_longer_talk_begins_with_the_prompt_of_the_shorter_one(template: str) -> None:
    shorter = said("u hi", "s be brief")
    longer = [*shorter, *said("a yes", "s now in French", "u go on")]
    assert prompt_of(template, longer) == (
        prompt_of(template, shorter) + "[assistant:yes][user:now in French\n\ngo on]"
    )


@pytest.mark.parametrize("template", REFUSING)
def test_one_between_two_of_the_users_turns_makes_one_of_them(template: str) -> None:
    prompt = prompt_of(template, said("u hi", "s be brief", "s be kind", "u go", "a yes"))
    assert prompt == "[user:hi\n\nbe brief\n\nbe kind\n\ngo][assistant:yes]"


def test_one_behind_a_tools_result_is_joined_to_the_result() -> None:
    call = ToolCall(id="c", function=FunctionCall(name="f", arguments="{}"))
    called = Message(role="assistant", tool_calls=(call,))
    turns = [*said("u hi"), called, *said("t 42", "s be brief", "a done", "u go")]
    assert prompt_of(ALTERNATING, turns) == (
        "[user:hi][assistant:][tool:42\n\nbe brief][assistant:done][user:go]"
    )


def test_the_system_prompt_itself_goes_to_the_user_where_templates_know_none() -> None:
    turns = said("s you are a cook", "u hi", "s be brief", "a yes")
    assert prompt_of(NONE_AT_ALL, turns) == (
        "[user:you are a cook\n\nhi\n\nbe brief][assistant:yes]"
    )


def test_a_second_system_prompt_is_joined_to_the_first() -> None:
    assert prompt_of(ALTERNATING, said("s a", "s b", "u hi")) == "<a\n\nb>[user:hi]"


def test_users_turns_that_no_system_turn_parts_stay_two() -> None:
    refused = RenderJob(
        template=ALTERNATING,
        variables={"messages": [{"role": "user", "content": "a"}] * 2},
    )
    assert render(refused).text == "Roles must alternate."
    assert prompt_of(FIRST_ONLY, said("u a", "u b", "a c")) == "[user:a][user:b][assistant:c]"


def test_a_template_that_fails_at_everything_says_so_in_its_own_words() -> None:
    template = "{{ raise_exception('never') }}"
    variables = {"messages": [{"role": "system", "content": "a"}]}
    assert render(RenderJob(template=template, variables=variables)).text == "never"
