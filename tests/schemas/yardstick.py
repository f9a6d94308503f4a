"""Whether a text is an instance of a schema, by the `jsonschema` package.

Numbers are read as decimals on both sides: 0.3 is a multiple of 0.1, which it is not among doubles.
Formats count, by that package's own checks and by those of `jsonschema_rs`, which knows them all.
"""

from __future__ import annotations

import json
import math
from decimal import Decimal, localcontext
from typing import Any

import jsonschema
import jsonschema_rs

from tests.schemas.ingredients import FORMATS

_BY_PACKAGE = jsonschema.Draft202012Validator.FORMAT_CHECKER


def _format_checker() -> jsonschema.FormatChecker:
    checker = jsonschema.FormatChecker(formats=())
    for name in FORMATS:
        other = jsonschema_rs.Draft202012Validator({"format": name}, validate_formats=True)

        def fits(value: object, name: str = name, other: Any = other) -> bool:
            is_text = isinstance(value, str)
            return not is_text or (_BY_PACKAGE.conforms(value, name) and other.is_valid(value))

        checker.checks(name)(fits)
    return checker


_FORMATS = _format_checker()
_DIGITS = 5000
"""Of a decimal, when one is divided by another: more than an answer has."""


def misfit(text: str, schema: dict[str, Any]) -> str:
    """Why a text is no instance of the schema; empty: it is one."""
    try:
        value = _read(text)
    except ValueError as error:
        return f"no JSON: {error}"
    validator = jsonschema.Draft202012Validator(_read(json.dumps(schema)), format_checker=_FORMATS)
    with localcontext(prec=_DIGITS):
        found = jsonschema.exceptions.best_match(validator.iter_errors(value))
    return "" if found is None else f"{found.json_path}: {found.message}"


def _read(text: str) -> Any:
    return json.loads(text, parse_float=_number)


def _number(text: str) -> float | Decimal:
    """Numbers of any size are JSON; those beyond doubles are infinite for every client."""
    return Decimal(text) if math.isfinite(float(text)) else float(text)
