"""JSON schemas before llguidance sees them: bounds that it does not have, and our white space.

llguidance refuses keywords that it knows and cannot express, by name; keywords that JSON Schema
does not know are annotations (2020-12, section 6.5) and have no effect.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

from agent.errors import GrammarRefused
from protocol.json_depth import is_too_deep

MAX_DEPTH = 64
MAX_MULTIPLE = 1000
"""`multipleOf` without its decimal point: 99991 took 0.5 s to compile."""
OPTIONS = "x-guidance"
WHITE_SPACE = r" |\n[ \t]{0,40}"
"""Between two signs of the JSON: as one-line and indented JSON have it. Unbounded, a model that is
unsure of itself would fill the context with blanks."""
MAX_OPTIONAL = 400
"""Properties of one object that may be left out: each is four items in a row of the parser."""
_DATA = frozenset({"const", "enum", "default", "examples"})


def json_text(schema: str) -> str:
    """The schema as JSON on one line, with our options in it. Raises `GrammarRefused`."""
    data = schema.encode("utf-8", "replace")
    if is_too_deep(data, MAX_DEPTH):
        raise GrammarRefused(f"The JSON schema is nested more than {MAX_DEPTH} deep.")
    try:
        value = msgspec.json.decode(data)
    except (msgspec.MsgspecError, ValueError) as error:
        raise GrammarRefused(f"The JSON schema is no JSON: {error}.") from error
    if value is True:
        value = {}
    if not isinstance(value, dict):
        raise GrammarRefused("The JSON schema is neither an object nor `true`.")
    _check(value)
    options = {"whitespace_pattern": WHITE_SPACE}
    return msgspec.json.encode({OPTIONS: options, **value}).decode()


def _check(schema: dict[str, Any]) -> None:
    if OPTIONS in schema:
        raise GrammarRefused(f"The JSON schema has `{OPTIONS}`, which is not for requests.")
    ahead: list[Any] = [schema]
    while ahead:
        match ahead.pop():
            case dict() as node:
                _check_multiple(node.get("multipleOf"))
                _check_optional(node.get("properties"), node.get("required"))
                ahead.extend(value for name, value in node.items() if name not in _DATA)
            case list() as nodes:
                ahead.extend(nodes)
            case _:
                pass


def _check_optional(properties: Any, required: Any) -> None:
    if not isinstance(properties, dict) or len(properties) <= MAX_OPTIONAL:
        return
    names = required if isinstance(required, list) else ()
    needed = {name for name in names if isinstance(name, str)}
    optional = len(properties.keys() - needed)
    if optional > MAX_OPTIONAL:
        raise GrammarRefused(
            f"The JSON schema has `properties` of which {optional} are optional; at most "
            f"{MAX_OPTIONAL} can be expressed: name the others under `required`."
        )


def _check_multiple(value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    digits = Decimal(str(value)).as_tuple().digits
    if int("".join(map(str, digits)).rstrip("0") or 0) > MAX_MULTIPLE:
        raise GrammarRefused(
            f"The JSON schema has `multipleOf` {value}, which has too many digits: without decimal "
            f"point and final zeros at most {MAX_MULTIPLE} can be expressed."
        )
