"""Constraints over a vocabulary without a model: what may come next, replay, laziness, limits."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.engine.sampling.grammar import GRAMMARS_KEPT, Grammars
from agent.engine.sampling.grammar_constraint import GrammarConstraint
from agent.errors import GrammarRefused, OutsideGrammar
from agent.grammar.reasoning_block import ReasoningBlock
from protocol.grammar import MAX_GRAMMAR_CHARS, Grammar
from tests.support.constrained import (
    END,
    GRAMMARS,
    OTHER_END,
    WORDS,
    random_sentence,
    refuses,
    take,
)
from tests.support.words import Words

PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "role": {"enum": ["admin", "user", None]},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 4}, "maxItems": 3},
        "home": {"$ref": "#/$defs/place"},
        "id": {"type": "string", "pattern": "^[A-F0-9]{4}$"},
        "kind": {"const": "person"},
        "note": {"anyOf": [{"type": "boolean"}, {"type": "number", "exclusiveMinimum": 1.5}]},
    },
    "required": ["name", "age", "role", "tags", "home", "id", "kind", "note"],
    "additionalProperties": False,
    "$defs": {
        "place": {
            "type": "object",
            "properties": {"zip": {"type": "string", "minLength": 2, "maxLength": 5}},
            "required": ["zip"],
            "additionalProperties": False,
        }
    },
}
THINK = ReasoningBlock("<think>", "</think>")


def constraint(kind: Any, text: str = "", **more: Any) -> GrammarConstraint:
    reasoning = more.pop("reasoning", None)
    return GRAMMARS.constraint(Grammar(kind=kind, text=text, **more), reasoning)


@pytest.mark.parametrize("seed", range(25))
def test_whatever_a_schema_lets_through_is_an_instance_of_it(seed: int) -> None:
    tokens = random_sentence(constraint("json_schema", json.dumps(PERSON)), seed)
    value = json.loads(WORDS.text_of(tokens).decode())
    jsonschema.validate(value, PERSON)
    assert list(value) == list(PERSON["properties"])


@pytest.mark.parametrize("layout", [None, 2, 4])
def test_json_may_be_written_on_one_line_or_indented(layout: int | None) -> None:
    text = json.dumps({"name": "the", "list": [1, {"a": None}]}, indent=layout)
    written = take(constraint("json_object"), text)
    assert written.is_complete


def test_the_schema_true_is_any_json() -> None:
    for text in ("[1, null]", '"the"', "{}"):
        assert take(constraint("json_schema", "true"), text).allows(END)


def test_json_cannot_be_filled_with_blanks() -> None:
    started = take(constraint("json_object"), "{\n" + " " * 40)
    assert refuses(started, " ")
    assert refuses(started, "\n")


def test_end_tokens_are_allowed_exactly_where_the_text_may_end() -> None:
    number = constraint("regex", "[0-9]+")
    assert not number.allows(END)
    take(number, "12")
    mask = number.mask()
    assert mask[END]
    assert mask[OTHER_END]
    assert number.allows(OTHER_END)
    assert not number.is_complete
    complete = take(constraint("regex", "12"), "12")
    mask = complete.mask()
    assert np.flatnonzero(mask).tolist() == [END, OTHER_END]
    assert complete.is_complete


def test_a_mask_has_a_place_for_every_token_and_no_control_token_but_ends() -> None:
    mask = constraint("regex", "(?s:.*)").mask()
    assert mask.shape == (WORDS.size,)
    assert not mask[WORDS.id_of("<|start|>")]


@pytest.mark.parametrize("pattern", ["ab*(c|the cat)?", "a/b", "[^a]{2}", "(?i)the", "^x+$", r"\d"])
def test_a_regular_expression_matches_the_whole_text(pattern: str) -> None:
    for seed in range(10):
        text = WORDS.text_of(random_sentence(constraint("regex", pattern), seed)).decode()
        assert re.fullmatch(pattern, text), text


def test_a_text_is_not_cut_into_words_as_a_lexer_would() -> None:
    """GBNF knows no longest match: `a` may leave the last letter for `b`."""
    grammar = 'root ::= a b\na ::= [a-z]+\nb ::= [a-z] "!"'
    assert take(constraint("gbnf", grammar), "abcab!").is_complete
    assert take(constraint("gbnf", 'root ::= "abz" | "a" "bq"'), "abq").is_complete


def test_a_gbnf_grammar_may_recur_to_the_left_and_to_the_right() -> None:
    for grammar in ('root ::= root "a" | "b"', 'root ::= "b" x\nx ::= ("a" x)?'):
        take(constraint("gbnf", grammar), "b" + "a" * 1000)


def test_a_gbnf_grammar_names_tokens() -> None:
    marked = constraint("gbnf", 'root ::= <|mark|> !<|start|> "x" | <[65]> "y"')
    marked.accept(WORDS.id_of("<|mark|>"))
    assert not marked.allows(WORDS.id_of("<|start|>"))
    take(marked, "thex")
    with pytest.raises(GrammarRefused, match="<nothing>"):
        constraint("gbnf", "root ::= <nothing>")


def test_a_lark_grammar_is_taken_as_it_is() -> None:
    grammar = 'start: verb " " NUMBER <|mark|>\nverb: "ab" | "na"\nNUMBER: /[0-9]+/'
    written = take(constraint("lark", grammar), "na 123")
    written.accept(WORDS.id_of("<|mark|>"))
    assert written.is_complete


def test_a_lark_grammar_may_ask_for_forced_tokens() -> None:
    grammar = '%llguidance {"no_forcing": false}\nstart: "true"'
    assert take(constraint("lark", grammar), "true").is_complete


@given(seed=st.integers(0, 2**32), cut=st.integers(0, 400))
@settings(max_examples=40, deadline=None)
def test_replayed_tokens_lead_to_the_same_state_at_every_cut(seed: int, cut: int) -> None:
    text = json.dumps(PERSON)
    first = constraint("json_schema", text)
    tokens = random_sentence(first, seed)
    cut = min(cut, len(tokens))
    replayed = constraint("json_schema", text)
    for token in tokens[:cut]:
        replayed.accept(token)
    first.rollback(len(tokens) - cut)
    assert np.array_equal(first.mask(), replayed.mask())
    for token in tokens[cut:]:
        assert first.allows(token)
        assert replayed.allows(token)
        first.accept(token)
        replayed.accept(token)
    assert first.is_complete == replayed.is_complete


def test_an_end_token_is_undone_before_what_came_before_it() -> None:
    number = take(constraint("regex", "[0-9]{1,2}"), "12")
    number.accept(END)
    number.rollback(1)
    assert number.is_complete
    number.accept(END)
    number.rollback(2)
    take(number, "7")
    with pytest.raises(ValueError, match="fewer were accepted"):
        number.rollback(5)


def test_a_token_outside_of_the_grammar_changes_nothing() -> None:
    word = take(constraint("regex", "abc"), "ab")
    for token in (WORDS.id_of("xy"), WORDS.id_of("<|start|>")):
        with pytest.raises(OutsideGrammar):
            word.accept(token)
    assert take(word, "c").is_complete


def test_calls_of_one_grammar_do_not_disturb_each_other() -> None:
    one, other = constraint("regex", "(ab|xy)+"), constraint("regex", "(ab|xy)+")
    take(one, "a")
    assert refuses(one, "xy")
    assert not refuses(other, "xy")


# --- lazy grammars ---


def test_the_grammar_binds_after_the_reasoning_block() -> None:
    answer = constraint("json_object", reasoning=THINK)
    take(answer, "<think> the {cat} \n</")
    assert not answer.allows(END)
    take(answer, "think>\n\n")
    assert refuses(answer, "the")
    assert take(answer, '{"a": true}').is_complete


def test_the_grammar_binds_at_once_where_the_model_does_not_reason() -> None:
    answer = constraint("json_object", reasoning=THINK)
    assert refuses(answer, "the")
    assert take(answer, '{"a": true}').is_complete


def test_reasoning_may_be_open_already() -> None:
    answer = constraint("json_object", reasoning=ReasoningBlock("<think>", "</think>", True))
    assert not refuses(answer, "the")
    take(answer, "the </think>")
    assert refuses(answer, "the")
    take(answer, "{}")


def test_a_marker_may_end_in_the_middle_of_a_token() -> None:
    answer = take(constraint("json_object", reasoning=THINK), "<think> the </")
    for piece in ("t", "h", "ink>{"):
        assert answer.allows(WORDS.id_of(piece))
        answer.accept(WORDS.id_of(piece))
    assert refuses(answer, "the")
    assert take(answer, "}").is_complete


def test_markers_may_be_control_tokens() -> None:
    block = ReasoningBlock("<|start|>", "<|mark|>")
    answer = constraint("json_object", reasoning=block)
    answer.accept(WORDS.id_of("<|start|>"))
    take(answer, "the cat")
    answer.accept(WORDS.id_of("<|mark|>"))
    assert refuses(answer, "the")
    assert take(answer, "{}").is_complete


def test_a_trigger_need_not_come() -> None:
    answer = take(constraint("json_object", trigger="<tool_call>"), "the cat <tool")
    assert answer.allows(END)
    assert not answer.is_complete


def test_from_the_trigger_on_the_grammar_binds() -> None:
    answer = take(constraint("json_object", trigger="<tool_call>"), "the cat <tool_call>")
    assert not answer.allows(END)
    assert refuses(answer, "the")
    assert take(answer, '{"name": 12}').is_complete


def test_a_trigger_token_whose_rest_breaks_the_grammar_is_refused() -> None:
    answer = take(constraint("regex", "x+", trigger="<tool_call>"), "<tool_")
    assert not answer.allows(WORDS.id_of("call>{"))
    assert answer.allows(WORDS.id_of("c"))


def test_a_trigger_is_looked_for_behind_open_reasoning() -> None:
    block = ReasoningBlock("<think>", "</think>", True)
    answer = constraint("regex", "x+", trigger="<tool_call>", reasoning=block)
    take(answer, "a <tool_call> the </think> cat <tool_call>xx")
    assert refuses(answer, "the")


def test_reasoning_that_may_be_there_is_free_text_before_a_trigger() -> None:
    answer = constraint("regex", "x+", trigger="<tool_call>", reasoning=THINK)
    take(answer, "<think> the </think> cat")
    assert answer.allows(END)
    take(answer, "<tool_call>x")
    assert refuses(answer, "the")


# --- limits ---


def nested(levels: int) -> str:
    return '{"items":' * levels + "{}" + "}" * levels


@pytest.mark.parametrize(
    ("kind", "text", "named"),
    [
        ("json_schema", '{"type":"object","properties":{"a":{"not":{}}}}', "`not`"),
        ("json_schema", '{"type":"array","uniqueItems":true}', "`uniqueItems`"),
        ("json_schema", '{"oneOf":[{"type":"string"},{"maxLength":3}]}', "`oneOf`"),
        ("json_schema", '{"type":"string","format":"zip"}', "`format` zip"),
        ("json_schema", '{"type":"strin"}', "strin"),
        ("json_schema", '{"type":"string","pattern":"(?=a)"}', "look-around"),
        ("json_schema", '{"$ref":"#/$defs/nowhere"}', "nowhere"),
        ("json_schema", '{"$ref":"https://example.com/schema"}', "leads out of the schema"),
        ("json_schema", '{"$defs":{"x":{"$ref":"#/$defs/x"}},"$ref":"#/$defs/x"}', "no text"),
        ("json_schema", '{"minimum":3,"maximum":1,"type":"integer"}', "nothing fits"),
        ("json_schema", '{"multipleOf":99991}', "`multipleOf`"),
        ("json_schema", '{"x-guidance":{"lenient":true},"not":{}}', "`x-guidance`"),
        ("json_schema", "{", "no JSON"),
        ("json_schema", "[]", "neither an object"),
        ("json_schema", nested(65), "nested more than 64"),
        ("json_schema", nested(20_000), "nested more than 64"),
        ("json_schema", '"' + "x" * 2**20 + '"', str(MAX_GRAMMAR_CHARS)),
        (
            "json_schema",
            json.dumps({"properties": {f"p{number}": {} for number in range(500)}}),
            "500 are optional",
        ),
        ("regex", "(", "unclosed"),
        ("regex", r"\bfoo", "lookaround"),
        ("regex", "(" * 5000 + ")" * 5000, "nested"),
        ("regex", "[^\\x00-\\x{10FFFF}]", "no text"),
        ("gbnf", 'root ::= root "a"', "no text"),
        ("gbnf", "root ::= root", "no text"),
        ("gbnf", "root ::= <[99999]>", "99999"),
        ("gbnf", "root ::= " + " | ".join(f'"{n}"' for n in range(20_000)), "too large"),
        ("lark", "start: nothing", "nothing"),
        ("lark", "start: " + "(" * 3000 + '"a"' + ")" * 3000, "nested"),
        ("lark", 'start: %regex { "substring_chars": "' + "ab" * 50_000 + '"}', "too large"),
    ],
)
def test_a_hostile_or_wrong_grammar_is_refused_by_name(kind: str, text: str, named: str) -> None:
    with pytest.raises(GrammarRefused) as refused:
        constraint(kind, text)
    assert named in str(refused.value)
    assert len(str(refused.value)) < 600


def endless(constrained: GrammarConstraint, letters: str) -> Iterator[None]:
    tokens = WORDS.tokenize(letters).tolist()
    while True:
        for token in tokens:
            constrained.mask()
            constrained.accept(token)
            yield


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("lark", "start: e\ne: e e e | e e | /[a-z]/"),
        ("gbnf", "root ::= e\ne ::= e e | e e e | [a-z]"),
        ("regex", "((a{1,100}){1,100}){1,100}"),
    ],
)
def test_a_grammar_that_explodes_on_the_way_is_over_then(kind: str, text: str) -> None:
    exploding = constraint(kind, text)
    with pytest.raises(GrammarRefused, match="cannot be followed any further"):
        for _, _ in zip(range(5000), endless(exploding, "a"), strict=False):
            pass
    with pytest.raises(GrammarRefused):
        exploding.mask()
    with pytest.raises(GrammarRefused):
        exploding.allows(WORDS.id_of("a"))


def test_recursion_is_no_explosion() -> None:
    tree = {"type": "array", "items": {"$ref": "#"}}
    take(constraint("json_schema", json.dumps(tree)), "[" * 500)


def test_only_so_many_grammars_are_kept_compiled() -> None:
    grammars = Grammars(WORDS)
    for number in range(3 * GRAMMARS_KEPT):
        grammars.constraint(Grammar(kind="regex", text=f"a{number}"))
    assert grammars.kept == GRAMMARS_KEPT


def test_a_compiled_grammar_is_there_for_its_scope_alone() -> None:
    grammars, asked = Grammars(WORDS), Grammar(kind="regex", text="secret")
    grammars.constraint(asked, scope="alice")
    assert grammars.has(asked, scope="alice")
    assert not grammars.has(asked, scope="bob")
    grammars.constraint(asked, scope="bob")
    assert grammars.kept == 2


def test_a_vocabulary_without_end_tokens_can_be_constrained() -> None:
    words = Words()
    words.end_tokens = ()
    word = Grammars(words).constraint(Grammar(kind="regex", text="ab"))
    word.accept(words.id_of("ab"))
    assert word.is_complete
