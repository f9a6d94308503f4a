"""`sanitise:` of the file: what is replaced in prompts and answers."""

from __future__ import annotations

import re
from typing import Any

from msgspec import Struct

from balancer.config_file.pattern_length import UnreadableLength, lengths
from balancer.config_file.sections import SectionFault, shaped, within
from balancer.text_rules import PatternFault, TextRule, Where, compiled

MOST_RULES = 32
MOST_PATTERN_CHARS = 1000
MOST_REPLACE_CHARS = 200
LONGEST_MATCH = 1000
"""Characters. An answer is held back by so many at most, for each rule."""
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_ALLOWED = "allowed: name, pattern, replace, where (prompt, answer or both)"


class _Rule(Struct, forbid_unknown_fields=True):
    name: str
    pattern: str
    replace: str
    where: Where = "both"


def text_rules(raw: Any) -> tuple[TextRule, ...]:
    """In their order. Raises `SectionFault`."""
    if not isinstance(raw, list) or len(raw) > MOST_RULES:
        raise SectionFault((), f"this is no list of up to {MOST_RULES} rules", _ALLOWED)
    found: list[TextRule] = []
    for index, one in enumerate(raw):
        with within(index):
            rule = _rule(shaped(one, _Rule, _ALLOWED))
            if any(rule.name == other.name for other in found):
                raise SectionFault(("name",), f"{rule.name!r} is there twice", "rename one")
            found.append(rule)
    return tuple(found)


def shown_rule(one: TextRule) -> dict[str, Any]:
    """As it is written."""
    return {
        "name": one.name,
        "pattern": one.pattern,
        "replace": one.replace,
        "where": one.where,
    }


def _rule(given: _Rule) -> TextRule:
    if not _NAME.fullmatch(given.name):
        allowed = "allowed: up to 64 of letters, digits and ._-"
        raise SectionFault(("name",), f"{given.name!r:.80} cannot be used", allowed)
    if len(given.replace) > MOST_REPLACE_CHARS or not given.replace.isprintable():
        allowed = f"allowed: up to {MOST_REPLACE_CHARS} printable characters"
        raise SectionFault(("replace",), "this cannot be used", allowed)
    with within("pattern"):
        longest = _longest(given.pattern)
    return TextRule(
        name=given.name,
        pattern=given.pattern,
        replace=given.replace,
        where=given.where,
        longest=longest,
    )


def _longest(pattern: str) -> int:
    remedy = "write it as RE2 wants it, with repetitions that have an end"
    if len(pattern) > MOST_PATTERN_CHARS:
        raise SectionFault((), f"it has more than {MOST_PATTERN_CHARS} characters", remedy)
    try:
        least, longest = lengths(pattern)
        compiled(pattern)
    except (UnreadableLength, PatternFault) as error:
        raise SectionFault((), str(error), remedy) from error
    if least == 0:
        raise SectionFault((), "it matches where there is nothing", "have it match a character")
    if longest > LONGEST_MATCH:
        problem = f"what it matches can have {longest} characters"
        raise SectionFault((), problem, f"allowed: at most {LONGEST_MATCH}")
    return longest
