"""Any grammar as llguidance's own: one Lark text, with what stands before the grammar binds.

A lazy grammar is no state of ours but a rule in front: free text up to a marker, then the body.
What is left of a token behind the marker is then looked at like any other text.
"""

from __future__ import annotations

import json
from dataclasses import replace

import llguidance

from agent.errors import GrammarRefused
from agent.grammar import gbnf_to_lark, json_schema
from agent.grammar.gbnf_to_lark import TokenId
from agent.grammar.marks import (
    BLANKS,
    FREE,
    TokenNames,
    marker,
    pieces_of,
    quoted,
    symbols_of,
    up_to,
    up_to_pieces,
)
from agent.grammar.reasoning_block import ReasoningBlock
from agent.grammar.tool_rules import calls_rules, spoken_rules
from agent.grammar.tools import ToolGrammar
from protocol.grammar import MAX_GRAMMAR_CHARS, MAX_TRIGGER_CHARS, Grammar
from protocol.invariants import present

_NO_FORCING = '%llguidance {"no_forcing": true}\n'
"""Forced text would be tokenised by the library; the model's own choice of tokens is better."""
_NESTED = "nested"
MOST_THOUGHTS = 16
"""Messages of reasoning in front of an answer."""
_ANY_OBJECT = '{"type":"object"}'


def grammar_text(
    grammar: Grammar | None,
    reasoning: ReasoningBlock | None,
    tokens: TokenNames,
    tools: ToolGrammar | None = None,
) -> str:
    """What llguidance compiles, of one of the two at least. Raises `GrammarRefused`.

    With both the text is a sentence of the grammar or calls of tools.
    """
    lark = _NO_FORCING + _start(grammar, reasoning, tokens, tools)
    grammars = [{"lark_grammar": lark}]
    if grammar is not None and grammar.kind == "lark":
        grammars.append({"name": _NESTED, "lark_grammar": _NO_FORCING + grammar.text})
    return json.dumps({"grammars": grammars})


def _start(
    grammar: Grammar | None,
    reasoning: ReasoningBlock | None,
    tokens: TokenNames,
    tools: ToolGrammar | None,
) -> str:
    """The rule `start`: the reasoning as far as there is any, then `bound`."""
    may_call = tools is not None and grammar is None and not tools.must_call
    if reasoning is not None and reasoning.answer_opening:
        if may_call or (grammar is not None and grammar.trigger):
            # free text with all control tokens in it, or without any: no block is told from it
            return _start(grammar, None, tokens, tools)
        return _on_channels(grammar, reasoning, tokens, tools)
    if may_call and reasoning is not None:
        tokens = _but(reasoning.opening, tokens)
    rules = _bound(grammar, tokens, tools)
    if reasoning is None:
        return f"start: bound\n{rules}"
    reasoned = up_to("reasoned", reasoning.closing, tokens.control)
    if reasoning.is_open:
        return f"start: reasoned {BLANKS} bound\n{rules}{reasoned}"
    if grammar is not None and grammar.trigger:
        # a block that may be there is free text like any other before the trigger
        return f"start: bound\n{rules}"
    if may_call:
        begun = _begun(reasoning.opening, tokens.control)
        return f"start: (begun reasoned)? bound\n{rules}{begun}{reasoned}"
    opening = marker(reasoning.opening, tokens.control)
    block = f"block: {BLANKS} {opening} reasoned {BLANKS}\n"
    return f"start: block? bound\n{rules}{block}{reasoned}"


def _on_channels(
    grammar: Grammar | None,
    reasoning: ReasoningBlock,
    tokens: TokenNames,
    tools: ToolGrammar | None,
) -> str:
    """Thoughts, each a message of its own, then the message that the grammar binds, or calls."""
    opening, closing, header = (
        pieces_of(text, reasoning.specials, tokens)
        for text in (reasoning.opening, reasoning.closing, reasoning.answer_opening)
    )
    bound = "calls" if tools is not None and grammar is None else f"{symbols_of(header)} answer"
    if tools is not None and grammar is not None:
        bound += " | calls"
    rules = "" if grammar is None else _answer(grammar, tokens)
    rules += "" if tools is None else calls_rules(tools, tokens)
    start = "thought " if reasoning.is_open else ""
    if opening:
        start += f"message{{0,{MOST_THOUGHTS}}} "
        rules += f"message: {symbols_of(opening)} thought\n"
    if opening or reasoning.is_open:
        rules += up_to_pieces("thought", closing)
    return f"start: {start}bound\nbound: {bound}\n{rules}"


def _but(opening: str, tokens: TokenNames) -> TokenNames:
    """Without the one that opens the reasoning: where that may begin it is no other text."""
    token = tokens.control(opening)
    return replace(tokens, others=tuple(other for other in tokens.others if other != token))


def _begun(opening: str, token_id: TokenId) -> str:
    """A rule for an opening where any other text could stand as well."""
    token = token_id(opening)
    if token is not None:
        return f"begun: {BLANKS} <[{token}]>\n"
    return rf"begun[lazy]: /[ \t\r\n]{{0,16}}{quoted(opening)}/" + "\n"


def _bound(grammar: Grammar | None, tokens: TokenNames, tools: ToolGrammar | None) -> str:
    """The rule `bound` and all that it needs."""
    if tools is None:
        return f"bound: answer\n{_answer(present(grammar), tokens)}"
    if tools.must_call:
        return f"bound: {BLANKS} calls\n{calls_rules(tools, tokens)}"
    if grammar is None:
        return f"bound: spoken\n{FREE}{spoken_rules(tools, tokens)}"
    return f"bound: answer | calls\n{_answer(grammar, tokens)}{calls_rules(tools, tokens)}"


def _answer(grammar: Grammar, tokens: TokenNames) -> str:
    """The rule `answer`: the body, behind its trigger if it has one."""
    if len(grammar.text) > MAX_GRAMMAR_CHARS or len(grammar.trigger) > MAX_TRIGGER_CHARS:
        raise GrammarRefused(
            f"The grammar has {len(grammar.text)} characters and a trigger of "
            f"{len(grammar.trigger)}; {MAX_GRAMMAR_CHARS} and {MAX_TRIGGER_CHARS} are allowed."
        )
    body = _body(grammar, tokens.whole)
    if not grammar.trigger:
        return f"answer: body\n{body}"
    triggered = up_to("triggered", grammar.trigger, tokens.control)
    return f"answer: FREE | triggered body\n{triggered}{FREE}{body}"


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
