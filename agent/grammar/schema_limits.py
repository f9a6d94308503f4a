"""What a schema may not have, though llguidance takes it: it would not keep to it, or take long."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

from agent.errors import GrammarRefused
from agent.grammar.schema_nodes import Node

MAX_MULTIPLE = 1000
"""`multipleOf` without its decimal point: 99991 took 0.5 s to compile."""
MAX_PLACES = 6
"""Behind the decimal point of `multipleOf`, or zeros before it."""
MAX_OPTIONAL = 400
"""Properties of one object that may be left out: each is four items in a row of the parser."""
MAX_EXACT = 2**53
"""llguidance reckons in doubles: of larger numbers it would let the next one through."""
LARGEST = 9 * 10**18
"""Bounds have 64 bits; of what may be larger, numbers up to here are written."""
_NEVER_WRITTEN = frozenset(chr(code) for code in (*range(32), 127)) - set("\b\t\n\f\r")
"""Strings are written without `\\u`, so that no name can be written in two ways."""


def check(schema: Node) -> None:
    """Look at one schema, without those in it. Raises `GrammarRefused` naming the keyword."""
    for look in _LOOKS:
        look(schema)


def _look_at_optional(schema: Node) -> None:
    properties = schema.get("properties")
    if not isinstance(properties, dict) or len(properties) <= MAX_OPTIONAL:
        return
    optional = len(properties.keys() - _required(schema))
    if optional > MAX_OPTIONAL:
        raise GrammarRefused(
            f"The JSON schema has `properties` of which {optional} are optional; at most "
            f"{MAX_OPTIONAL} can be expressed: name the others under `required`."
        )


def _look_at_least(schema: Node) -> None:
    """Of two names that are not given beforehand, one could be the other once more."""
    least = schema.get("minProperties")
    if not isinstance(least, int) or least <= len(_required(schema)) + 1:
        return
    raise GrammarRefused(
        f"The JSON schema has `minProperties` {least}; no grammar can tell names apart that the "
        "schema does not give: name all but one of them under `required`."
    )


def _look_at_multiple(schema: Node) -> None:
    value = schema.get("multipleOf")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    if value <= 0:
        raise GrammarRefused(f"The JSON schema has `multipleOf` {value}; it must be above 0.")
    given = Decimal(str(value)).normalize().as_tuple()
    digits = int("".join(map(str, given.digits)))
    if digits > MAX_MULTIPLE:
        raise GrammarRefused(
            f"The JSON schema has `multipleOf` {value}, which has too many digits: without decimal "
            f"point and final zeros at most {MAX_MULTIPLE} can be expressed."
        )
    if not -MAX_PLACES <= int(given.exponent) <= MAX_PLACES or _as_found(value) != digits:
        raise GrammarRefused(
            f"The JSON schema has `multipleOf` {value}, which the arithmetic of grammars does not "
            "hold exactly."
        )


def _as_found(value: float) -> int:
    """The digits that llguidance finds: it takes doubles times ten while there is a fraction."""
    scaled = float(value)
    while scaled % 1:
        scaled *= 10
    return int(str(int(scaled)).rstrip("0"))


def _look_at_bounds(schema: Node) -> None:
    for keyword, sign in _FROM_INSIDE.items():
        bound = schema.get(keyword)
        if isinstance(bound, int | float) and bound * sign >= LARGEST:
            raise GrammarRefused(
                f"The JSON schema has `{keyword}` {bound}; numbers of more than 64 bits cannot be "
                "expressed."
            )


_FROM_INSIDE = {"minimum": 1, "exclusiveMinimum": 1, "maximum": -1, "exclusiveMaximum": -1}


def _look_at_values(schema: Node) -> None:
    for keyword in ("const", "enum"):
        for value in _plain_values(schema.get(keyword)):
            if isinstance(value, str) and not _NEVER_WRITTEN.isdisjoint(value):
                raise GrammarRefused(
                    f"The JSON schema's `{keyword}` has a control character that is not written."
                )
            if isinstance(value, int | float) and abs(value) > MAX_EXACT:
                raise GrammarRefused(
                    f"The JSON schema's `{keyword}` has {value}; numbers beyond 2^53 cannot be "
                    "told apart."
                )


def _plain_values(value: Any) -> Iterator[Any]:
    ahead = [value]
    while ahead:
        match ahead.pop():
            case dict() as members:
                ahead.extend(members.values())
            case list() as items:
                ahead.extend(items)
            case plain:
                yield plain


def _required(schema: Node) -> set[str]:
    names = schema.get("required")
    return {name for name in names if isinstance(name, str)} if isinstance(names, list) else set()


_LOOKS: tuple[Callable[[Node], None], ...] = (
    _look_at_optional,
    _look_at_least,
    _look_at_multiple,
    _look_at_bounds,
    _look_at_values,
)
