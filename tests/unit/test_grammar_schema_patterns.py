"""Patterns of schemas: what is let through fits them, whoever reads them."""

from __future__ import annotations

import json
import random
import re

import pytest

from agent.errors import GrammarRefused
from tests.support.constrained import is_written

PLAIN = frozenset(map(chr, range(32, 127)))
SIGNS = PLAIN | frozenset("\t\n\bßΩ€😀٣一\u00a0\u2028\u3000\ufeff")
MEMBERS = ("a", "b-y", "0-9", '"', r"\\", r"\"", "/", ",", r"\s", r"\S", r"\w", r"\W", r"\d",
           r"\D", "é", "[", "&&", "~", r"\]", r"\-", "^", " ", "@", "{", r"\u0022", r"\n",
           "😀")  # fmt: skip


def written(pattern: str) -> set[str]:
    """Of all strings of one sign those that a model could write; none where nothing fits."""
    schema = {"type": "string", "pattern": pattern}
    try:
        return {sign for sign in SIGNS if is_written(schema, json.dumps(sign, ensure_ascii=False))}
    except GrammarRefused:
        return set()


def fitting(pattern: str) -> set[str]:
    """Those that fit by Python's reading, and by that of ECMA-262, whose words and digits are
    ASCII's and whose white space is not."""
    readings = [re.compile(pattern)]
    if r"\s" not in pattern.lower():
        readings.append(re.compile(pattern, re.ASCII))
    return {sign for sign in SIGNS if all(reading.search(sign) for reading in readings)}


@pytest.mark.parametrize(
    "pattern",
    [
        '^[^"]$', r"^[^\\]$", r"^[^\"\\]$", r"^[^\u0022]$", "^[^a-z]$", r"^[^\s]$", r"^\S$",
        r"^\W$", r"^\D$", r"^[\W_]$", r"^[^\w,]$", r"^[\s\S]$", "^.$", "^[][]$", "^[^]]$",
        "^[^][]$", "^[a^]$", "^[!--]$", "^[--/]$", "^[a&&b]$", "^(?:[^,]|,)$", r"^\[[^x]?$",
        r"^[^\x00-\x1f]$", "^[+-]$",
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Possible (nested set|set)")
def test_a_sign_is_let_through_where_all_readings_of_a_pattern_do(pattern: str) -> None:
    assert fitting(pattern) & PLAIN <= written(pattern) <= fitting(pattern)


@pytest.mark.filterwarnings("ignore:Possible (nested set|set)")
def test_no_random_class_lets_through_what_does_not_fit() -> None:
    dice = random.Random(6)
    for _ in range(150):
        members = "".join(dice.choices(MEMBERS, k=dice.randint(1, 4)))
        pattern = f"^[{dice.choice(('^', ''))}a{members}]$"
        assert fitting(pattern) & PLAIN <= written(pattern) <= fitting(pattern), pattern


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ('"a:b"', True),
        (r'"a\"b"', False),
        (r'"\"ab"', False),
        (r'"a:\""', True),
        (r'"a\\b"', False),
    ],
)
def test_a_quotation_mark_keeps_out_wherever_it_stands(text: str, fits: bool) -> None:
    assert is_written({"type": "string", "pattern": r"^[^\\\"]{2}[ -~]$"}, text) is fits


def test_a_name_by_a_pattern_is_read_alike() -> None:
    schema = {
        "patternProperties": {'^[^"]$': {"type": "null"}},
        "additionalProperties": {"type": "integer"},
    }
    assert is_written(schema, '{"a": null}')
    assert is_written(schema, r'{"\"": 1}')
    assert not is_written(schema, r'{"\"": null}')
