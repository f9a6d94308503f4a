"""Compiling with llguidance, under limits that an untrusted grammar cannot leave.

The limits count work, not time, so that the worker process and the engine come to one verdict, and
so does another agent that replays the tokens. What they allow at the worst (measured, 131k tokens):
0.5 s to compile, 40 ms for a mask, 25 ms for a token, 64 MiB a call.
"""

from __future__ import annotations

import re

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from agent.errors import GrammarRefused
from protocol.grammar import Grammar, GrammarKind

MAX_REASON_CHARS = 400

_FROM_SCHEMA = frozenset({"json_schema", "json_object"})
_HINTS = (
    (r"NoExtensionBias", "no text, or none that this model has tokens for, is a sentence of it"),
    (r"Current row has", "it is too ambiguous, or recurs to the right too often"),
    (r"Too many items", "it is too ambiguous"),
    (r"too many (expressions|states)", "a regular expression in it is too large"),
    (r"schema too large", "the JSON schema is too large"),
    (r"fuel exhausted|too big|grammar size", "it is too large"),
    (r"maximum number of nested", "a `pattern`, `minimum` or `maximum` in it is nested too deep or "
     "has too many digits"),
    (r"regex parse error(?s:.*)^error: (.*)", "a regular expression in it is wrong: {}"),
    (r"invalid regex .*: (lookarounds? .*); ", "a regular expression in it is wrong: {}"),
    (r"Unimplemented keys: \[(.*?)\]", "no grammar can express the JSON schema's {}"),
    (r"Unknown format: (.*)", "no grammar can express the JSON schema's `format` {}"),
    (r"oneOf constraints", "the JSON schema has `oneOf` with options that may overlap; only "
     "`anyOf` can"),
    (r"Resource '(.*)' is not present", "the JSON schema's `$ref` {} leads out of the schema"),
    (r"Unsatisfiable schema: Regex is empty", "nothing fits the JSON schema: `pattern`, `format`, "
     "`minLength` and `maxLength` of a string leave none"),
    (r"Unsatisfiable schema: (.*)", "nothing fits the JSON schema: {}"),
    (r"Unable to determine if regex", "`pattern`, `format`, `minLength` and `maxLength` in the "
     "JSON schema are too much together"),
    (r"min/maxProperties only", "the JSON schema has `minProperties` or `maxProperties` beside "
     "`properties` that may be left out"),
    (r"patternProperty regexes (.*) are not disjoint", "the JSON schema has `patternProperties` {} "
     "that one name may fit both"),
    (r"Pointer '(.*)' does not exist", "the JSON schema's `$ref` #{} leads to nothing"),
    (r"Invalid type: (.*)", "the JSON schema's `type` {} is none"),
    (r"lookarounds not supported", "a regular expression in it has `\\b` or another look-around, "
     "which no grammar can express"),
    (r"Failed to generate regex for (\w+ range)", "the JSON schema has a {} that no grammar can "
     "express (`minimum`, `maximum`)"),
)  # fmt: skip
"""What llguidance says, as regular expressions, and what it means for a client."""


def limits_for(kind: GrammarKind) -> LLParserLimits:
    """llguidance's limits. A schema's grammar is hardly ambiguous, but an object with n optional
    properties needs 4 n items in a row; with others, long rows mean ambiguity, whose cost is
    quadratic: with 2000 items a row took 600 ms a token."""
    return LLParserLimits(
        max_items_in_row=2000 if kind in _FROM_SCHEMA else 400,
        initial_lexer_fuel=500_000,
        step_lexer_fuel=200_000,
        step_max_items=200_000,
        max_lexer_states=50_000,
        max_grammar_size=30_000,
        precompute_large_lexemes=False,
        verbose_errors=False,
    )


def kind_of(grammar: Grammar | None) -> GrammarKind:
    """What the limits go by; tools are schemas."""
    return "json_schema" if grammar is None else grammar.kind


def compiled(tokenizer: LLTokenizer, text: str, kind: GrammarKind) -> LLMatcher:
    """A matcher at its first token, one mask computed. Raises `GrammarRefused`."""
    matcher = LLMatcher(tokenizer, text, log_level=0, limits=limits_for(kind))
    if matcher.is_error():
        raise GrammarRefused(f"The grammar cannot be used: {reason(matcher.get_error())}.")
    probe = matcher.deep_copy()
    probe.compute_bitmask()
    if probe.is_error():
        raise GrammarRefused(f"The grammar cannot be used: {reason(probe.get_error())}.")
    return matcher


def reason(message: str) -> str:
    """llguidance's message for a client: its first lines, without the text that we made of it."""
    for sign, hint in _HINTS:
        found = re.search(sign, message, re.MULTILINE)
        if found:
            return hint.format(*(group.replace('"', "`") for group in found.groups()[:1]))
    lines = [line for line in message.splitlines() if not re.match(r"\s*(\d+ \||\^)", line)]
    text = " ".join(" ".join(lines).split())
    text = re.sub(r"^(at \d+\(\d+\): )?(failed to compile JSON schema: )?", "", text)
    text = text.replace("<non-verbose/>", "").strip(" .")
    return text[:MAX_REASON_CHARS] or "llguidance gives no reason"
