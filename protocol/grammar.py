"""What a request may ask of the generated text's form."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

GrammarKind = Literal["json_schema", "json_object", "gbnf", "regex", "lark"]

MAX_GRAMMAR_CHARS = 256 * 1024
MAX_TRIGGER_CHARS = 256


class Grammar(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The text must be a sentence of this grammar, and ends where it must or may end.

    `text` is the schema as JSON text, the GBNF, the regular expression (it matches the whole text)
    or the Lark grammar; for `json_object` it is empty.

    With a `trigger` the text is free up to its first occurrence, which may never come, and the
    grammar speaks about what follows it. A model's reasoning block is free in any case: the
    grammar binds after it.
    """

    kind: GrammarKind
    text: Annotated[str, Meta(max_length=MAX_GRAMMAR_CHARS)] = ""
    trigger: Annotated[str, Meta(max_length=MAX_TRIGGER_CHARS)] = ""
