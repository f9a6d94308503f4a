"""llama.cpp's GBNF: its text to rules. Pure.

The syntax is that of llama.cpp's grammars/README.md: `name ::= …` with literals, character
classes, `.`, groups, alternatives, repetitions, `<token>`, `<[id]>` and `!` before those.
Everything wrong is a `GrammarRefused` that names the line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

from agent.errors import GrammarRefused

MAX_REPETITIONS = 2000
"""llama.cpp's own bound."""
MAX_NESTING = 64
_LAST_CODE_POINT = 0x10FFFF
_HEX_DIGITS = {"x": 2, "u": 4, "U": 8}
_ESCAPES = {"t": "\t", "r": "\r", "n": "\n", "\\": "\\", '"': '"', "[": "[", "]": "]", "-": "-"}


@dataclass(frozen=True, slots=True)
class Characters:
    """One character out of these code points (first and last of each range), or not out of them."""

    ranges: tuple[tuple[int, int], ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class TokenOf:
    """One token of the vocabulary, by id or by text, or any but that."""

    token: int | str
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """A reference to a rule."""

    name: str


@dataclass(frozen=True, slots=True)
class Sequence:
    """One after the other; none: the empty text."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """One of them."""

    options: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repetition:
    """As often as that; `most` of None: without end."""

    node: Node
    least: int
    most: int | None


Node = Characters | TokenOf | Rule | Sequence | Choice | Repetition

EMPTY = Sequence(())
_ANY = Characters(((0, _LAST_CODE_POINT),))


def parse(text: str) -> dict[str, Node]:
    """The rules by name, in the order of the text; there is a `root`, every reference has a rule.

    Raises `GrammarRefused`.
    """
    return _Parser(text).rules()


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0
        self._used: dict[str, int] = {}

    def rules(self) -> dict[str, Node]:
        rules: dict[str, Node] = {}
        self._skip(newlines=True)
        while self._peek():
            name = self._name("a rule's name")
            if name in rules:
                self._refuse(f"the rule `{name}` is defined a second time")
            self._skip(newlines=False)
            self._expect("::=")
            self._skip(newlines=True)
            rules[name] = self._choice()
            if self._peek() not in ("", "\r", "\n"):
                self._refuse(f"unexpected {self._peek()!r}")
            self._skip(newlines=True)
        for name, position in self._used.items():
            if name not in rules:
                self._at = position
                self._refuse(f"the rule `{name}` is not defined")
        if "root" not in rules:
            raise GrammarRefused("The GBNF grammar has no rule `root`.")
        return rules

    def _choice(self) -> Node:
        options = [self._sequence()]
        while self._peek() == "|":
            self._at += 1
            self._skip(newlines=True)
            options.append(self._sequence())
        return options[0] if len(options) == 1 else Choice(tuple(options))

    def _sequence(self) -> Node:
        parts: list[Node] = []
        while (part := self._part()) is not None:
            self._skip(newlines=self._depth > 0)
            while self._peek() and self._peek() in "*+?{":
                part = self._repetition(part)
                self._skip(newlines=self._depth > 0)
            parts.append(part)
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def _part(self) -> Node | None:
        match self._peek():
            case '"':
                return self._literal()
            case "[":
                return self._class()
            case "(":
                return self._group()
            case ".":
                self._at += 1
                return _ANY
            case "<" | "!":
                return self._token()
            case character if _is_word(character):
                position = self._at
                name = self._name("a rule's name")
                self._used.setdefault(name, position)
                return Rule(name)
        return None

    def _literal(self) -> Node:
        self._at += 1
        characters: list[Node] = []
        while self._peek() != '"':
            code = self._character()
            characters.append(Characters(((code, code),)))
        self._at += 1
        return Sequence(tuple(characters))

    def _class(self) -> Node:
        self._at += 1
        negated = self._peek() == "^"
        self._at += negated
        ranges: list[tuple[int, int]] = []
        while self._peek() != "]":
            first = last = self._character()
            if self._peek() == "-" and self._text[self._at + 1 : self._at + 2] not in ("]", ""):
                self._at += 1
                last = self._character()
            if last < first:
                self._refuse(f"the range {chr(first)!r} to {chr(last)!r} runs backwards")
            ranges.append((first, last))
        self._at += 1
        if not ranges and not negated:
            self._refuse("the character class [] matches nothing")
        return Characters(tuple(ranges), negated) if ranges else _ANY

    def _group(self) -> Node:
        self._at += 1
        self._depth += 1
        if self._depth > MAX_NESTING:
            self._refuse(f"groups are nested more than {MAX_NESTING} deep")
        self._skip(newlines=True)
        node = self._choice()
        self._expect(")")
        self._depth -= 1
        return node

    def _token(self) -> Node:
        negated = self._peek() == "!"
        self._at += negated
        self._expect("<")
        end = self._text.find(">", self._at)
        line_end = self._text.find("\n", self._at)
        if end <= self._at or 0 <= line_end < end:
            self._refuse("a token is written `<text>` or `<[id]>`")
        text = self._text[self._at : end]
        self._at = end + 1
        if text.startswith("[") and text.endswith("]"):
            number = text[1:-1]
            if not (number.isascii() and number.isdigit() and len(number) < 10):
                self._refuse(f"`<{text}>` has no token id in it")
            return TokenOf(int(number), negated)
        return TokenOf(f"<{text}>", negated)

    def _repetition(self, node: Node) -> Node:
        sign = self._peek()
        self._at += 1
        if sign != "{":
            least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}[sign]
            return Repetition(node, least, most)
        self._skip(newlines=False)
        counts = "" if self._peek() == "," else str(self._count())
        least = int(counts or 0)
        most = least if counts else None
        self._skip(newlines=False)
        if self._peek() == ",":
            self._at += 1
            self._skip(newlines=False)
            most = None if self._peek() == "}" else self._count()
            self._skip(newlines=False)
        self._expect("}")
        if most is not None and most < least:
            self._refuse(f"{{{least},{most}}} runs backwards")
        return Repetition(node, least, most)

    def _count(self) -> int:
        start = self._at
        while self._peek().isascii() and self._peek().isdigit():
            self._at += 1
        digits = self._text[start : self._at]
        if not digits:
            self._refuse("a number of repetitions is missing")
        if len(digits) > 4 or int(digits) > MAX_REPETITIONS:
            self._refuse(f"more than {MAX_REPETITIONS} repetitions cannot be counted")
        return int(digits)

    def _character(self) -> int:
        character = self._peek()
        if character in ("", "\n"):
            self._refuse("a literal or character class is not closed on its line")
        self._at += 1
        if character != "\\":
            return ord(character)
        escape = self._peek()
        self._at += 1
        if escape in _ESCAPES:
            return ord(_ESCAPES[escape])
        digits = self._text[self._at : self._at + _HEX_DIGITS.get(escape, 0)]
        self._at += len(digits)
        if not digits or len(digits) < _HEX_DIGITS[escape] or not _is_hex(digits):
            self._refuse(f"unknown escape \\{escape}{digits}")
        code = int(digits, 16)
        if code > _LAST_CODE_POINT or 0xD800 <= code < 0xE000:
            self._refuse(f"\\{escape}{digits} is no character")
        return code

    def _name(self, what: str) -> str:
        start = self._at
        while _is_word(self._peek()):
            self._at += 1
        if start == self._at:
            self._refuse(f"{what} is expected, {self._peek() or 'the end'!r} found")
        return self._text[start : self._at]

    def _skip(self, *, newlines: bool) -> None:
        """Over blanks and comments, and over line ends where a rule may go on behind them."""
        blanks = " \t\r\n" if newlines else " \t"
        while self._peek() and self._peek() in blanks + "#":
            if self._peek() == "#":
                end = self._text.find("\n", self._at)
                self._at = len(self._text) if end < 0 else end
            else:
                self._at += 1

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _expect(self, sign: str) -> None:
        if not self._text.startswith(sign, self._at):
            self._refuse(f"`{sign}` is expected, {self._peek() or 'the end'!r} found")
        self._at += len(sign)

    def _refuse(self, problem: str) -> NoReturn:
        line = self._text.count("\n", 0, self._at) + 1
        raise GrammarRefused(f"The GBNF grammar is wrong in line {line}: {problem}.")


def _is_word(character: str) -> bool:
    return character.isascii() and (character.isalnum() or character in ("-", "_"))


def _is_hex(digits: str) -> bool:
    return all(digit in "0123456789abcdefABCDEF" for digit in digits)
