"""The same schema in words that llguidance keeps to: what its own reading lacks is said here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from agent.grammar.schema_limits import LARGEST, MAX_EXACT
from agent.grammar.schema_nodes import Node
from agent.grammar.schema_patterns import respelt

_REFERENCE_SIGNS = "#/%:?&=~!$'()*+,;@[]-._"
"""What a URI reference may have as it stands."""
_YEAR = "(?:[0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)"
_LEAP_YEAR = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
_DAY = f"(?:{_YEAR}-(?:(?:0[13-9]|1[0-2])-[0-9]{{2}}|02-(?:[01][0-9]|2[0-8]))|{_LEAP_YEAR}-02-29)"
_TIME = "[0-9]{2}:[0-9]{2}:[0-5]"
_LABEL = r"(?:[^.]{1,2}|[^.]{2}(?:[^.-][^.]{0,60}|-[^.-][^.]{0,59}))"
_LABELS = rf"{_LABEL}(?:\.{_LABEL})*$"
STRICTER = {
    "date": f"^{_DAY}",
    "date-time": f"^{_DAY}[tT]{_TIME}",
    "time": f"^{_TIME}",
    "email": rf"^[^@]{{1,64}}@(?:\[|{_LABELS})",
    "hostname": f"^{_LABELS}",
}
"""Patterns beside formats: no 29 February in other years, no year 0, no 60th second, which most
parsers of dates take for mistakes; parts of an address are as long as RFC 5321 (4.5.3) has them,
and have no `--` where `xn--` has it (RFC 5891, 4.2.3.1)."""
LONGEST = {"email": 254, "hostname": 253}
"""In characters (RFC 5321, 4.5.3.1.3; RFC 1035, 2.3.4)."""


def reword(schema: Node) -> None:
    """Change one schema in place, but not those in it."""
    for change in _CHANGES:
        change(schema)


def _drop_what_says_nothing(schema: Node) -> None:
    """llguidance refuses keywords that it does not know whatever they say."""
    for keyword, values in _SAY_NOTHING.items():
        if any(schema.get(keyword, keyword) == value for value in values):
            del schema[keyword]
    if "if" not in schema or not schema.keys() & {"then", "else"}:
        for keyword in ("if", "then", "else"):
            schema.pop(keyword, None)
    if "contains" not in schema:
        schema.pop("minContains", None)
        schema.pop("maxContains", None)


_SAY_NOTHING: dict[str, tuple[Any, ...]] = {
    "not": (False,),
    "uniqueItems": (False,),
    "propertyNames": (True, {}),
    "dependentRequired": ({},),
    "dependentSchemas": ({},),
    "dependencies": ({},),
    "unevaluatedItems": (True, {}),
    "unevaluatedProperties": (True, {}),
}


def _spell_reference(schema: Node) -> None:
    reference = schema.get("$ref")
    if isinstance(reference, str):
        schema["$ref"] = quote(reference, safe=_REFERENCE_SIGNS, errors="replace")


def _spell_patterns(schema: Node) -> None:
    pattern, names = schema.get("pattern"), schema.get("patternProperties")
    if isinstance(pattern, str):
        schema["pattern"] = respelt(pattern)
    if isinstance(names, dict):
        schema["patternProperties"] = {respelt(name): value for name, value in names.items()}


def _narrow_format(schema: Node) -> None:
    given = schema.get("format")
    if not isinstance(given, str):
        return
    if given in LONGEST and isinstance(schema.setdefault("maxLength", LONGEST[given]), int):
        schema["maxLength"] = min(schema["maxLength"], LONGEST[given])
    pattern = STRICTER.get(given)
    if pattern is None:
        return
    if "pattern" not in schema:
        schema["pattern"] = pattern
    elif isinstance(schema.setdefault("allOf", []), list):
        schema["allOf"] = [*schema["allOf"], {"pattern": pattern}]


def _round_inwards(schema: Node) -> None:
    """llguidance reckons with doubles, and writes them with 17 digits at most."""
    for keyword, is_least in _BOUNDS.items():
        bound = schema.get(keyword)
        if isinstance(bound, int | float) and abs(bound) > MAX_EXACT:
            schema[keyword] = _rounded(bound, up=is_least)


def _rounded(bound: float, *, up: bool) -> int:
    """The next number but one of 15 digits, which a double holds well enough."""
    if abs(bound) >= LARGEST:
        return -LARGEST if up else LARGEST
    step: int = 10 ** (len(str(abs(int(bound)))) - 15)
    return (int(bound) // step + (2 if up else -1)) * step


_BOUNDS = {"minimum": True, "exclusiveMinimum": True, "maximum": False, "exclusiveMaximum": False}

_CHANGES: tuple[Callable[[Node], None], ...] = (
    _drop_what_says_nothing,
    _spell_reference,
    _spell_patterns,
    _narrow_format,
    _round_inwards,
)
