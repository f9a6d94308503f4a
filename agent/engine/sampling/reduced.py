"""Sampling from the likeliest few tokens of a row, where those are all that can be drawn. Pure.

The filters and the draw are the same as for a whole row, and so is the token: a few more come than
top_k keeps, and what it drops cannot be drawn. There are two exceptions. In some rows so many
tokens have the very logit of the last one that is kept, or of the best, that not all of them came:
then which of these equals are looked at is llama.cpp's choice, not the smallest ids. And a grammar
that sleeps may refuse what was drawn, a part of a character for instance: the next is drawn from
what it allows of those that came, which are fewer than top_k keeps if it refuses very many of them.
"""

from __future__ import annotations

from math import isfinite

from agent.engine.frames import Submit
from agent.engine.llama.arrays import REDUCED, Row
from agent.engine.sampling.draws import DRAW, REDRAW
from agent.engine.sampling.dry import is_dry
from agent.engine.sampling.penalties import is_penalised
from agent.engine.sampling.sampler import GREEDY_BELOW, Sampler
from agent.grammar.opening import opening_of

MOST_TOP_K = 128
"""Of larger sets the few that come of a row would not be more."""
MOST_TOP_K_ASLEEP = 64
"""Of a call with a sleeping grammar: so many are there even if that refuses twice as many."""


def takes_few(submit: Submit) -> bool:
    """Whether the likeliest tokens of each row are enough for a call, as long as no grammar binds
    it: it wants the best one, or draws from its `top_k` best, and nothing else looks at the row or
    changes it."""
    sampling = submit.sampling
    binds = submit.grammar is not None or submit.tools is not None
    if binds and not opening_of(submit.grammar, submit.tools):
        return False
    if submit.min_tokens or sampling.ignore_eos:
        return False
    if sampling.top_logprobs is not None or sampling.logit_bias:
        return False
    if is_penalised(sampling) or is_dry(sampling):
        return False
    if sampling.temperature < GREEDY_BELOW:
        return True
    most = MOST_TOP_K_ASLEEP if binds else MOST_TOP_K
    return not sampling.mirostat and 0 < sampling.top_k <= most


class ReducedSampler(Sampler):
    """Of a call that `takes_few`, while its constraint sleeps if it has one; it reads whole rows as
    well."""

    @property
    def takes_few(self) -> bool:
        """Whether the likeliest tokens of a row are enough for it now."""
        return self._constraint is None or self._constraint.is_asleep

    def choose(self, row: Row, position: int, *, may_end: bool, best: int | None = None) -> int:
        """As for a whole row."""
        if row.dtype != REDUCED:
            return super().choose(row, position, may_end=may_end, best=best)
        token = best if best is not None and best >= 0 else self._of_few(row, position, DRAW)
        if self._constraint is None or self._constraint.allows(token):
            return token
        mask = self._constraint.mask()
        if mask is None:
            return token
        allowed = row[mask[row["id"]]]
        return self._of_few(allowed, position, REDRAW) if len(allowed) else int(mask.argmax())

    def _of_few(self, row: Row, position: int, stream: int) -> int:
        # the places of the tokens stand for their ids: both have one order
        return int(row["id"][self._picked(row["logit"], position, stream)])


def best_of(rows: list[Row]) -> list[int]:
    """The likeliest tokens of rows, some of them reduced; -1 for a row that has none."""
    return [_best(row) for row in rows]


def _best(row: Row) -> int:
    logits = row["logit"] if row.dtype == REDUCED else row
    at = int(logits.argmax())
    if not isfinite(logits[at]):
        return -1
    return int(row["id"][at]) if row.dtype == REDUCED else at
