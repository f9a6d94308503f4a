"""What a model says greedily: the tokens, and how likely each and its rivals were."""

from __future__ import annotations

import math
from typing import Any

from msgspec import Struct

from tests.equality.rows import Row

TOP = 5
LENGTH = 32
ALLOWED = 3e-4
"""Of a log probability: float32 added up in another order, through a model of random weights."""


class Said(Struct, frozen=True):
    """The bytes of each token, and at its position the log probability of each of the likeliest."""

    tokens: list[bytes]
    likeliest: list[dict[bytes, float]]


def greedy(**fields: Any) -> dict[str, Any]:
    """The fields of a chat request for a greedy answer of `LENGTH` tokens with probabilities."""
    return {
        "temperature": 0,
        "max_tokens": LENGTH,
        "ignore_eos": True,
        "logprobs": True,
        "top_logprobs": TOP,
        **fields,
    }


def said(answer: dict[str, Any]) -> Said:
    """What a chat's answer says."""
    rows = answer["choices"][0]["logprobs"]["content"]
    return Said(
        [bytes(row["bytes"]) for row in rows],
        [
            {bytes(top["bytes"]): float(top["logprob"]) for top in row["top_logprobs"]}
            for row in rows
        ],
    )


def row(
    feature: str,
    given: str,
    first: list[Said],
    again: list[Said],
    their: list[Said],
    *,
    allowed: float = ALLOWED,
) -> Row:
    """The comparison of one or more answers."""
    count = sum(len(one.tokens) for one in first)
    return Row(
        feature=feature,
        given=given,
        compared=f"{count} tokens, their {TOP} log probabilities",
        difference=_largest(first, their),
        again=_largest(first, again),
        allowed=allowed,
        unequal=_first_unequal(first, their) or _first_unequal(first, again, "when sent again, "),
    )


def _largest(one: list[Said], other: list[Said]) -> float:
    return max(
        _difference(a, b)
        for mine, its in zip(one, other, strict=True)
        for a, b in zip(mine.likeliest, its.likeliest, strict=False)
    )


def _difference(one: dict[bytes, float], other: dict[bytes, float]) -> float:
    """Of the tokens that both name; those at the end of a list may be another's."""
    both = one.keys() & other.keys()
    return max((abs(one[token] - other[token]) for token in both), default=math.inf)


def _first_unequal(one: list[Said], other: list[Said], when: str = "") -> str:
    for mine, its in zip(one, other, strict=True):
        if mine.tokens != its.tokens:
            pairs = zip(mine.tokens, its.tokens, strict=False)
            at = next((n for n, (a, b) in enumerate(pairs) if a != b), len(mine.tokens))
            return f"{when}another token at {at} of {len(its.tokens)}"
    return ""
