"""Which formats a chat template calls for, what settings change of it, and what a form promises."""

from __future__ import annotations

from typing import get_args

import pytest

from agent.chat.output import OutputFormat, joined, parser_for
from agent.chat.reasoning_formats import REASONING_FORMATS
from agent.chat.tool_calls.table import TOOL_FORMATS
from agent.grammar.reasoning_block import ReasoningBlock
from agent.settings import ReasoningFormatName, ToolFormatName
from protocol.generation import ContentDelta, ReasoningDelta, StepDelta, ToolCallDelta
from tests.support.written_calls import written

QWEN = """{%- if tools %}{{- '<|im_start|>system\\n# Tools\\n\\n<tools>' }}
{%- for tool in tools %}{{- tool | tojson }}{%- endfor %}
{{- '</tools>\\n\\nFor each function call, return a json object with function name and arguments
within <tool_call></tool_call> XML tags:\\n<tool_call>\\n{"name": <function-name>, "arguments":
<args-json-object>}\\n</tool_call><|im_end|>\\n' }}{%- endif %}"""
QWEN_THINKING = QWEN + "{% if not enable_thinking %}{{- '<think>\\n\\n</think>\\n\\n' }}{% endif %}"
LLAMA = """{%- if builtin_tools is defined %}{{- "Environment: ipython\\n" }}{%- endif %}
{{- '<|start_header_id|>user<|end_header_id|>\\n\\n' }}{{- tools | tojson }}
{{- 'Respond in the format {"name": function name, "parameters": dictionary of argument name and
its value}. Do not use variables.' }}{{- "<|python_tag|>" + tool_call.name }}"""
LLAMA_SMALL = LLAMA.replace('"<|python_tag|>" + tool_call.name', "tool_call.name")
MISTRAL = """{%- if tools is not none %}[AVAILABLE_TOOLS][{% for tool in tools %}{{ tool | tojson }}
{% endfor %}][/AVAILABLE_TOOLS]{% endif %}{{- "[TOOL_CALLS][" }}{{- call.function | tojson }}"""
MISTRAL_NAMED = """{{- '[AVAILABLE_TOOLS]' + (tools | tojson) + '[/AVAILABLE_TOOLS]' }}
{{- '[TOOL_CALLS]' + tool.function.name + '[ARGS]' + arguments }}"""
MAGISTRAL = "{{- '[THINK]' + message.reasoning + '[/THINK]' }}" + MISTRAL_NAMED
GRANITE = """{%- if tools %}{{- '<|start_of_role|>tools<|end_of_role|>' }}{{- tools | tojson }}
When a tool is required to answer the user's query, respond with <|tool_call|> followed by a JSON
list of tools used.{%- endif %}"""
GRANITE_THINKING = (
    GRANITE
    + """{%- if thinking %}Respond as follows: 1) Write down your thoughts
after 'Here is my thought process:' and your answer after 'Here is my response:'.{% endif %}"""
)
GRANITE_TAGS = (
    GRANITE
    + """{%- if thinking %}Write your thoughts between <think></think> and write
your response between <response></response> for each user query.{% endif %}"""
)
GRANITE_PLAIN = GRANITE.replace("<|tool_call|>", "<tool_call>")
GRANITE_4 = """{{- '<|start_of_role|>system<|end_of_role|>' }}{{ tools | tojson }}
return a json object within <tool_call></tool_call> XML tags"""
DEEPSEEK_V3 = """{{'<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>' + tool['type'] + '<｜tool▁sep｜>' +
tool['function']['name'] + '\\n' + '```json' + '\\n' + arguments + '\\n' + '```' +
'<｜tool▁call▁end｜>'}}"""
DEEPSEEK_R1 = DEEPSEEK_V3 + "{{'<｜Assistant｜><think>\\n'}}"
DEEPSEEK_V31 = """{{'<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>'+ tool['function']['name'] +
'<｜tool▁sep｜>' + tool['function']['arguments'] + '<｜tool▁call▁end｜>'}}{{'</think>'}}"""
GPT_OSS = """{{- "<|start|>assistant<|channel|>analysis<|message|>" + thinking + "<|end|>" }}
{{- "<|start|>assistant to=functions." + name + "<|channel|>commentary json<|message|>" }}
{{- call.arguments | tojson }}{{- "<|call|>" }}"""
QWEN_CODER = """{{- '<tool_call>\\n<function=example>\\n<parameter=example>\\nvalue' }}
{{- '<function=' + tool_call.name + '>\\n' }}{{- tools | tojson }}"""
GLM = """Output the call like <tool_call>{function-name}\\n<arg_key>{key}</arg_key>\\n<arg_value>
{value}</arg_value></tool_call>{{ tools | tojson }}{{ '<think></think>' }}"""
MINIMAX = """{%- set toolcall_begin_token = '<minimax:tool_call>' -%}<invoke name="tool">
<parameter name="key">value</parameter></invoke>{{ tools | tojson }}{{ '<think>\\n' }}"""
KIMI = """<|tool_calls_section_begin|>{%- for tool_call in message['tool_calls'] -%}
<|tool_call_begin|>{{ tool_call['id'] }}<|tool_call_argument_begin|>{{ arguments }}<|tool_call_end|>
{%- endfor -%}<|tool_calls_section_end|>{{ tools | tojson }}"""
UNKNOWN = (
    "{% if tools %}You may use these: {{ tools | tojson }}{% endif %}{{ messages[0].content }}"
)
PLAIN = "{% for m in messages %}{{ m.role }} (who has tools): {{ m.content }}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "tool_calls", "reasoning"),
    [
        (QWEN, "hermes", ""),
        (QWEN_THINKING, "hermes", "think"),
        (LLAMA, "llama", ""),
        (LLAMA_SMALL, "llama", ""),
        (MISTRAL, "mistral", ""),
        (MISTRAL_NAMED, "mistral-named", ""),
        (MAGISTRAL, "mistral-named", "mistral"),
        (GRANITE, "granite", ""),
        (GRANITE_THINKING, "granite", "granite"),
        (GRANITE_TAGS, "granite", "granite-tags"),
        (GRANITE_PLAIN, "granite", ""),
        (GRANITE_4, "hermes", ""),
        (DEEPSEEK_V3, "deepseek-fenced", ""),
        (DEEPSEEK_R1, "deepseek-fenced", "think"),
        (DEEPSEEK_V31, "deepseek", "think"),
        (GPT_OSS, "harmony", "harmony"),
        (QWEN_CODER, "qwen-coder", ""),
        (GLM, "glm", "think"),
        (MINIMAX, "minimax", "think"),
        (KIMI, "kimi", ""),
        (UNKNOWN, "generic", ""),
        (PLAIN, "", ""),
        ("", "", ""),
    ],
)
def test_the_formats_follow_from_the_template(
    template: str, tool_calls: str, reasoning: str
) -> None:
    found = OutputFormat.of_template(template)
    assert (found.tool_calls, found.reasoning) == (tool_calls, reasoning)


