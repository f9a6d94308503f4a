"""Harmony under a grammar: thoughts stay free on their channel, the answer is held on its own."""

from __future__ import annotations

import json

import pytest
from msgspec import structs

from agent.chat.channels import SPECIALS, block_before
from agent.chat.output import OutputFormat, joined, parser_for
from agent.chat.tool_calls.table import TOOL_FORMATS
from agent.engine.sampling.grammar import Grammars
from agent.engine.sampling.grammar_constraint import GrammarConstraint
from agent.grammar.grammar_frames import CompileJob
from agent.grammar.grammar_worker import checked
from agent.grammar.reasoning_block import ReasoningBlock
from agent.grammar.tools import ToolGrammar, ToolSchema
from protocol.generation import ContentDelta, ReasoningDelta
from protocol.grammar import Grammar
from tests.support.words import Words

PROMPT = "<|start|>user<|message|>Hi<|end|><|start|>assistant"
THOUGHT = "<|channel|>analysis<|message|>the {cat} </a>\n<|end|><|start|>assistant"
FINAL = "<|channel|>final<|message|>"
JSON = '{"a": 12}'
CALL = "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}"
SCHEMA = Grammar(kind="json_schema", text=json.dumps({"type": "object", "required": ["a"]}))
TOOLS = ToolGrammar(
    form=TOOL_FORMATS["harmony"].form,
    tools=(ToolSchema("f", '{"type":"object"}', binds=True, place=0),),
    must_call=False,
    several=False,
)
MUST_CALL = structs.replace(TOOLS, must_call=True)

WORDS = Words(control=SPECIALS)
WORDS.end_tokens = (WORDS.id_of("<|return|>"), WORDS.id_of("<|call|>"))
GRAMMARS = Grammars(WORDS)


def block(prompt: str = PROMPT) -> ReasoningBlock:
    found = block_before(prompt)
    assert found is not None
    return found


def can_be_written(constrained: GrammarConstraint, text: str) -> bool:
    """Whether the grammar allows each token of a text, one after the other."""
    for token in WORDS.tokenize(text).tolist():
        assert constrained.allows(token) == constrained.mask()[token]
        if not constrained.allows(token):
            return False
        constrained.accept(token)
    return True


def held(**fields: ToolGrammar | None) -> GrammarConstraint:
    """An answer that has to be JSON, if no tools are demanded."""
    tools = fields.get("tools")
    grammar = None if tools is not None and tools.must_call else SCHEMA
    return GRAMMARS.constraint(grammar, block(), tools)


@pytest.mark.parametrize("thoughts", [0, 1, 3])
def test_thoughts_are_free_and_the_final_message_is_held(thoughts: int) -> None:
    answer = held()
    assert can_be_written(answer, THOUGHT * thoughts + FINAL + JSON)
    assert answer.is_complete
    assert not can_be_written(held(), THOUGHT * thoughts + FINAL + "the")


def test_what_was_held_is_reasoning_and_content_to_the_parser() -> None:
    parser = parser_for(OutputFormat(reasoning="harmony"), PROMPT, tools=set(), seed=0, trace_id="")
    whole = joined(parser.feed(THOUGHT + FINAL + JSON, tokens=9), parser.finish())
    assert whole == (ReasoningDelta("the {cat} </a>\n"), ContentDelta(JSON))


@pytest.mark.parametrize("text", ["the", JSON, "<|channel|>commentary<|message|>", f"{THOUGHT}the"])
def test_nothing_else_stands_beside_the_final_message(text: str) -> None:
    assert not can_be_written(held(), text)


def test_a_thought_has_to_end_before_the_answer_may() -> None:
    answer = held()
    assert can_be_written(answer, "<|channel|>analysis<|message|>the cat")
    assert not any(answer.allows(end) for end in WORDS.end_tokens)


def test_a_demanded_call_may_be_thought_about() -> None:
    for thoughts in (0, 2):
        answer = held(tools=MUST_CALL)
        assert can_be_written(answer, THOUGHT * thoughts + CALL)
        assert answer.allows(WORDS.id_of("<|call|>"))
    assert not can_be_written(held(tools=MUST_CALL), THOUGHT + FINAL)


def test_beside_tools_the_answer_is_a_call_or_held() -> None:
    assert can_be_written(held(tools=TOOLS), THOUGHT + CALL)
    assert can_be_written(held(tools=TOOLS), THOUGHT + FINAL + JSON)
    assert not can_be_written(held(tools=TOOLS), THOUGHT + FINAL + "the")


def test_a_prompt_may_have_begun_the_thought() -> None:
    opened = block(PROMPT + "<|channel|>analysis<|message|>So")
    assert opened.is_open
    answer = GRAMMARS.constraint(SCHEMA, opened)
    assert can_be_written(answer, f" the cat<|end|><|start|>assistant{THOUGHT}{FINAL}{JSON}")


def test_who_was_told_not_to_think_answers_at_once() -> None:
    answer = GRAMMARS.constraint(SCHEMA, structs.replace(block(), opening=""))
    assert not can_be_written(answer, "<|channel|>analysis")
    answer = GRAMMARS.constraint(SCHEMA, structs.replace(block(), opening=""))
    assert can_be_written(answer, FINAL + JSON)


@pytest.mark.parametrize("prompt", ["", "Hi", PROMPT + FINAL, PROMPT + "<|channel|>commentary"])
def test_a_prompt_that_ends_elsewhere_has_no_place_for_thoughts(prompt: str) -> None:
    assert block_before(prompt) is None


@pytest.mark.parametrize("tools", [None, TOOLS, MUST_CALL])
def test_it_compiles_without_control_tokens_too(tools: ToolGrammar | None) -> None:
    grammar = None if tools is MUST_CALL else SCHEMA
    assert not checked(CompileJob(grammar=grammar, reasoning=block(), tools=tools)).refusal
