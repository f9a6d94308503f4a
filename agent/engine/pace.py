"""How many tokens to draft: learned from how often drafts are right and what a step costs. Pure.

A drafted token is one more row of the decode that checks it. On a GPU, which waits for memory, rows
are nearly free and even poor drafts pay. On a CPU they are not: on one thread, relative to a plain
decode, 4, 8 and 16 drafted tokens take 2.2, 3.5 and 6.2 times as long with the shipped F32 model
and 2.4, 3.3 and 4.8 times with 100 M parameters in Q8_0. So nothing is assumed: `DecodeCosts`
learns what steps take by their rows, and `Pace` chooses the count that promises the most tokens a
second, maybe none.
"""

from __future__ import annotations

MOST_DRAFTED = 16
FIRST_CHANCE = 0.75
HIGHEST_CHANCE = 0.98
CHANCE_WEIGHT = 0.25
"""Of one token in the estimate: four wrong ones end the drafting after the best of times."""
USUAL_WEIGHT = 0.02
"""Of one comparison in what new calls begin with. Short answers would be over before each of them
has found out that its guesses are right."""
LEAST_GAIN = 1.2
"""Below it a draft is not worth its trouble: after a run of right guesses too much is hoped for."""
TIE = 0.95
"""Of rates this close the longer draft: fewer steps are less work beside the decodes, too."""

COST_WEIGHT = 0.1
LINE_WEIGHT = 0.03
ANCHOR = 0.3
"""Weight of a plain step of one slot among about 30 others."""
OUTLIER = 4.0
"""A step that took longer than this many times the estimate was disturbed by something else."""
TOO_DEAR = 0.7
"""A step that took less than this share of the estimate was not disturbed: the estimate was."""
CORRECTED_WEIGHT = 0.5
"""Of such a step, in place of `LINE_WEIGHT`."""
SURE = 0.9
"""Guesses that are right so often are worth asking again what checking them costs."""
ASK_EVERY = 128
"""Tokens. Where drafting seemed too dear once, by steps that were disturbed, no draft would ever
show that it is not."""
ASKED_TOKENS = 2


class DecodeCosts:
    """Seconds of a step by the rows it decodes, for all calls of an engine. `split`: see `of`.

    Plain steps are kept by their number of busy slots, all steps of several rows as a line: one row
    is a matrix times a vector, more are another kernel, whose time grows with them, in stairs.
    """

    def __init__(self, *, split: bool) -> None:
        self._split = split
        self._plain: dict[int, float] = {}
        self._last_rows = 0
        self._unasked = 0
        # decayed sums over (rows, seconds): weight, rows, rows squared, seconds, rows times seconds
        self._sums = (0.0, 0.0, 0.0, 0.0, 0.0)
        self._line = (0.0, 0.0)
        self.usual_chance = FIRST_CHANCE
        """That a guess is right, of the calls so far: what a new one begins with."""

    def took(self, busy: int, drafted: int, seconds: float) -> None:
        """A whole step with one token each of `busy` (>= 1) slots and `drafted` ones, no prompts.

        Everything counts that is done per step. A plain step right after a larger one does not
        count: llama.cpp builds its graph anew when the number of rows changes (0.15 ms).
        """
        rows, before = busy + drafted, self._last_rows
        self._last_rows = rows
        if drafted and self._teaches_nothing(busy):
            return
        if not drafted:
            if rows < before:
                return
            known = self._plain.get(busy, seconds)
            self._plain[busy] = known + COST_WEIGHT * (min(seconds, OUTLIER * known) - known)
        if rows > 1:
            expected = self._on_line(rows) or seconds
            self._add(rows, min(seconds, OUTLIER * expected))
        self._fit()

    def is_to_be_asked(self, busy: int) -> bool:
        """Whether what seems too dear is to be tried all the same: now and then, where `took`
        would learn from the answer."""
        if self._teaches_nothing(busy):
            return False
        self._unasked = (self._unasked + 1) % ASK_EVERY
        return self._unasked == 0

    def of(self, busy: int, most: int) -> list[float]:
        """What steps with 0 to `most` drafted tokens take; the same where nothing is known.

        A non-unified cache (`split`) puts equally many tokens of each sequence into a micro-batch:
        beside other slots the drafted tokens make a second one.
        """
        plain = self._plain.get(busy) or self._on_line(busy) or 1.0
        if self._teaches_nothing(busy):
            alone = self._plain.get(1, 0.0)
            more = [plain + (self._on_line(k) if k > 1 else alone) for k in range(1, most + 1)]
        else:
            more = [self._on_line(busy + count) for count in range(1, most + 1)]
        return [plain, *(max(seconds, plain) for seconds in more)]

    def _teaches_nothing(self, busy: int) -> bool:
        """Whether drafts make two micro-batches of a step: how much of it was which one's?"""
        return self._split and busy > 1

    def _on_line(self, rows: int) -> float:
        start, each = self._line
        return max(start + each * rows, 0.0)

    def _add(self, rows: int, seconds: float) -> None:
        share = CORRECTED_WEIGHT if seconds < TOO_DEAR * self._on_line(rows) else LINE_WEIGHT
        news = (1.0, rows, rows * rows, seconds, rows * seconds)
        pairs = zip(self._sums, news, strict=True)
        weight, x, xx, y, xy = (old * (1.0 - share) + new for old, new in pairs)
        self._sums = (weight, x, xx, y, xy)

    def _fit(self) -> None:
        """Least squares. One row is a point of it: else a single other one would have no slope."""
        weight, x, xx, y, xy = self._sums
        alone = self._plain.get(1)
        if alone is not None:
            weight, x, xx = weight + ANCHOR, x + ANCHOR, xx + ANCHOR
            y, xy = y + ANCHOR * alone, xy + ANCHOR * alone
        spread = weight * xx - x * x
        each = max((weight * xy - x * y) / spread, 0.0) if spread > 1e-9 else 0.0
        self._line = ((y - each * x) / weight, each) if weight else (0.0, 0.0)


