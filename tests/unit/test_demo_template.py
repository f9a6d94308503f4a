"""The chat template: what it renders, and that training text is rendered exactly so."""

import json
from functools import cache
from random import Random
from typing import Any

import jinja2
import jinja2.ext
import jinja2.sandbox
import pytest

from agent.demo_model import conversations, corpus
from agent.demo_model.example import Turn

TEMPLATE_PATH = corpus.CORPUS_PATH.with_name("chat_template.jinja")
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}},
}


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


@cache
def _template() -> jinja2.Template:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    environment.globals["raise_exception"] = _raise
    return environment.from_string(TEMPLATE_PATH.read_text(encoding="utf-8"))


def render(messages: list[dict[str, Any]], **values: object) -> str:
    return _template().render(messages=messages, **values)


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def test_a_question_opens_the_assistant_turn() -> None:
    assert render([user("Hi <b>!")], add_generation_prompt=True) == (
        "<|im_start|>user\nHi <b>!<|im_end|>\n<|im_start|>assistant\n"
    )


def test_thinking_is_opened_by_the_template() -> None:
    text = render([user("Hi")], add_generation_prompt=True, enable_thinking=True)
    assert text.endswith("<|im_start|>assistant\n<think>\n")


@pytest.mark.parametrize("role", ["system", "developer"])
def test_developer_is_a_system_role(role: str) -> None:
    text = render([{"role": role, "content": "Be brief."}, user("Hi")])
    assert text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi")


def test_text_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "He"}, {"type": "text", "text": "llo"}]
    assert "user\nHello<|im_end|>" in render([{"role": "user", "content": parts}])


def test_an_image_part_is_refused() -> None:
    with pytest.raises(jinja2.TemplateError, match="reads text only"):
        render([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}])


def test_an_unknown_role_is_refused() -> None:
    with pytest.raises(jinja2.TemplateError, match="Unknown role"):
        render([{"role": "wizard", "content": "Hi"}])


def test_reasoning_leaves_the_history() -> None:
    answer = "This is about slots.\n</think>\n\nA slot."
    text = render([user("Hi"), {"role": "assistant", "content": answer}, user("And?")])
    assert "<|im_start|>assistant\nA slot.<|im_end|>\n" in text
    assert "about" not in text


@pytest.mark.parametrize("arguments", [{"city": "Zürich"}, '{"city": "Zürich"}'])
def test_calls_are_rendered_from_objects_and_strings(arguments: object) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    text = render([user("Hi"), {"role": "assistant", "content": None, "tool_calls": [call]}])
    assert text.endswith(
        "<|im_start|>assistant\n<tool_call>\n"
        '{"name": "f", "arguments": {"city": "Zürich"}}\n</tool_call><|im_end|>\n'
    )


def test_two_calls_and_content_stand_on_lines_of_their_own() -> None:
    call = {"function": {"name": "f", "arguments": {}}}
    message = {"role": "assistant", "content": "Wait.", "tool_calls": [call, call]}
    one = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
    assert f"assistant\nWait.\n{one}\n{one}<|im_end|>" in render([user("Hi"), message])


def test_results_of_parallel_calls_share_a_user_turn() -> None:
    results = [{"role": "tool", "content": "1"}, {"role": "tool", "content": "2"}]
    assert render([user("Hi"), *results]).endswith(
        "<|im_start|>user\n<tool_response>\n1\n</tool_response>"
        "\n<tool_response>\n2\n</tool_response><|im_end|>\n"
    )


def test_tools_join_the_system_turn() -> None:
    text = render([{"role": "system", "content": "Be brief."}, user("Hi")], tools=[WEATHER])
    assert text.startswith(conversations.system_text("Be brief.", [WEATHER]))


def _message(turn: Turn) -> dict[str, Any]:
    return {"role": turn.role, "content": turn.prompt}


def test_training_text_is_what_the_template_renders() -> None:
    rng = Random(11)
    for _ in range(60):
        opening = conversations.random_opening(rng)
        tools = [tool.schema for tool in opening.tools]
        system = [{"role": "system", "content": opening.system}] if opening.system else []
        messages: list[dict[str, Any]] = list(system)
        text = opening.text()
        source = conversations.turns(rng, opening, 20)
        for _ in range(6):
            turn, thinks = next(source)
            text += conversations.question_text(turn, thinks=thinks)
            messages.append(_message(turn))
            rendered = render(
                messages, tools=tools, add_generation_prompt=True, enable_thinking=thinks
            )
            assert rendered == text
            text = text.removesuffix("<think>\n") + turn.answer + "<|im_end|>\n"
            messages.append({"role": "assistant", "content": turn.answer})
