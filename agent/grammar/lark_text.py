"""Any grammar as llguidance's own: one Lark text, with what stands before the grammar binds.

A lazy grammar is no state of ours but a rule in front: free text up to a marker, then the body.
What is left of a token behind the marker is then looked at like any other text.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import llguidance

from agent.errors import GrammarRefused
from agent.grammar import gbnf_to_lark, json_schema
from agent.grammar.gbnf_to_lark import TokenId
from agent.grammar.reasoning_block import ReasoningBlock
from protocol.grammar import MAX_GRAMMAR_CHARS, MAX_TRIGGER_CHARS, Grammar

_NO_FORCING = '%llguidance {"no_forcing": true}\n'
"""Forced text would be tokenised by the library; the model's own choice of tokens is better."""
_FREE = "FREE: /(?s:.*)/\n"
_BLANKS = r"/[ \t\r\n]{1,16}/?"
_NESTED = "nested"
_ANY_OBJECT = '{"type":"object"}'


@dataclass(frozen=True, slots=True)
class TokenNames:
    """Ids by text: of a control token, which has no text of its own; of any token that is the whole
    of a text."""

    control: TokenId
    whole: TokenId


def grammar_text(grammar: Grammar, reasoning: ReasoningBlock | None, tokens: TokenNames) -> str:
    """What llguidance compiles. Raises `GrammarRefused`."""
    if len(grammar.text) > MAX_GRAMMAR_CHARS or len(grammar.trigger) > MAX_TRIGGER_CHARS:
        raise GrammarRefused(
            f"The grammar has {len(grammar.text)} characters and a trigger of "
            f"{len(grammar.trigger)}; {MAX_GRAMMAR_CHARS} and {MAX_TRIGGER_CHARS} are allowed."
        )
    lark = _NO_FORCING + _start(grammar, reasoning, tokens.control) + _body(grammar, tokens.whole)
    grammars = [{"lark_grammar": lark}]
    if grammar.kind == "lark":
        grammars.append({"name": _NESTED, "lark_grammar": _NO_FORCING + grammar.text})
    return json.dumps({"grammars": grammars})


def _start(grammar: Grammar, reasoning: ReasoningBlock | None, token_id: TokenId) -> str:
    """The rule `start`: what comes before `body`, as far as it is asked for."""
    bound = "bound"
    if grammar.trigger:
        rules = _up_to("triggered", grammar.trigger, token_id) + _FREE
        rules += "bound: FREE | triggered body\n"
    else:
        rules = "bound: body\n"
    if reasoning is None:
        return f"start: {bound}\n{rules}"
    if reasoning.is_open:
        rules += _up_to("reasoned", reasoning.closing, token_id)
        return f"start: reasoned {_BLANKS} {bound}\n{rules}"
    if grammar.trigger:
        # a block that may be there is free text like any other before the trigger
        return f"start: {bound}\n{rules}"
    rules += _up_to("reasoned", reasoning.closing, token_id)
    rules += f"block: {_BLANKS} {_marker(reasoning.opening, token_id)} reasoned {_BLANKS}\n"
    return f"start: block? {bound}\n{rules}"


def _up_to(name: str, marker: str, token_id: TokenId) -> str:
    """A rule for free text up to the first `marker`, with it."""
    token = token_id(marker)
    if token is not None:
        return f"{name}: {name.upper()} <[{token}]>\n{name.upper()}: /(?s:.*)/\n"
    return f"{name}[lazy]: /(?s:.*){_quoted(marker)}/\n"


def _marker(marker: str, token_id: TokenId) -> str:
    token = token_id(marker)
    return f"/{_quoted(marker)}/" if token is None else f"<[{token}]>"


def _body(grammar: Grammar, token_id: TokenId) -> str:
    match grammar.kind:
        case "json_schema":
            return f"body: %json {json_schema.json_text(grammar.text)}\n"
        case "json_object":
            return f"body: %json {json_schema.json_text(_ANY_OBJECT)}\n"
        case "regex":
            return f"body: /{llguidance.regex_to_lark(grammar.text, 'd')}/\n"
        case "gbnf":
            return gbnf_to_lark.lark_rules(grammar.text, "body", token_id)
        case "lark":
            return f"body: @{_NESTED}\n"


def _quoted(text: str) -> str:
    """A regular expression for this very text."""
    return "".join(rf"\x{{{ord(character):X}}}" for character in text)
