"""Tool calls under a grammar: what may be written of them, where, and what stays free."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from agent.chat.tool_calls.parser import CallParser
from agent.chat.tool_calls.table import TOOL_FORMATS
from agent.engine.sampling.grammar_constraint import GrammarConstraint
from agent.errors import GrammarRefused
from agent.grammar.call_form import CallForm
from agent.grammar.reasoning_block import ReasoningBlock
from agent.grammar.tools import ToolGrammar, ToolSchema
from protocol.generation import ContentDelta, ToolCallDelta
from protocol.grammar import Grammar
from tests.support.constrained import (
    END,
    GRAMMARS,
    OTHER_END,
    WORDS,
    random_sentence,
    refuses,
    take,
)
from tests.support.written_calls import written

WEATHER: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 8},
        "days": {"$ref": "#/$defs/days"},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
    "$defs": {"days": {"type": "integer", "minimum": 1, "maximum": 14}},
}
NOTHING: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
HERMES = TOOL_FORMATS["hermes"].form
SCHEMAS = {"weather": WEATHER, "weather_now": NOTHING}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo", "days": 3}}\n</tool_call>'
NOW = '<tool_call>\n{"name": "weather_now", "arguments": {}}\n</tool_call>'
THINK = ReasoningBlock("<think>", "</think>")
BRACKETS = CallForm(
    opening="<|start|>",
    before_first="[",
    before_name='{"name": "',
    before_arguments='", "arguments": ',
    after_arguments="}",
    between_calls=", ",
    after_last="]",
    specials=("<|start|>", "<|mark|>"),
)
"""A control token opens the calls, which are one list."""
HEADERS = CallForm(
    opening="<|start|>to=",
    before_name="",
    before_arguments="<|mark|>",
    after_arguments="<|stop|>",
    between_calls=None,
    specials=("<|start|>", "<|mark|>", "<|stop|>"),
)
"""A control token that opens a call or something else: what follows it decides. An end token is
the end of a call."""
WHOLE = CallForm(
    opening="",
    before_name='{"name": "',
    before_arguments='", "parameters": ',
    after_arguments="}",
    between_calls="; ",
)
"""Nothing tells the beginning of a call."""


def tools(form: CallForm = HERMES, *, must_call: bool = True, several: bool = True) -> ToolGrammar:
    schemas = tuple(
        ToolSchema(name, json.dumps(schema), binds=True, place=place)
        for place, (name, schema) in enumerate(SCHEMAS.items())
    )
    return ToolGrammar(form=form, tools=schemas, must_call=must_call, several=several)


def must(form: CallForm = HERMES, **more: Any) -> GrammarConstraint:
    return GRAMMARS.constraint(None, more.pop("reasoning", None), tools(form, **more))


def may(form: CallForm = HERMES, **more: Any) -> GrammarConstraint:
    return must(form, must_call=False, **more)


def parsed(text: str, name: str = "hermes") -> tuple[str, list[tuple[str, Any]]]:
    """The content of a model's text, and its calls' names and arguments."""
    parser = CallParser(TOOL_FORMATS[name].writing, SCHEMAS.keys(), str, SCHEMAS)
    content, names, arguments = "", list[str](), dict[int, str]()
    for delta in [*parser.feed(text), *parser.finish()]:
        match delta:
            case ContentDelta(piece):
                content += piece
            case ToolCallDelta(index, _, name, piece):
                names += [name] if name else []
                arguments[index] = arguments.get(index, "") + piece
    return content, [(name, json.loads(arguments[i])) for i, name in enumerate(names)]


def closed(constrained: GrammarConstraint) -> bool:
    """Whether the text may end with either end token, and with nothing else."""
    ends = np.flatnonzero(constrained.mask()).tolist() == [END, OTHER_END]
    assert constrained.is_complete == ends
    return ends


# --- a tool must be called ---


@pytest.mark.parametrize("seed", range(20))
def test_an_answer_that_must_call_is_a_call_that_fits_its_tool(seed: int) -> None:
    text = WORDS.text_of(random_sentence(must(), seed)).decode()
    content, calls = parsed(text)
    assert not content
    for name, arguments in calls:
        jsonschema.validate(arguments, SCHEMAS[name])
    assert len(calls) == 1


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", TOOL_FORMATS)
def test_what_a_grammar_lets_be_written_is_a_call_in_every_format(name: str, seed: int) -> None:
    constrained = must(TOOL_FORMATS[name].form)
    content, calls = parsed(WORDS.text_of(random_sentence(constrained, seed)).decode(), name)
    assert not content
    assert calls
    for called, arguments in calls:
        jsonschema.validate(arguments, SCHEMAS[called])


@pytest.mark.parametrize("name", [name for name, row in TOOL_FORMATS.items() if row.form.opening])
def test_a_call_that_may_come_is_bound_from_its_opening_on_in_every_format(name: str) -> None:
    form = TOOL_FORMATS[name].form
    answer = take(may(form), "the cat\n" + form.opening + form.before_first + form.before_name)
    assert refuses(answer, "the")
    take(answer, "weather_now" + form.before_arguments + written(form, {}) + form.after_arguments)
    take(answer, form.after_last)
    assert answer.allows(END)


def test_both_tools_may_be_called_and_nothing_else_be_written() -> None:
    answer = must()
    assert refuses(answer, "the")
    take(answer, CALL)
    assert answer.allows(END)
    take(answer, "\n" + NOW)
    assert refuses(answer, "the")
    assert answer.allows(END)
    assert not answer.is_complete


def test_one_call_is_all_where_calls_are_not_parallel() -> None:
    assert closed(take(must(several=False), CALL))


@pytest.mark.parametrize(
    ("begun", "next_text"),
    [
        ('{"name": "', "the"),
        ('{"name": "weather', '", "x'),
        ('{"name": "weather", "arguments": {"', "days"),
        ('{"name": "weather", "arguments": {"city": "Oslo", "days": 3', "}\n"),
        ('{"name": "weather", "arguments": {"city": "Oslo", "days": 1', "5"),
        ('{"name": "weather_now", "arguments": {', '"'),
        ('{"name": "weather_now", "arguments": {}', "}}"),
    ],
)
def test_what_does_not_fit_is_refused(begun: str, next_text: str) -> None:
    answer = take(must(), f"<tool_call>\n{begun}")
    for character in next_text[:-1]:
        if refuses(answer, character):
            return
        take(answer, character)
    assert refuses(answer, next_text[-1])


def test_a_model_may_think_before_it_must_call() -> None:
    take(must(reasoning=THINK), f"<think> the {CALL} </think>\n\n{CALL}")
    take(must(reasoning=THINK), CALL)
    open_block = ReasoningBlock("<think>", "</think>", True)
    answer = take(must(reasoning=open_block), "the cat </think>")
    assert refuses(answer, "the")
    take(answer, CALL)


def test_calls_may_be_one_list_behind_a_control_token() -> None:
    call = '{"name": "weather_now", "arguments": {}}'
    answer = must(BRACKETS)
    assert refuses(answer, "the")
    assert refuses(answer, "[")
    answer.accept(WORDS.id_of("<|start|>"))
    take(answer, f"[{call}, {call}")
    assert not answer.allows(END)
    assert closed(take(answer, "]"))


def test_a_control_token_may_stand_before_the_arguments() -> None:
    answer = must(HEADERS)
    answer.accept(WORDS.id_of("<|start|>"))
    take(answer, "to=weather_now")
    answer.accept(WORDS.id_of("<|mark|>"))
    assert take(answer, "{}").allows(END)


def test_calls_that_are_the_whole_answer_need_no_opening() -> None:
    call = '{"name": "weather_now", "parameters": {}}'
    answer = take(must(WHOLE), call)
    assert answer.allows(END)
    take(answer, f"; {call}")


# --- a tool may be called ---


@pytest.mark.parametrize(
    "text", ["the cat", "", "a <tool_", '{"name": "no"}', "<think> hm </think>"]
)
def test_without_an_opening_all_text_is_free(text: str) -> None:
    answer = take(may(), text)
    assert answer.allows(END)
    assert not refuses(answer, "the")


@pytest.mark.parametrize("cut", ["<tool_call>", "<tool_|call>{", "<|tool_call>", "<tool_call|>"])
def test_from_its_opening_on_a_call_is_held_to_its_tool(cut: str) -> None:
    answer = take(may(), "the cat ")
    for piece in cut.removesuffix("{").split("|"):
        take(answer, piece)
    assert not answer.allows(END)
    assert not answer.allows(WORDS.id_of("{"))
    take(answer, '\n{"name": "weather", "arguments": {"city": "Oslo", "days": ')
    assert refuses(answer, "null")
    take(answer, "3}}\n</tool_call>")
    assert answer.allows(END)
    take(answer, f" the cat, {NOW}\n{CALL} and so on")
    assert answer.allows(END)


@given(seed=st.integers(0, 2**32), text=st.text(max_size=20).filter(lambda text: "<" not in text))
@settings(max_examples=30, deadline=None)
def test_whatever_stands_around_a_call_fits_its_tool_and_the_text_stays(
    seed: int, text: str
) -> None:
    answer = take(may(several=False), f"{text}<tool_call>")
    call = WORDS.text_of(random_sentence(answer, seed)).decode()
    content, [(name, arguments)] = parsed(f"{text}<tool_call>{call}")
    assert content == text.rstrip()
    jsonschema.validate(arguments, SCHEMAS[name])
    assert closed(answer)


def test_one_call_that_is_not_parallel_ends_the_answer() -> None:
    assert closed(take(may(several=False), f"the cat {CALL}"))
    assert take(may(several=False), "the cat").allows(END)


def test_what_is_thought_about_calls_is_free() -> None:
    answer = take(may(reasoning=THINK), "<think> a <tool_call> the {cat} </think>")
    assert answer.allows(END)
    take(answer, "\n\nthe cat <tool_call>")
    assert refuses(answer, "the")
    take(answer, CALL.removeprefix("<tool_call>"))


def test_thinking_that_has_begun_is_free() -> None:
    block = ReasoningBlock("<think>", "</think>", True)
    answer = take(may(reasoning=block), "a <tool_call> the </think> cat <tool_call>")
    assert refuses(answer, "the")


def test_a_model_that_does_not_think_may_call_at_once() -> None:
    answer = take(may(reasoning=THINK), "<tool_call>")
    assert refuses(answer, "the")
    assert take(may(reasoning=THINK), "\n the <think> a").allows(END)


def test_control_tokens_stay_free_in_text_and_one_may_open_a_call() -> None:
    answer = take(may(BRACKETS), "the ")
    answer.accept(WORDS.id_of("<|mark|>"))
    answer.accept(WORDS.id_of("<|mark|>"))
    take(answer, "cat")
    assert answer.allows(END)
    answer.accept(WORDS.id_of("<|start|>"))
    assert refuses(answer, "the")
    call = '{"name": "weather_now", "arguments": {}}'
    assert take(answer, f"[{call}, {call}] the").allows(END)


def test_a_control_token_opens_a_call_only_with_what_follows_it() -> None:
    answer = may(HEADERS)
    answer.accept(WORDS.id_of("<|start|>"))
    take(answer, "the cat")
    assert answer.allows(END)
    answer.accept(WORDS.id_of("<|start|>"))
    take(answer, "to=")
    assert refuses(answer, "the")
    take(answer, "weather_now")


def test_thinking_between_control_tokens_is_free() -> None:
    block = ReasoningBlock("<|start|>", "<|mark|>")
    answer = may(reasoning=block)
    answer.accept(WORDS.id_of("<|start|>"))
    take(answer, "a <tool_call> the ")
    answer.accept(WORDS.id_of("<|mark|>"))
    take(answer, "cat <tool_call>")
    assert refuses(answer, "the")


# --- beside a format of the text ---


def beside(grammar: Grammar, **more: Any) -> GrammarConstraint:
    return GRAMMARS.constraint(grammar, more.get("reasoning"), tools(must_call=False))


@pytest.mark.parametrize("reasoning", [None, THINK])
def test_the_text_has_its_form_or_is_calls(reasoning: ReasoningBlock | None) -> None:
    grammar = Grammar(kind="json_schema", text='{"type": "object", "required": ["a"]}')
    answer = beside(grammar, reasoning=reasoning)
    assert refuses(answer, "the")
    assert closed(take(answer, '{"a": 1}'))
    assert take(beside(grammar, reasoning=reasoning), CALL).allows(END)


# --- what does not depend on how it came about ---


@given(seed=st.integers(0, 2**32), cut=st.integers(0, 200))
@settings(max_examples=25, deadline=None)
def test_a_call_replayed_elsewhere_goes_on_in_the_same_state(seed: int, cut: int) -> None:
    prefix = WORDS.tokenize("the cat <tool_call>").tolist()
    first = take(may(), "the cat <tool_call>")
    tokens = prefix + random_sentence(first, seed)
    cut = min(cut, len(tokens))
    replayed = may()
    for token in tokens[:cut]:
        replayed.accept(token)
    first.rollback(len(tokens) - cut)
    assert np.array_equal(first.mask(), replayed.mask())
    for token in tokens[cut:]:
        replayed.accept(token)
    assert replayed.allows(END)


def test_long_free_text_costs_the_parser_nothing() -> None:
    answer = take(may(), "the cat " * 2000)
    take(answer, CALL)
    assert answer.allows(END)


def test_many_calls_of_many_tools_stay_within_the_limits() -> None:
    schemas = tuple(
        ToolSchema(f"tool_{number}", json.dumps(WEATHER), binds=True, place=number)
        for number in range(64)
    )
    many = structs.replace(tools(must_call=False), tools=schemas)
    answer = GRAMMARS.constraint(None, None, many)
    for number in range(0, 64, 4):
        take(answer, CALL.replace("weather", f"tool_{number}") + "\n")
    assert answer.allows(END)


def test_a_schema_that_no_grammar_can_express_is_refused_by_name() -> None:
    impossible = ToolSchema("f", '{"type":"object","not":{}}', binds=True, place=0)
    with pytest.raises(GrammarRefused, match="`not`"):
        GRAMMARS.constraint(None, None, structs.replace(tools(), tools=(impossible,)))


def test_a_loosened_tool_takes_any_object() -> None:
    loose = tools(several=False).loosened([0])
    answer = take(GRAMMARS.constraint(None, None, loose), CALL[: CALL.index("{", 14)])
    assert refuses(answer, "[")
    take(answer, '{"a": [1, null]}}\n</tool_call>')
    assert closed(answer)
