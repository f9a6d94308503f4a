"""GBNF rules as llguidance's Lark, with exactly GBNF's meaning. Pure.

llguidance cuts text into lexemes greedily, GBNF knows no lexemes. So every character is a lexeme
of its own: slower where a whole vocabulary is masked (6.8 ms at 131k tokens, against 53 ms of
llama.cpp's own sampler), hardly slower where one token is looked at.

A rule that ends in itself is written as a loop: right recursion costs an Earley parser a
reduction per repetition at every step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from agent.errors import GrammarRefused
from agent.grammar.gbnf import (
    EMPTY,
    Characters,
    Choice,
    Node,
    Repetition,
    Rule,
    Sequence,
    TokenOf,
    parse,
)

TokenId = Callable[[str], int | None]
"""The id of the token with this text; None if there is not exactly one."""


def lark_rules(text: str, name: str, token_id: TokenId) -> str:
    """Lark rules for a GBNF text, the one of `root` called `name`. Raises `GrammarRefused`."""
    rules = parse(text)
    names = {rule: f"g{index}" for index, rule in enumerate(rules)} | {"root": name}
    writer = _Writer(names, token_id)
    reachable = _reachable(rules)
    return "".join(
        f"{names[rule]}: {writer.written(_as_loop(rule, node))}\n"
        for rule, node in rules.items()
        if rule in reachable
    )


class _Writer:
    def __init__(self, names: dict[str, str], token_id: TokenId) -> None:
        self._names = names
        self._token_id = token_id

    def written(self, node: Node) -> str:
        """A node in Lark; it can stand wherever one symbol can."""
        match node:
            case Rule(name):
                return self._names[name]
            case Characters():
                return _class(node)
            case TokenOf():
                return self._token(node)
            case Sequence(()):
                return '""'
            case Sequence(parts):
                return f"({' '.join(map(self.written, parts))})"
            case Choice(options):
                return f"({' | '.join(map(self.written, options))})"
            case Repetition(inner, least, most):
                return f"({self.written(inner)}){_count(least, most)}"

    def _token(self, node: TokenOf) -> str:
        token = node.token if isinstance(node.token, int) else self._token_id(node.token)
        if token is None:
            raise GrammarRefused(
                f"The GBNF grammar names {node.token}, which is not one token of this model."
            )
        return f"<[{'^' if node.negated else ''}{token}]>"


def _class(characters: Characters) -> str:
    ranges = "".join(rf"\x{{{first:X}}}-\x{{{last:X}}}" for first, last in characters.ranges)
    return f"/[{'^' if characters.negated else ''}{ranges}]/"


def _count(least: int, most: int | None) -> str:
    signs = {(0, None): "*", (1, None): "+", (0, 1): "?"}
    limit = "" if most is None else most
    return signs.get((least, most)) or f"{{{least},{limit}}}"


def _as_loop(name: str, node: Node) -> Node:
    """`a ::= x a | y` as `a ::= x* y`: the same sentences."""
    again: list[Node] = []
    others: list[Node] = []
    for option in _options(node):
        parts = option.parts if isinstance(option, Sequence) else (option,)
        if parts and parts[-1] == Rule(name):
            again.append(Sequence(parts[:-1]))
        else:
            others.append(option)
    loops = tuple(part for part in again if part != EMPTY)
    if not again or not others:
        return node
    base = Choice(tuple(others))
    return Sequence((Repetition(Choice(loops), 0, None), base)) if loops else base


def _options(node: Node) -> Iterator[Node]:
    match node:
        case Choice(options):
            for option in options:
                yield from _options(option)
        case Repetition(inner, 0, 1):
            yield from _options(inner)
            yield EMPTY
        case _:
            yield node


def _reachable(rules: dict[str, Node]) -> set[str]:
    seen = {"root"}
    ahead: list[Node] = [rules["root"]]
    while ahead:
        match ahead.pop():
            case Rule(name) if name not in seen:
                seen.add(name)
                ahead.append(rules[name])
            case Sequence(nodes) | Choice(nodes):
                ahead.extend(nodes)
            case Repetition(node):
                ahead.append(node)
            case _:
                pass
    return seen
