"""One call under a grammar: what llguidance's matcher says of its tokens."""

from __future__ import annotations

import numpy as np
from llguidance import LLMatcher
from numpy.typing import NDArray

from agent.errors import GrammarRefused, OutsideGrammar
from agent.grammar.compiling import reason

Ints = NDArray[np.int32]


class GrammarConstraint:
    """One call's grammar: an `agent.engine.sampling.constraint.Constraint`.

    All but `close` and `is_complete` raise `GrammarRefused` when the grammar passes its limits at
    this text: it is over then, and stays so. `accept` raises `OutsideGrammar` and changes nothing.
    """

    def __init__(self, matcher: LLMatcher, ends: Ints, vocabulary_size: int) -> None:
        self._matcher = matcher
        self._ends = ends
        self._end_set = frozenset(ends.tolist())
        self._vocabulary_size = vocabulary_size
        self._bits = np.zeros(-(-vocabulary_size // 32), dtype=np.uint32)
        self._accepted = 0
        self._ended = 0

    def allows(self, token: int) -> bool:
        """Whether the token may come next; an end token where the text is a whole sentence."""
        if token in self._end_set:
            return bool(self._matcher.is_accepting())
        if self._matcher.validate_tokens([token]) == 1:
            return True
        self._raise_if_broken()
        return False

    def mask(self) -> NDArray[np.bool_]:
        """Which tokens may come next, [vocabulary]; at least one."""
        matcher = self._matcher
        matcher.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
        self._raise_if_broken()
        bits = np.unpackbits(
            self._bits.view(np.uint8), count=self._vocabulary_size, bitorder="little"
        )
        bits[self._ends] = matcher.is_accepting()
        return bits.view(np.bool_)

    def accept(self, token: int) -> None:
        """The token was chosen, here or elsewhere."""
        if token in self._end_set:
            self._ended += 1
        elif self._matcher.try_consume_tokens([token]) == 1:
            self._accepted += 1
        else:
            self._raise_if_broken()
            raise OutsideGrammar(f"Token {token} is not what the grammar allows here.")

    def rollback(self, count: int) -> None:
        """Undo the last `count` accepts, `ValueError` if there were fewer. Nothing follows an end
        token, so those go first."""
        ends = min(count, self._ended)
        others = count - ends
        if others > self._accepted:
            raise ValueError(f"{count} tokens cannot be undone, fewer were accepted")
        if others and not self._matcher.rollback(others):
            self._raise_if_broken()
        self._ended -= ends
        self._accepted -= others

    @property
    def is_asleep(self) -> bool:
        """It binds from the first token on."""
        return False

    def passes(self, token: int) -> bool:  # noqa: ARG002 (whatever the token is)
        """It is asked about every token."""
        return False

    @property
    def is_complete(self) -> bool:
        """Whether nothing but an end token may follow."""
        return bool(self._matcher.is_stopped())

    def close(self) -> None:
        """Nothing is held that the garbage collector does not free."""

    def _raise_if_broken(self) -> None:
        if self._matcher.is_error():
            why = reason(self._matcher.get_error())
            raise GrammarRefused(f"The grammar cannot be followed any further: {why}.")
