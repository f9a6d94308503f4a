"""Tool calls as Lark rules: `calls` is an answer that is nothing else, `spoken` one of free text in
which calls may come.

A call that may come is no state of ours but a lexeme in front, as with lazy grammars: text up to
the opening, however it was cut into tokens.
"""

from __future__ import annotations

from functools import partial

from agent.grammar import json_schema
from agent.grammar.call_form import CallForm
from agent.grammar.marks import TokenNames, one_of, pieces_of, quoted, symbols_of
from agent.grammar.tag_rules import tagged_rules
from agent.grammar.tools import ToolGrammar

MOST_CALLS = 128
"""Of an answer that is nothing else."""
_ANY_OBJECT = '{"type":"object"}'


def calls_rules(tools: ToolGrammar, tokens: TokenNames) -> str:
    """The rule `calls` and what it is made of. Raises `GrammarRefused`."""
    form = tools.form
    more = ""
    if tools.several and form.between_calls is not None:
        more = f"({_symbols(form.between_calls, form, tokens)} call){{0,{MOST_CALLS - 1}}}"
    opening = _symbols(form.opening + form.before_first, form, tokens)
    closing = _symbols(form.after_last, form, tokens)
    return f"calls: {opening} call {more} {closing}\n" + _call_rules(tools, tokens)


def spoken_rules(tools: ToolGrammar, tokens: TokenNames) -> str:
    """The rule `spoken` and what it is made of, but for `FREE`. Raises `GrammarRefused`."""
    opened, others = _opened(tools.form, tokens)
    parts = [f"FREE? {other}" for other in others]
    if tools.several:
        spoken = f"({' | '.join(['opened called', *parts])})* FREE?"
    else:
        spoken = f"{_any_number_of(parts)} (FREE | opened called)?"
    rules = f"spoken: {spoken}\n{opened}"
    return rules + _called(tools, tokens) + _call_rules(tools, tokens)


def _any_number_of(parts: list[str]) -> str:
    return f"({' | '.join(parts)})*" if parts else ""


def _opened(form: CallForm, tokens: TokenNames) -> tuple[str, list[str]]:
    """The rule `opened`, free text up to the opening, with it; and the control tokens that may
    stand in free text. None is in two symbols: the library takes the first for what it means."""
    opening = pieces_of(form.opening, form.specials, tokens)
    first = opening[0]
    others = tuple(other for other in tokens.others if other != first)
    symbols = [one_of(others)] if others else []
    match opening:
        case [str() as text, *rest]:
            begun = f"opened: opening {symbols_of(rest)}\n"
            return begun + f"opening[lazy]: /(?s:.*){quoted(text)}/\n", symbols
        case [token, str() as text, *rest]:
            # the token may open something else, too: what follows it decides
            begun = f"opened: FREE? <[{token}]> opening {symbols_of(rest)}\n"
            return begun + f"opening[lazy]: /{quoted(text)}/\n", [*symbols, f"<[{token}]>"]
        case _:
            return f"opened: FREE? {symbols_of(opening)}\n", symbols


def _called(tools: ToolGrammar, tokens: TokenNames) -> str:
    """The rule `called`: calls from behind their opening on."""
    form, more = tools.form, ""
    between = form.between_calls if tools.several else None
    # where the opening stands between calls, too, the next one is opened as the first was
    if between is not None and (form.before_first or form.opening not in between):
        more = f"({_symbols(between, form, tokens)} call)*"
    before = _symbols(form.before_first, form, tokens)
    return f"called: {before} call {more} {_symbols(form.after_last, form, tokens)}\n"


def _call_rules(tools: ToolGrammar, tokens: TokenNames) -> str:
    form = tools.form
    before = _symbols(form.before_name, form, tokens)
    after = _symbols(form.after_arguments, form, tokens)
    choice = " | ".join(f"tool{number}" for number in range(len(tools.tools)))
    rules = f"call: {before} ({choice}) {after}\n"
    for number, tool in enumerate(tools.tools):
        named = _named(tool.name, form, tokens)
        rules += f"tool{number}: {named} arguments{number}\n"
        rules += _arguments_rules(f"arguments{number}", tool.schema, form, tokens)
    return rules


def _named(name: str, form: CallForm, tokens: TokenNames) -> str:
    if not form.is_numbered:
        return _symbols(name + form.before_arguments, form, tokens)
    before_arguments = _symbols(form.before_arguments, form, tokens)
    return f"{_symbols(name, form, tokens)} /:[0-9]{{1,4}}/? {before_arguments}"


def _arguments_rules(name: str, schema: str, form: CallForm, tokens: TokenNames) -> str:
    if form.tags is None:
        return f"{name}: %json {json_schema.json_text(schema or _ANY_OBJECT)}\n"
    symbols = partial(_symbols, form=form, tokens=tokens)
    return tagged_rules(name, schema, form.tags, tokens, symbols)


def _symbols(text: str, form: CallForm, tokens: TokenNames) -> str:
    return symbols_of(pieces_of(text, form.specials, tokens))
