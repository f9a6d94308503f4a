"""Sampling from the likeliest few tokens of a row, where those are all that can be drawn. Pure.

The filters and the draw are the same as for a whole row, and so is the token: a few more come than
top_k keeps, and what it drops cannot be drawn. The one exception are rows in which so many tokens
have the very logit of the last one that is kept, or of the best, that not all of them came: then
which of these equals are looked at is llama.cpp's choice, not the smallest ids.
"""

from __future__ import annotations

from math import isfinite

from agent.engine.frames import Submit
from agent.engine.llama.arrays import REDUCED, Row
from agent.engine.sampling.draws import DRAW
from agent.engine.sampling.dry import is_dry
from agent.engine.sampling.penalties import is_penalised
from agent.engine.sampling.sampler import GREEDY_BELOW, Sampler

MOST_TOP_K = 128
"""Of larger sets the few that come of a row would not be more."""


def takes_few(submit: Submit) -> bool:
    """Whether the likeliest tokens of each row are enough for a call: it wants the best one, or
    draws from its `top_k` best, and nothing else looks at the row or changes it."""
    sampling = submit.sampling
    if submit.grammar is not None or submit.tools is not None:
        return False
    if submit.min_tokens or sampling.ignore_eos:
        return False
    if sampling.top_logprobs is not None or sampling.logit_bias:
        return False
    if is_penalised(sampling) or is_dry(sampling):
        return False
    if sampling.temperature < GREEDY_BELOW:
        return True
    return not sampling.mirostat and 0 < sampling.top_k <= MOST_TOP_K


class ReducedSampler(Sampler):
    """Of a call that `takes_few`; it reads whole rows as well."""

    takes_few = True

    def choose(self, row: Row, position: int, *, may_end: bool, best: int | None = None) -> int:
        """As for a whole row."""
        if row.dtype != REDUCED:
            return super().choose(row, position, may_end=may_end, best=best)
        if best is not None and best >= 0:
            return best
        # the places of the tokens stand for their ids: both have one order
        return int(row["id"][self._picked(row["logit"], position, DRAW)])


def best_of(rows: list[Row]) -> list[int]:
    """The likeliest tokens of rows, some of them reduced; -1 for a row that has none."""
    return [_best(row) for row in rows]


def _best(row: Row) -> int:
    logits = row["logit"] if row.dtype == REDUCED else row
    at = int(logits.argmax())
    if not isfinite(logits[at]):
        return -1
    return int(row["id"][at]) if row.dtype == REDUCED else at