class Pace:
    """How many tokens to draft for one call, from the chance that a drafted one is right.

    `probe_every`: where nothing is worth drafting, a token is drafted all the same each so many
    steps, for drafters whose guesses are not known without.
    """

    def __init__(self, costs: DecodeCosts, *, probe_every: int = 0) -> None:
        self._costs = costs
        self._chance = costs.usual_chance
        self._probe_every = probe_every
        self._idle = 0

    @staticmethod
    def is_full(*, busy_slots: int, slots: int) -> bool:
        """Whether the batch is full of tokens that are surely needed: all of several slots."""
        return busy_slots >= slots > 1

    def allowance(self, *, busy_slots: int, slots: int, most: int = MOST_DRAFTED) -> int:
        """The count, 0 to `most`, that promises the most tokens a second of this step.

        `busy_slots` are those that decode in it, this call's among them.
        """
        if self.is_full(busy_slots=busy_slots, slots=slots):
            return 0
        best = self._best(self._costs.of(busy_slots, most), busy_slots, most)
        if best:
            return best
        if self._chance >= SURE and self._costs.is_to_be_asked(busy_slots):
            return min(ASKED_TOKENS, most)
        if not self._probe_every:
            return 0
        self._idle = (self._idle + 1) % self._probe_every
        return 0 if self._idle else min(1, most)

    def _best(self, costs: list[float], busy_slots: int, most: int) -> int:
        best, best_rate = 0, LEAST_GAIN * busy_slots / costs[0]
        chance, tokens = 1.0, float(busy_slots)
        for count in range(1, most + 1):
            chance *= self._chance
            tokens += chance
            rate = tokens / costs[count]
            if rate > best_rate * (TIE if best else 1.0):
                best, best_rate = count, max(rate, best_rate)
        return best

    def verified(self, drafted: int, accepted: int) -> None:
        """The first `accepted` of `drafted` tokens came indeed, the one behind them did not."""
        if not 0 <= accepted <= drafted:
            raise ValueError(f"{accepted} accepted of {drafted} drafted tokens")
        kept = 1.0 - CHANCE_WEIGHT
        chance = HIGHEST_CHANCE - (HIGHEST_CHANCE - self._chance) * kept**accepted
        self._chance = chance * kept if accepted < drafted else chance
        usual = self._costs.usual_chance
        self._costs.usual_chance = usual + USUAL_WEIGHT * (self._chance - usual)
