"""GBNF's syntax: what is read, and how everything wrong is named."""

from __future__ import annotations

import pytest

from agent.errors import GrammarRefused
from agent.grammar.gbnf import (
    EMPTY,
    MAX_NESTING,
    Characters,
    Choice,
    Node,
    Repetition,
    Rule,
    Sequence,
    TokenOf,
    parse,
)
from agent.grammar.gbnf_to_lark import lark_rules


def one(character: str) -> Characters:
    return Characters(((ord(character), ord(character)),))


A, B = one("a"), one("b")


def root(expression: str) -> Node:
    return parse(f"root ::= {expression}")["root"]


@pytest.mark.parametrize(
    ("expression", "node"),
    [
        ('"ab"', Sequence((A, B))),
        ('""', EMPTY),
        ("[a-cx]", Characters(((97, 99), (120, 120)))),
        ("[^a]", Characters(((97, 97),), negated=True)),
        ("[+-]", Characters(((43, 43), (45, 45)))),
        (r"[\]\\\-]", Characters(((93, 93), (92, 92), (45, 45)))),
        (r'"\x41\u00e9\U0001F600\n\""', Sequence(tuple(map(one, 'Aé😀\n"')))),
        (".", Characters(((0, 0x10FFFF),))),
        ("[a] | [b]", Choice((A, B))),
        ("[a]* [b]+", Sequence((Repetition(A, 0, None), Repetition(B, 1, None)))),
        ("[a]?", Repetition(A, 0, 1)),
        ("[a]{3}", Repetition(A, 3, 3)),
        ("[a]{2,}", Repetition(A, 2, None)),
        ("[a]{2, 4}", Repetition(A, 2, 4)),
        ("[a]{,4}", Repetition(A, 0, 4)),
        ("([a] | [b])?", Repetition(Choice((A, B)), 0, 1)),
        ("(\n  # why\n  [a]\n  | [b]\n)", Choice((A, B))),
        ("[a] |\n  [b]  # a comment", Choice((A, B))),
        ("<[12]> !<think>", Sequence((TokenOf(12), TokenOf("<think>", negated=True)))),
        ("root? [a]", Sequence((Repetition(Rule("root"), 0, 1), A))),
    ],
)
def test_an_expression_is_read_as_llama_cpp_reads_it(expression: str, node: Node) -> None:
    assert root(expression) == node


def test_rules_follow_each_other_and_refer_to_each_other() -> None:
    rules = parse("# two rules\nroot ::= item-1 |\n   item-1 root\n\nitem-1 ::= [a]\r\n")
    assert rules["root"] == Choice((Rule("item-1"), Sequence((Rule("item-1"), Rule("root")))))
    assert rules["item-1"] == A


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no rule `root`"),
        ('item ::= "a"', "no rule `root`"),
        ("root ::= item\n\nroot2 ::= root", "line 1: the rule `item` is not defined"),
        ("root ::= [a]\nroot ::= [b]", "line 2: the rule `root` is defined a second time"),
        ("root = [a]", "`::=` is expected"),
        ('root ::= "a', "not closed"),
        ("root ::= [a", "not closed"),
        ("root ::= []", "matches nothing"),
        ("root ::= [z-a]", "backwards"),
        ("root ::= ([a]", "`)` is expected"),
        ("root ::= [a])", "unexpected"),
        (r'root ::= "\q"', "unknown escape"),
        (r'root ::= "\u12"', "unknown escape"),
        (r'root ::= "\uD800"', "is no character"),
        ("root ::= [a]{2001}", "more than 2000"),
        ("root ::= [a]{4,2}", "backwards"),
        ("root ::= [a]{x}", "number of repetitions is missing"),
        ("root ::= [a]{1", "`}` is expected"),
        ("root ::= <[x]>", "no token id"),
        ("root ::= <think", "a token is written"),
        ("root ::= !x", "`<` is expected"),
        ("?", "a rule's name is expected"),
        ("root ::= " + "(" * (MAX_NESTING + 1), "nested more than"),
    ],
)
def test_what_is_wrong_is_named(text: str, problem: str) -> None:
    with pytest.raises(GrammarRefused, match="GBNF") as refused:
        parse(text)
    assert problem in str(refused.value)


def lark(text: str) -> list[str]:
    return lark_rules(text, "body", {"<think>": 7}.get).splitlines()


def test_only_rules_that_are_used_are_written() -> None:
    assert lark("root ::= x\nx ::= [a-b]\ny ::= [c]") == [r"body: g1", r"g1: /[\x{61}-\x{62}]/"]


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("root ::= [a] root | [b]", r"body: ((((/[\x{61}-\x{61}]/)))* (/[\x{62}-\x{62}]/))"),
        ("root ::= ([a] root)?", r'body: ((((/[\x{61}-\x{61}]/)))* (""))'),
    ],
)
def test_a_rule_that_ends_in_itself_becomes_a_loop(text: str, written: str) -> None:
    assert lark(text) == [written]


def test_a_rule_that_recurs_within_stays_as_it_is() -> None:
    assert lark('root ::= "(" root ")" | ""')[0].count("body") == 2


def test_tokens_are_written_by_id() -> None:
    assert lark("root ::= <think> !<[5]>*") == ["body: (<[7]> (<[^5]>)*)"]


def test_a_token_that_the_model_lacks_is_named() -> None:
    with pytest.raises(GrammarRefused, match="<nothing>"):
        lark("root ::= <nothing>")
