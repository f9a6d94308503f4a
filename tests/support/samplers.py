"""Samplers over small vocabularies, rows of logits to feed them, and a grammar that is a list."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from agent.engine.frames import Sampling
from agent.engine.llama.sampler_chain import Candidates
from agent.engine.sampling.constraint import Constraint
from agent.engine.sampling.sampler import NO_PROMPT, Sampler

SIZE = 200
ENDS = np.array([3, 4], dtype=np.int32)
Floats = NDArray[np.float32]


def row(seed: int = 0, size: int = SIZE, loudness: float = 3.0) -> Floats:
    """Logits; the louder, the surer."""
    numbers = np.random.default_rng(seed)
    return numbers.standard_normal(size, dtype=np.float32) * np.float32(loudness)


def pieces(size: int = SIZE) -> list[bytes]:
    """Texts of tokens, different ones; one of them breaks sequences."""
    return [b"\n" if token == 10 else b"%d " % token for token in range(size)]


@contextmanager
def sampler(
    sampling: Sampling,
    size: int = SIZE,
    constraint: Constraint | None = None,
    prompt: NDArray[np.int32] = NO_PROMPT,
    candidates: Candidates | None = None,
) -> Iterator[Sampler]:
    """A sampler, closed in the end."""
    candidates = candidates or Candidates(size)
    made = Sampler(sampling, candidates, size, ENDS, constraint, prompt=prompt, pieces=pieces(size))
    try:
        yield made
    finally:
        made.close()


def drawn(sampling: Sampling, logits: Floats, count: int = 400) -> list[int]:
    """What is chosen at the first positions, nothing accepted."""
    with sampler(sampling, len(logits)) as made:
        return [made.choose(logits, position, may_end=True) for position in range(count)]


class AllowList:
    """A grammar that allows the same tokens at every place; `is_lazy`: it never begins."""

    def __init__(
        self, allowed: Collection[int], size: int = SIZE, *, is_lazy: bool = False
    ) -> None:
        self._mask = np.isin(np.arange(size), list(allowed))
        self._is_lazy = is_lazy
        self.accepted: list[int] = []
        self.masks_made = 0
        self.is_closed = False

    def allows(self, token: int) -> bool:
        return self._is_lazy or bool(self._mask[token])

    def mask(self) -> NDArray[np.bool_] | None:
        self.masks_made += 1
        return None if self._is_lazy else self._mask

    def accept(self, token: int) -> None:
        self.accepted.append(token)

    def rollback(self, count: int) -> None:
        del self.accepted[len(self.accepted) - count :]

    @property
    def is_asleep(self) -> bool:
        return False

    def passes(self, token: int) -> bool:  # noqa: ARG002 (whatever it is)
        return False

    @property
    def is_complete(self) -> bool:
        return False

    def close(self) -> None:
        self.is_closed = True