def test_a_setting_wins_over_the_template() -> None:
    found = OutputFormat.of_template(QWEN_THINKING, reasoning="mistral", tool_calls="llama")
    assert found == OutputFormat(reasoning="mistral", tool_calls="llama")
    nothing = OutputFormat.of_template(QWEN_THINKING, reasoning="none", tool_calls="none")
    assert nothing == OutputFormat()
    assert nothing.call_form is None
    assert nothing.reasoning_block("<think>\n") is None


def test_the_settings_have_the_names_of_the_tables() -> None:
    assert get_args(ToolFormatName) == ("auto", "none", *TOOL_FORMATS)
    assert get_args(ReasoningFormatName) == ("auto", "none", *REASONING_FORMATS)


def test_no_two_formats_have_one_revision() -> None:
    formats = [
        OutputFormat(),
        *(OutputFormat(tool_calls=name) for name in TOOL_FORMATS),
        *(OutputFormat(reasoning=name) for name in REASONING_FORMATS),
        OutputFormat(reasoning="harmony", tool_calls="harmony"),
    ]
    assert len({row.revision for row in formats}) == len(formats)
    assert OutputFormat().revision == "plain"


def test_the_parsers_are_shown_the_control_tokens_that_they_need_and_no_others() -> None:
    magistral = OutputFormat(reasoning="mistral", tool_calls="mistral-named")
    assert set(magistral.specials(with_tools=False)) == {"[THINK]", "[/THINK]"}
    assert {"[TOOL_CALLS]", "[ARGS]"} <= set(magistral.specials(with_tools=True))
    assert OutputFormat().specials(with_tools=True) == ()


def test_a_grammar_is_told_of_the_block_before_it() -> None:
    granite = OutputFormat(reasoning="granite")
    words = ("Here is my thought process:", "Here is my response:")
    assert granite.reasoning_block("<|assistant|>") == ReasoningBlock(*words)
    think = OutputFormat(reasoning="think")
    assert think.reasoning_block("<think>\n") == ReasoningBlock("<think>", "</think>", True)


def test_a_prompt_that_ends_in_a_channel_begins_there() -> None:
    prompt = "<|start|>assistant<|channel|>analysis<|message|>"
    target = parser_for(
        OutputFormat(reasoning="harmony"), prompt, tools=set(), seed=0, trace_id="t"
    )
    thought = target.feed("Hm.<|end|><|start|>assistant<|channel|>final<|message|>Hi", tokens=1)
    assert thought == (ReasoningDelta("Hm."), ContentDelta("Hi"))
    assert target.reasoning_tokens == 1
    assert target.feed(" there", tokens=1) == " there"
    assert target.reasoning_tokens == 1


@pytest.mark.parametrize("name", TOOL_FORMATS)
@pytest.mark.parametrize("calls", [1, 2])
def test_what_a_grammar_makes_of_the_form_is_calls_to_the_parser(name: str, calls: int) -> None:
    form = TOOL_FORMATS[name].form
    arguments = written(form, {"a": 1})
    one = f"{form.before_name}add{form.before_arguments}{arguments}{form.after_arguments}"
    calls = 1 if form.between_calls is None else calls
    text = form.opening + form.before_first + (form.between_calls or "").join([one] * calls)
    target = parser_for(OutputFormat(tool_calls=name), "", tools={"add"}, seed=0, trace_id="t")
    whole: StepDelta = joined(target.feed(text + form.after_last, tokens=1), target.finish())
    assert all(isinstance(delta, ToolCallDelta) for delta in whole)
    assert [getattr(delta, "name", "") for delta in whole] == ["add", ""] * calls
    assert [getattr(delta, "arguments", "") for delta in whole] == ["", '{"a": 1}'] * calls


def test_ids_of_calls_are_as_short_as_the_templates_want_them() -> None:
    target = parser_for(OutputFormat(tool_calls="mistral"), "", tools={"f"}, seed=1, trace_id="t")
    head = target.feed("[TOOL_CALLS]f{}", tokens=1)[0]
    assert isinstance(head, ToolCallDelta)
    assert len(head.id) == 9
    assert head.id.isalnum()
