"""Arguments between tags as Lark rules, for formats that have no JSON object of them.

A string stands there as it is, up to the tag behind it; everything else is JSON. What cannot be
held so is refused by name, as constructs are that no grammar can express.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from agent.errors import GrammarRefused
from agent.grammar import json_schema
from agent.grammar.argument_types import STRING, referred, types_of
from agent.grammar.call_form import TagForm
from agent.grammar.marks import TokenNames, quoted

MOST_UNNAMED = 64
"""Arguments of a tool whose schema names none."""

_NAME = re.compile(r"[^\s<>\"'=]+")
_ANNOTATIONS = frozenset(
    ("type", "title", "description", "default", "examples", "format", "deprecated", "$comment")
)
"""`format` is one in JSON Schema (2020-12, section 7) unless somebody asks for more."""
_OF_OBJECTS = _ANNOTATIONS | {
    *("properties", "required", "additionalProperties", "$defs", "definitions", "$schema", "$id"),
    "strict",
}
_OF_STRINGS = _ANNOTATIONS | {"enum", "const", "minLength", "maxLength"}
_SCALARS = frozenset({"string", "null", "boolean", "integer", "number"})
_MAX_LENGTH = 100_000

Symbols = Callable[[str], str]
"""Of a text, what stands for it in a rule."""


def tagged_rules(
    name: str, schema: str, tags: TagForm, tokens: TokenNames, symbols: Symbols
) -> str:
    """The rule `name` for the arguments of a tool with this schema (as JSON; empty: any), and what
    it is made of. Raises `GrammarRefused`."""
    json_schema.json_text(schema or "{}")  # its bounds are ours
    parameters: dict[str, Any] = msgspec.json.decode(schema or "{}")
    for key in parameters.keys() - _OF_OBJECTS:
        raise _refused(key)
    return _Tags(name, parameters, tags, tokens, symbols).rules()


class _Tags:
    def __init__(
        self,
        name: str,
        parameters: Mapping[str, Any],
        tags: TagForm,
        tokens: TokenNames,
        symbols: Symbols,
    ) -> None:
        self._name = name
        self._parameters = parameters
        self._tags = tags
        self._symbols = symbols
        self._end = tokens.control(tags.value_end)
        self._has_lines = tags.after_value.startswith("\n")
        self._behind = tags.after_value.partition(tags.value_end)[2]

    def rules(self) -> str:
        properties = self._parameters.get("properties") or {}
        if not properties:
            return self._unnamed()
        required = self._parameters.get("required") or ()
        unknown = [name for name in required if name not in properties]
        if unknown:
            raise _refused("required", f" (`{unknown[0]}` is none of its `properties`)")
        parts: list[str] = []
        rules = ""
        for number, (key, schema) in enumerate(properties.items()):
            part = f"{self._name}_{number}"
            parts.append(part if key in required else f"{part}?")
            rules += self._property(part, key, schema)
        return f"{self._name}: {' '.join(parts)}\n{rules}"

    def _unnamed(self) -> str:
        if self._parameters.get("additionalProperties") is False:
            return f'{self._name}: ""\n'
        before, behind = self._symbols(self._tags.before_key), self._symbols(self._tags.after_key)
        part = f"{self._name}_any"
        key = r"/[^\s<>\x{22}\x{27}=]{1,64}/"
        value = self._text(f"{part}_value", r"(?s:.*)")
        return (
            f"{self._name}: {part}{{0,{MOST_UNNAMED}}}\n"
            f"{part}: {before} {key} {behind} {part}_value\n{value}"
        )

    def _property(self, part: str, key: str, schema: Any) -> str:
        if not _NAME.fullmatch(key):
            raise _refused("properties", f" named {key[:40]!r}")
        before = self._symbols(self._tags.before_key + key + self._tags.after_key)
        return f"{part}: {before} {part}_value\n" + self._value(f"{part}_value", key, schema)

    def _value(self, name: str, key: str, schema: Any) -> str:
        types = types_of(self._parameters, key)
        if types == STRING:
            return self._string(name, _resolved(self._parameters, schema))
        if _is_any_text(schema, types):
            return self._text(name, r"(?s:.*)")
        if not isinstance(schema, dict):
            raise _refused("properties", " that allow nothing")
        known = {key: self._parameters[key] for key in ("$defs", "definitions")
                 if key in self._parameters}  # fmt: skip
        text = json_schema.json_text(json.dumps({**known, **schema}))
        behind = self._symbols(self._tags.after_value)
        return f"{name}: {name}_json {behind}\n{name}_json: %json {text}\n"

    def _string(self, name: str, schema: Mapping[str, Any]) -> str:
        for key in schema.keys() - _OF_STRINGS:
            raise _refused(key, " of a string")
        values = schema.get("enum", [schema["const"]] if "const" in schema else None)
        if values is not None:
            return self._one_of(name, values)
        least, most = schema.get("minLength", 0), schema.get("maxLength")
        if not least and most is None:
            return self._text(name, r"(?s:.*)")
        if not all(isinstance(n, int) and 0 <= n <= _MAX_LENGTH for n in (least, most or 0)):
            raise _refused("maxLength", f" or `minLength` beyond {_MAX_LENGTH}")
        # a tag within would end the value; with a line break behind it that is not so easily told
        character = "[^<]" if self._has_lines else "(?s:.)"
        bounds = f"{{{least},{'' if most is None else most}}}"
        return self._text(name, f"{character}{bounds}" + (r"\n" if self._has_lines else ""))

    def _one_of(self, name: str, values: Any) -> str:
        if any(not isinstance(value, str) or self._tags.value_end in value for value in values):
            raise _refused("enum", " of what can be no string here")
        choice = " | ".join(f"/{quoted(value)}/" if value else '""' for value in values)
        return f"{name}: ({choice}) {self._symbols(self._tags.after_value)}\n"

    def _text(self, name: str, pattern: str) -> str:
        """A rule for text as it stands, with the tag behind it."""
        behind = self._symbols(self._behind)
        if self._end is not None:
            return f"{name}: {name}_text <[{self._end}]> {behind}\n{name}_text: /{pattern}/\n"
        end = quoted(self._tags.value_end)
        return f"{name}: {name}_text {behind}\n{name}_text[lazy]: /{pattern}{end}/\n"


def _is_any_text(schema: Any, types: frozenset[str]) -> bool:
    """Whether every text is a value that the schema allows, read as JSON or as a string."""
    if schema is True or schema == {}:
        return True
    if not isinstance(schema, dict):
        return False
    options = schema.get("anyOf", [schema])
    if not isinstance(options, list) or schema.keys() - _ANNOTATIONS - {"anyOf"}:
        return False
    if any(not isinstance(option, dict) or option.keys() - _ANNOTATIONS for option in options):
        return False
    return not types or ("string" in types and types <= _SCALARS)


def _resolved(parameters: Mapping[str, Any], schema: Any) -> Mapping[str, Any]:
    """The schema, or that to which its `$ref` leads."""
    if isinstance(schema, dict) and "$ref" in schema:
        target = referred(parameters, schema["$ref"])
        return target if isinstance(target, dict) else schema
    return schema if isinstance(schema, dict) else {}


def _refused(construct: str, more: str = "") -> GrammarRefused:
    return GrammarRefused(
        f"The JSON schema has `{construct}`{more}, which calls in the model's form, between tags, "
        "cannot be held to."
    )
