"""Constrained generation in the engine: one compiled grammar a content, one matcher a call.

llguidance does the matching (docs/adr/0004). It looks at a token's bytes alone, so that nothing
here depends on how a text was cut into tokens; its state is a function of the tokens accepted.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock
from typing import Any, Protocol, cast

import numpy as np
from llguidance import LLMatcher, LLTokenizer

from agent.engine.sampling.grammar_constraint import GrammarConstraint, Ints
from agent.engine.sampling.lazy_grammar import LazyConstraint
from agent.grammar.compiling import compiled, kind_of
from agent.grammar.lark_text import grammar_text
from agent.grammar.marks import TokenNames
from agent.grammar.opening import opening_of
from agent.grammar.reasoning_block import ReasoningBlock
from agent.grammar.tools import ToolGrammar
from protocol.grammar import Grammar

GRAMMARS_KEPT = 32
_CONTROL = b"\xff"
"""What llguidance wants in front of tokens that are no text."""

_Key = tuple[str, Grammar | None, ReasoningBlock | None, ToolGrammar | None]


class Tokens(Protocol):
    """What a grammar needs of a vocabulary (`agent.engine.llama.vocabulary.Vocabulary`)."""

    size: int
    end_tokens: tuple[int, ...]
    pieces: list[bytes]
    shown_pieces: list[bytes]

    def tokenize(self, text: str) -> Ints:
        """The ids of a text, special tokens in it parsed."""


class Grammars:
    """Compiled grammars for one vocabulary: the 32 used last, by scope and content.

    May be asked from several threads. Compiling, which gives the GIL away, keeps nobody waiting
    who wants a grammar that is there.
    """

    def __init__(self, vocabulary: Tokens) -> None:
        self._vocabulary = vocabulary
        self._ends = np.array(sorted(vocabulary.end_tokens), dtype=np.int32)
        self._tokenizer = LLTokenizer(
            cast("Any", _TokenizerWrapper(vocabulary)),
            n_vocab=vocabulary.size,
            eos_token=list(vocabulary.end_tokens) or None,
        )
        control = [token for token, piece in enumerate(vocabulary.pieces) if not piece]
        self._control = {vocabulary.shown_pieces[token]: token for token in control}
        self._names = TokenNames(
            control=self._control_token,
            whole=self._whole_token,
            ends=vocabulary.end_tokens,
            others=tuple(token for token in control if token not in vocabulary.end_tokens),
        )
        self._compiled: OrderedDict[_Key, LLMatcher] = OrderedDict()
        self._lock = Lock()

    def has(
        self,
        grammar: Grammar | None,
        reasoning: ReasoningBlock | None = None,
        tools: ToolGrammar | None = None,
        *,
        scope: str = "",
    ) -> bool:
        """Whether nothing is to be compiled for a `constraint`; also where there is none."""
        with self._lock:
            return (grammar is None and tools is None) or (
                (scope, grammar, reasoning, tools) in self._compiled
            )

    def constraint(
        self,
        grammar: Grammar | None,
        reasoning: ReasoningBlock | None = None,
        tools: ToolGrammar | None = None,
        *,
        scope: str = "",
    ) -> GrammarConstraint:
        """A call's constraint, at its first token; one of grammar and tools is given, or both are.
        Raises `GrammarRefused`.

        Compiled grammars are shared within a `scope` only, so that nobody else sees by the time it
        takes what was asked for.
        A grammar's first use compiles it: 1 to 20 ms, 0.5 s at the worst of what the agent's
        worker lets pass; any other is a copy in microseconds.
        """
        key = (scope, grammar, reasoning, tools)
        matcher = self._copy_of(key)
        if matcher is None:
            text = grammar_text(grammar, reasoning, self._names, tools)
            matcher = compiled(self._tokenizer, text, kind_of(grammar))
            self._keep(key, matcher.deep_copy())
        opening, vocabulary = opening_of(grammar, tools), self._vocabulary
        if not opening:
            return GrammarConstraint(matcher, self._ends, vocabulary.size)
        return LazyConstraint(
            matcher,
            self._ends,
            vocabulary.size,
            opening=opening,
            pieces=vocabulary.pieces,
            shown_pieces=vocabulary.shown_pieces,
        )

    @property
    def kept(self) -> int:
        """How many compiled grammars are held."""
        return len(self._compiled)

    def _copy_of(self, key: _Key) -> LLMatcher | None:
        with self._lock:
            matcher = self._compiled.get(key)
            if matcher is None:
                return None
            self._compiled.move_to_end(key)
            return matcher.deep_copy()

    def _keep(self, key: _Key, matcher: LLMatcher) -> None:
        with self._lock:
            self._compiled[key] = matcher
            self._compiled.move_to_end(key)
            if len(self._compiled) > GRAMMARS_KEPT:
                self._compiled.popitem(last=False)

    def _control_token(self, text: str) -> int | None:
        return self._control.get(text.encode())

    def _whole_token(self, text: str) -> int | None:
        ids = self._vocabulary.tokenize(text)
        return int(ids[0]) if len(ids) == 1 else None


class _TokenizerWrapper:
    """The vocabulary as llguidance wants it: text as bytes, all else marked, never to be text."""

    is_tokenizer_wrapper = True
    bos_token_id = None
    special_token_ids: tuple[int, ...] = ()

    def __init__(self, vocabulary: Tokens) -> None:
        self._vocabulary = vocabulary
        ends = frozenset(vocabulary.end_tokens)
        self.eos_token_id = vocabulary.end_tokens[0] if vocabulary.end_tokens else None
        self.tokens = [
            _CONTROL + (shown or b"<[%d]>" % token)
            if token in ends or not piece or piece == _CONTROL
            else piece
            for token, (piece, shown) in enumerate(
                zip(vocabulary.pieces, vocabulary.shown_pieces, strict=True)
            )
        ]

    def __call__(self, text: str) -> Sequence[int]:
        """Only a Lark grammar that turns forcing on gets here."""
        ids: list[int] = self._vocabulary.tokenize(text).tolist()
        return ids
