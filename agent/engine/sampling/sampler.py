"""From a row of logits to a token, so that any agent draws the same one at the same position.

Order: bias, penalties, DRY; then top_k, typical_p, top_p, min_p, XTC, or mirostat in their place;
then temperature and the draw, decided by a number that is a function of (seed, position, stream).
Nothing depends on earlier draws but mirostat's mu (`state`); everything else that a sampler
remembers it can be told again (`accept`).

The first filter works on the whole vocabulary and is ours (`cuts`), the others see what it left
and are llama.cpp's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from agent.engine.frames import Sampling
from agent.engine.llama.arrays import Ints
from agent.engine.llama.sampler_chain import Candidates, SamplerChain
from agent.engine.sampling.constraint import Constraint
from agent.engine.sampling.cuts import Ids, above_min_p, best_k, nucleus, typical
from agent.engine.sampling.draws import DRAW, REDRAW, Floats, draw, uniform
from agent.engine.sampling.dry import Dry, is_dry
from agent.engine.sampling.mirostat import Mirostat
from agent.engine.sampling.penalties import Penalties, is_penalised
from agent.engine.sampling.xtc import acts, exclude_top_choices
from protocol.invariants import present

GREEDY_BELOW = 1e-5
"""Temperatures that would only overflow the division."""
NO_PROMPT: Ints = np.empty(0, dtype=np.int32)

_LARGE = 1e30
"""Stands for an infinite logit."""


class Best:
    """The likeliest tokens of up to `most` rows at once: one call into numpy instead of many."""

    def __init__(self, most: int) -> None:
        self._all_ids = np.zeros(most, dtype=np.intp)
        self._rows: Floats = np.empty((0, 0), dtype=np.float32)
        self._use(self._rows)

    def of(self, rows: Floats) -> list[int]:
        """Their ids; -1 for a row that has none."""
        if rows is not self._rows:  # they are mostly, and new views cost 20 µs
            self._use(rows)
        rows.argmax(1, self._ids)
        ids, logits, start = self._read.tolist(), self._logits, 0
        for at, token in enumerate(ids):
            if not isfinite(logits[start + token]):
                ids[at] = -1
            start += self._width
        return ids

    def _use(self, rows: Floats) -> None:
        self._rows, self._width, self._logits = rows, rows.shape[1], rows.reshape(-1).data
        self._ids = self._all_ids[: len(rows)]
        self._read = self._ids.data


class Sampler:
    """One call's sampling; `close` frees its native chain and its constraint.

    `prompt` and `pieces` (the bytes of every token, control tokens' too) are for DRY alone.
    """

    def __init__(
        self,
        sampling: Sampling,
        candidates: Candidates,
        vocabulary_size: int,
        ends: Ints,
        constraint: Constraint | None = None,
        *,
        prompt: Ints = NO_PROMPT,
        pieces: Sequence[bytes] = (),
    ) -> None:
        self._sampling = sampling
        self._candidates = candidates
        self._vocabulary_size = vocabulary_size
        self._ends = ends
        self._end_set = frozenset(ends.tolist())
        self._constraint = constraint
        self._ignores_ends = sampling.ignore_eos
        self._is_greedy = sampling.temperature < GREEDY_BELOW
        self._bias = _summed(sampling.logit_bias)
        self._penalties = Penalties(sampling) if is_penalised(sampling) else None
        self._dry = _dry(sampling, prompt, pieces) if is_dry(sampling) else None
        self._mirostat: Mirostat | None = None
        self._cut: Callable[[Floats], Ids] | None = None
        self._chain: SamplerChain | None = None
        if sampling.mirostat and not self._is_greedy:
            self._mirostat = Mirostat(
                sampling.mirostat, sampling.mirostat_tau, sampling.mirostat_eta
            )
        elif not self._is_greedy:
            self._cut, self._chain = _filters(sampling, candidates.work)
        self._changes = bool(self._bias or self._penalties or self._dry)
        remembering = (self._penalties, self._dry, self._mirostat, constraint)
        self._listeners = tuple(one.accept for one in remembering if one is not None)

    @property
    def takes_best(self) -> bool:
        """Whether it wants nothing but the likeliest token of the model's own logits, mostly."""
        return self._is_greedy and not self._changes

    @property
    def takes_few(self) -> bool:
        """Whether the likeliest tokens of a row are enough for it now (see reduced.py)."""
        return False

    @property
    def is_plain(self) -> bool:
        """Whether it takes the best token and remembers nothing, and allows every token or has a
        constraint that sleeps."""
        return self.takes_best and (self._constraint is None or self._constraint.is_asleep)

    @property
    def passes(self) -> Callable[[int], bool] | None:
        """Of the constraint, if there is one: what a token has to pass to be taken in one go."""
        return self._constraint.passes if self._constraint is not None else None

    def choose(self, row: Floats, position: int, *, may_end: bool, best: int | None = None) -> int:
        """The token for a position; `row` is not changed. What was accepted before counts, what
        was chosen does not. `best` is what `Best` says of the row, if it was asked."""
        bans = self._ignores_ends or not may_end
        token = -1
        if self._is_greedy and not self._changes:
            token = self._best_unchanged(row) if best is None else best
        if token < 0 or (bans and token in self._end_set):
            changed = self._changed(row, bans=bans) if bans or self._changes else row
            token = self._picked(changed, position, DRAW)
        if self._constraint is None or self._constraint.allows(token):
            return token
        return self._redrawn(row, position, token, bans=bans)

    def accept(self, token: int) -> None:
        """A token was generated, here or elsewhere."""
        for listener in self._listeners:
            listener(token)

    @property
    def is_complete(self) -> bool:
        """Whether a grammar allows nothing but the end."""
        return self._constraint is not None and self._constraint.is_complete

    def state(self) -> tuple[float, ...]:
        """What no replay of tokens rebuilds, after the last accepted: mirostat's mu, or nothing."""
        return () if self._mirostat is None else (self._mirostat.mu,)

    def restore(self, state: tuple[float, ...]) -> None:
        """Go on from a `state`, after its tokens were accepted; raises `ValueError`."""
        expected = len(self.state())
        if len(state) != expected or not all(map(isfinite, state)):
            raise ValueError(f"the sampler's state has {expected} finite numbers, got {state}")
        if self._mirostat is not None:
            (self._mirostat.mu,) = state

    def close(self) -> None:
        """Free what is native."""
        if self._chain is not None:
            self._chain.close()
        if self._constraint is not None:
            self._constraint.close()
        self._chain = self._constraint = None
        self._listeners = ()

    def _best_unchanged(self, row: Floats) -> int:
        """The likeliest token; -1: the row has none."""
        best = int(row.argmax())
        return best if isfinite(row[best]) else -1

    def _changed(self, row: Floats, *, bans: bool) -> Floats:
        """A copy of the logits with everything that changes them; `bans`: no end token."""
        changed = self._candidates.row
        np.copyto(changed, row)
        if self._bias is not None:
            ids, bias = self._bias
            changed[ids] += bias
        if self._penalties is not None:
            self._penalties.apply(changed)
        if self._dry is not None:
            self._dry.apply(changed)
        if bans:
            changed[self._ends] = -np.inf
        return changed

    def _picked(self, row: Floats, position: int, stream: int) -> int:
        best = int(row.argmax())
        if not isfinite(row[best]):
            row = np.nan_to_num(row, nan=-np.inf, posinf=_LARGE, neginf=-np.inf)
            best = int(row.argmax())
            if not isfinite(row[best]):
                return best  # everything is impossible: the least bad token
        if self._is_greedy:
            return best
        sampling, work = self._sampling, self._candidates.work
        number = uniform(sampling.seed, position, stream)
        if self._mirostat is not None:
            return self._mirostat.draw(row, sampling.temperature, number, work)
        ids, logits = self._filtered(row)
        known = row[best] if logits is row else None
        if acts(sampling.xtc_probability, sampling.seed, position):
            known = None  # the best is among what is excluded, maybe in this very row
            if logits is row:
                logits = self._candidates.row
                np.copyto(logits, row)
            exclude_top_choices(logits, sampling.xtc_threshold, work[0])
        index = draw(logits, sampling.temperature, number, work[0], known)
        return index if ids is None else int(ids[index])

    def _filtered(self, row: Floats) -> tuple[NDArray[np.integer] | None, Floats]:
        """Ids, ordered, and logits of what may be drawn; without ids it is everything."""
        if self._cut is None:
            return None, row
        ids = self._cut(row)
        logits = row[ids]
        if self._chain is None or len(ids) == 1:
            return ids, logits
        self._candidates.keep(ids, logits)
        self._candidates.apply(self._chain)
        return self._candidates.read()

    def _redrawn(self, row: Floats, position: int, refused: int, *, bans: bool) -> int:
        """The token for a position among those that the constraint allows.

        Where it wants the end, the text may end: a constraint is stronger than `min_tokens`.
        """
        mask = present(self._constraint).mask()
        if mask is None:
            return refused
        mask = mask[: self._vocabulary_size]
        for is_banned in (True, False) if bans else (False,):
            changed = self._changed(row, bans=is_banned)
            np.copyto(changed, -np.inf, where=~mask)
            if changed.max() != -np.inf:
                return self._picked(changed, position, REDRAW)
        allowed = np.flatnonzero(mask)
        # nothing can follow: what the grammar allows though the model does not, else the end
        return int(allowed[0] if len(allowed) else self._ends[0] if len(self._ends) else refused)


def _summed(bias: Sequence[tuple[int, float]]) -> tuple[Ids, Floats] | None:
    """Ids, each once, and what is added to their logits."""
    if not bias:
        return None
    sums: dict[int, float] = {}
    for token, value in bias:
        sums[token] = sums.get(token, 0.0) + value
    return np.array(list(sums), dtype=np.intp), np.array(list(sums.values()), dtype=np.float32)


def _dry(sampling: Sampling, prompt: Ints, pieces: Sequence[bytes]) -> Dry:
    dry = Dry(sampling, pieces)
    for token in prompt[-sampling.dry_penalty_last_n :].tolist():
        dry.accept(token)
    return dry


def _filters(
    sampling: Sampling, work: Floats
) -> tuple[Callable[[Floats], Ids] | None, SamplerChain | None]:
    """What drops candidates: the first filter over whole rows, a chain of the others."""
    k, typical_p, top_p, min_p = sampling.top_k, sampling.typical_p, sampling.top_p, sampling.min_p
    table: tuple[tuple[bool, Callable[[Floats], Ids], Callable[[SamplerChain], None]], ...] = (
        (k > 0, lambda row: best_k(row, k, work), lambda _: None),
        (
            typical_p < 1,
            lambda row: typical(row, typical_p, work),
            lambda chain: chain.add_typical_p(typical_p),
        ),
        (top_p < 1, lambda row: nucleus(row, top_p, work), lambda chain: chain.add_top_p(top_p)),
        (min_p > 0, lambda row: above_min_p(row, min_p), lambda chain: chain.add_min_p(min_p)),
    )
    wanted = [(cut, add) for is_on, cut, add in table if is_on]
    if not wanted:
        return None, None
    if len(wanted) == 1:
        return wanted[0][0], None
    chain = SamplerChain()
    for _, add in wanted[1:]:
        add(chain)
    return wanted[0][0], chain
