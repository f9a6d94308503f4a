"""JSON schemas before llguidance sees them: bounds that it does not have, and our white space.

llguidance refuses keywords that it knows and cannot express, by name; keywords that JSON Schema
does not know are annotations (2020-12, section 6.5) and have no effect.
"""

from __future__ import annotations

import msgspec

from agent.errors import GrammarRefused
from agent.grammar.schema_limits import check
from agent.grammar.schema_nodes import schemas_in
from agent.grammar.schema_wording import reword
from protocol.json_depth import is_too_deep

MAX_DEPTH = 64
OPTIONS = "x-guidance"
WHITE_SPACE = r" |\n[ \t]{0,40}"
"""Between two signs of the JSON: as one-line and indented JSON have it. Unbounded, a model that is
unsure of itself would fill the context with blanks."""
ESCAPES = 'nrbtf\\"'
"""Behind a backslash in a string. No `u`: with it llguidance takes `\\u0061` for a name that is not
`a`, and a value that `a` may not have would stand there."""


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
    if OPTIONS in value:
        raise GrammarRefused(f"The JSON schema has `{OPTIONS}`, which is not for requests.")
    for node in schemas_in(value):
        check(node)
        reword(node)
    options = {"whitespace_pattern": WHITE_SPACE, "json_allowed_escapes": ESCAPES}
    return msgspec.json.encode({OPTIONS: options, **value}).decode()
