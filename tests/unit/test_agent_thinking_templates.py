"""Templates of models that think, from the request to the parsed answer: what `enable_thinking` and
`reasoning_effort` change of the prompt, and where the parser takes the answer up behind it."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from agent.chat.output import OutputFormat, joined, parser_for
from agent.chat.template import template_variables
from agent.chat.template_frames import RenderJob
from agent.chat.template_worker import render
from protocol.chat import Message
from protocol.generation import ContentDelta, GenerationRequest, ReasoningDelta, StepDelta

USER = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
QWEN_3 = USER + (
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
QWEN_3_THINKING = USER + "{{ '<|im_start|>assistant\n<think>\n' }}"
DEEPSEEK_R1 = "{% for m in messages %}<｜User｜>{{ m.content }}{% endfor %}<｜Assistant｜><think>\n"
DEEPSEEK_V31 = (
    "{% if not thinking is defined %}{% set thinking = false %}{% endif %}"
    "{% for m in messages %}<｜User｜>{{ m.content }}{% endfor %}<｜Assistant｜>"
    "{% if not thinking %}{{ '</think>' }}{% else %}{{ '<think>' }}{% endif %}"
)
GLM = (
    "[gMASK]<sop>{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% endfor %}<|assistant|>"
    "{{ '\n<think></think>' if enable_thinking is defined and not enable_thinking else '' }}"
)
GRANITE = (
    "{% if thinking %}<|start_of_role|>system<|end_of_role|>Write your thoughts after 'Here is my "
    "thought process:' and your answer after 'Here is my response:'.<|end_of_text|>{% endif %}"
    "{% for m in messages %}<|start_of_role|>{{ m.role }}<|end_of_role|>{{ m.content }}{% endfor %}"
    "<|start_of_role|>assistant<|end_of_role|>"
)
MAGISTRAL = (
    "[SYSTEM_PROMPT]First draft your thinking: [THINK]thoughts[/THINK][/SYSTEM_PROMPT]"
    "{% for m in messages %}[INST]{{ m.content }}[/INST]{% endfor %}"
)
GPT_OSS = (
    "{% if reasoning_effort is not defined %}{% set reasoning_effort = 'medium' %}{% endif %}"
    "<|start|>system<|message|>Reasoning: {{ reasoning_effort }}<|end|>"
    "{# history: <|channel|>analysis #}"
    "{% for m in messages %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endfor %}"
    "<|start|>assistant"
)
GEMMA = (
    "{% for m in messages %}<start_of_turn>{{ m.role }}\n{{ m.content }}<end_of_turn>\n{% endfor %}"
    "<start_of_turn>model\n"
)

HM, FOUR = ReasoningDelta("Hm."), ContentDelta("Four.")


class Case(NamedTuple):
    """What a model writes behind its template's prompt, and what a client is given of it."""

    template: str
    thinking: bool | None
    ends_with: str
    text: str
    gives: StepDelta


CASES = {
    "Qwen3": Case(QWEN_3, True, "assistant\n", "<think>\nHm.\n</think>\n\nFour.", (HM, FOUR)),
    "Qwen3, unasked": Case(QWEN_3, None, "assistant\n", "<think>Hm.</think>Four.", (HM, FOUR)),
    "Qwen3, not": Case(QWEN_3, False, "</think>\n\n", "Four.", "Four."),
    "Qwen3 Thinking": Case(
        QWEN_3_THINKING, None, "<think>\n", "Hm.\n</think>\n\nFour.", (HM, FOUR)
    ),
    "DeepSeek R1": Case(DEEPSEEK_R1, None, "<think>", "Hm.\n</think>\n\nFour.", (HM, FOUR)),
    "DeepSeek V3.1": Case(DEEPSEEK_V31, True, "<think>", "Hm.</think>Four.", (HM, FOUR)),
    "DeepSeek V3.1, not": Case(DEEPSEEK_V31, False, "</think>", "Four.", "Four."),
    "DeepSeek V3.1, unasked": Case(DEEPSEEK_V31, None, "</think>", "Four.", "Four."),
    "GLM": Case(GLM, True, "<|assistant|>", "\n<think>Hm.</think>\nFour.", (HM, FOUR)),
    "GLM, not": Case(GLM, False, "<think></think>", "\nFour.", "\nFour."),
    "Granite": Case(
        GRANITE,
        True,
        "assistant<|end_of_role|>",
        "Here is my thought process: Hm.\n\nHere is my response: Four.",
        (HM, FOUR),
    ),
    "Granite, not": Case(GRANITE, False, "assistant<|end_of_role|>", "Four.", "Four."),
    "Magistral": Case(MAGISTRAL, None, "[/INST]", "[THINK]Hm.[/THINK]Four.", (HM, FOUR)),
    "gpt-oss": Case(
        GPT_OSS,
        True,
        "<|start|>assistant",
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Four.",
        (HM, FOUR),
    ),
    "one that does not think": Case(
        GEMMA, True, "model\n", "<think>Hm.</think>Four.", "<think>Hm.</think>Four."
    ),
}


def prompt_of(template: str, **fields: Any) -> str:
    request = GenerationRequest(messages=(Message(role="user", content="2 + 2?"),), **fields)
    variables = template_variables(request, template, bos_token="", eos_token="")
    reply = render(RenderJob(template=template, variables=variables))
    assert reply.kind == "rendered", reply.text
    return reply.text


@pytest.mark.parametrize("name", CASES)
def test_thoughts_are_told_from_the_answer_wherever_the_template_begins_it(name: str) -> None:
    case = CASES[name]
    prompt = prompt_of(case.template, enable_thinking=case.thinking)
    assert prompt.rstrip("\n").endswith(case.ends_with.rstrip("\n"))
    form = OutputFormat.of_template(case.template)
    parser = parser_for(form, prompt, tools=frozenset(), seed=0, trace_id="")
    assert joined(parser.feed(case.text, tokens=1), parser.finish()) == case.gives


def test_granite_is_told_to_think_only_if_it_shall() -> None:
    assert "thought process" in prompt_of(GRANITE, enable_thinking=True)
    assert "thought process" not in prompt_of(GRANITE, enable_thinking=False)
    assert "thought process" not in prompt_of(GRANITE)
    own = {"thinking": True}
    assert "thought process" in prompt_of(GRANITE, enable_thinking=False, template_arguments=own)


def test_a_level_of_effort_reaches_a_template_that_knows_levels() -> None:
    assert "Reasoning: medium" in prompt_of(GPT_OSS)
    effort = {"reasoning_effort": "high"}
    assert "Reasoning: high" in prompt_of(GPT_OSS, template_arguments=effort)
