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
_DAY = (
    f"(?:{_YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|"
    f"[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))|{_LEAP_YEAR}-02-29)"
)
_HOUR = "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_TIME = f"{_HOUR}:[0-5][0-9](?:\\.[0-9]{{1,9}})?(?:[zZ]|[+-]{_HOUR})"
_SIGN = "[a-zA-Z0-9]"
_LABEL = (
    f"(?:{_SIGN}{{1,41}}|{_SIGN}{{1,20}}-{_SIGN}{{1,20}}|{_SIGN}{{1,9}}(?:-{_SIGN}{{1,9}}){{2,3}})"
)
_HOST = f"{_LABEL}(?:\\.{_LABEL}){{0,5}}"
_BYTE = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_ATOM = "[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]"
_LOCAL = "|".join(
    f"{_ATOM}{{1,{longest}}}(?:\\.{_ATOM}{{1,{longest}}}){{{more}}}"
    for more, longest in enumerate((64, 31, 20, 15, 12))
)
FORMATS = {
    "date": f"^{_DAY}$",
    "date-time": f"^{_DAY}[tT]{_TIME}$",
    "time": f"^{_TIME}$",
    "hostname": f"^{_HOST}$",
    "email": f"^(?:{_LOCAL})@(?:{_HOST}|\\[(?:{_BYTE}\\.){{3}}{_BYTE}\\])$",
}
"""Instead of llguidance's own, which know no leap years and no lengths. No year 0 and no second 60,
which most parsers of dates take for mistakes. Names of hosts have at most six labels of 41 signs,
as the whole has 253 (RFC 1035, 2.3.4), and no `--`, which may mean `xn--` (RFC 5891, 4.2.3.1);
what stands before the @ has five parts and 64 signs at most (RFC 5321, 4.5.3.1.1)."""


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
    "propertyNames": (True, {}, {"type": "string"}),
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


def _spell_format(schema: Node) -> None:
    given = schema.get("format")
    pattern = FORMATS.get(given) if isinstance(given, str) else None
    if pattern is None:
        return
    del schema["format"]
    if "pattern" not in schema:
        schema["pattern"] = pattern
    else:
        others = schema.get("allOf", [])
        schema["allOf"] = [*others, {"pattern": pattern}] if isinstance(others, list) else others


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
    _spell_format,
    _round_inwards,
)
