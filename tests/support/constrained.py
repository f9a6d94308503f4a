"""Texts taken token by token by a constraint over the vocabulary of `tests.support.words`."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from agent.engine.sampling.grammar import Grammars
from agent.engine.sampling.grammar_constraint import GrammarConstraint
from protocol.grammar import Grammar
from tests.support.words import Words

WORDS = Words()
GRAMMARS = Grammars(WORDS)
END, OTHER_END = WORDS.end_tokens


def take(constrained: GrammarConstraint, text: str) -> GrammarConstraint:
    """Accept a text; every token must be allowed by both doors."""
    for token in WORDS.tokenize(text).tolist():
        mask = constrained.mask()
        assert mask[token], (text, WORDS.shown_pieces[token])
        assert constrained.allows(token)
        constrained.accept(token)
    return constrained


def refuses(constrained: GrammarConstraint, text: str) -> bool:
    """Whether the first token of a text is not allowed, by either door."""
    mask = constrained.mask()
    token = WORDS.tokenize(text).tolist()[0]
    assert mask[token] == constrained.allows(token)
    return not constrained.allows(token)


def is_written(schema: Any, text: str) -> bool:
    """Whether a model that is held to the JSON schema could write this very text, and end there."""
    constrained = GRAMMARS.constraint(Grammar(kind="json_schema", text=json.dumps(schema)), None)
    for token in WORDS.tokenize(text).tolist():
        if not constrained.allows(token):
            return False
        constrained.accept(token)
    return constrained.allows(END)


def random_sentence(constrained: GrammarConstraint, seed: int, most: int = 4000) -> list[int]:
    """Any allowed token, as often as it takes; the first end that may come is taken."""
    numbers = np.random.default_rng(seed)
    tokens: list[int] = []
    while not constrained.allows(END):
        mask = constrained.mask()
        tokens.append(int(numbers.choice(np.flatnonzero(mask))))
        constrained.accept(tokens[-1])
        assert len(tokens) < most
    return tokens
