"""How long a call will hold its slot: the tokens expected of it, and what prompts and tokens took.

A prompt is counted by its request's bytes, an answer by its tokens; how many tokens are expected is
a mean over the answers to requests that allowed about as many. What a byte and a token take is
measured in their agent's own time: what passes while c calls are at work there is a c-th each
one's. Of engines that take turns that is the same for any c; of those that work on several at once
it is less the more there are. A line over 1/c through what was measured says how it will be when
all slots are taken, before they were. All of it by model, newer calls counting more. Pure.
"""

from __future__ import annotations

from collections import Counter, OrderedDict

from msgspec import Struct

UNMEASURED_HOLD_S = 5.0
"""What a call is taken to need until one was measured."""
MOST_MODELS = 256
"""Of which something is remembered: the latest."""
ANY_LENGTH = 0
_LONGEST = 1 << 31
_LEAST_PROMPT_BYTES = 512
"""Added to each request's: an empty one takes its time, too."""
_SAME = 1e-6
_KEPT = 0.98
"""What remains of what was known with each call: about the last hundred count."""


def length_class(max_tokens: int | None) -> int:
    """`max_tokens` rounded up to a power of two, `ANY_LENGTH` where there is no limit: requests of
    one class are expected to get equally long answers."""
    return ANY_LENGTH if max_tokens is None else 1 << (min(max_tokens, _LONGEST) - 1).bit_length()


class Demand:
    """What several requests ask for together."""

    def __init__(self) -> None:
        self.lengths: Counter[int] = Counter()
        self.body_bytes = 0

    @classmethod
    def of_one(cls, length: int, body_bytes: int) -> Demand:
        """A single request's."""
        demand = cls()
        demand.add(length, body_bytes)
        return demand

    @property
    def count(self) -> int:
        """How many requests they are."""
        return self.lengths.total()

    def add(self, length: int, body_bytes: int) -> None:
        """One more, of this length class."""
        self.lengths[length] += 1
        self.body_bytes += body_bytes

    def remove(self, length: int, body_bytes: int) -> None:
        """One that was added before."""
        self.lengths[length] -= 1
        if not self.lengths[length]:
            del self.lengths[length]
        self.body_bytes -= body_bytes


class Ratio:
    """A mean of quotients, each weighing as much as its divisor."""

    def __init__(self) -> None:
        self._dividends = self._divisors = 0.0

    @property
    def value(self) -> float | None:
        """None before anything was measured."""
        return self._dividends / self._divisors if self._divisors else None

    def note(self, dividend: float, divisor: float) -> None:
        """Measured once more."""
        self._dividends = _KEPT * self._dividends + dividend
        self._divisors = _KEPT * self._divisors + divisor


class Line:
    """Costs that grow evenly with the share of its agent that a call has, by weighted least
    squares."""

    def __init__(self) -> None:
        self._units = self._shares = self._squares = self._cost = self._cost_shares = 0.0

    def note(self, cost: float, *, units: float, share: float) -> None:
        """So many units cost so much of the agent's own time, with such a share of it."""
        self._units = _KEPT * self._units + units
        self._shares = _KEPT * self._shares + units * share
        self._squares = _KEPT * self._squares + units * share * share
        self._cost = _KEPT * self._cost + cost
        self._cost_shares = _KEPT * self._cost_shares + cost * share

    def value(self, share: float) -> float | None:
        """What a unit costs with such a share; None before anything was measured. A smaller share
        makes it no dearer: an engine that works on several at once is no slower than one that takes
        turns. And half of a share no cheaper than half: nobody is faster for having company."""
        if not self._units:
            return None
        usual, at = self._cost / self._units, self._shares / self._units
        spread = self._squares / self._units - at * at
        if spread <= _SAME * at * at:
            return usual
        slope = (self._cost_shares / self._units - usual * at) / spread
        return usual + min(max(slope, 0.0), usual / at) * (share - at)


class Held(Struct, frozen=True, kw_only=True):
    """What a call took."""

    length: int
    """The class of its `max_tokens`."""
    body_bytes: int
    prompt_s: float
    """Until its first token, or until its end where there was none."""
    rest_s: float
    tokens: int
    """Those that the agent gave."""
    share: float
    """Of its agent that it had on average: a c-th while c calls were at work, itself among them."""


class Holds:
    """What calls of each model took. A model that was never measured is taken to be as all are."""

    def __init__(self) -> None:
        self._of_all = _Pace()
        self._of_models: OrderedDict[str, _Pace] = OrderedDict()

    def is_measured(self, model: str) -> bool:
        """Whether estimates for this model rest on its own calls."""
        return model in self._of_models

    def note(self, model: str, held: Held) -> None:
        """A call is over."""
        pace = self._of_models.setdefault(model, _Pace())
        self._of_models.move_to_end(model)
        while len(self._of_models) > MOST_MODELS:
            self._of_models.popitem(last=False)
        pace.note(held)
        self._of_all.note(held)

    def seconds(self, model: str, demand: Demand, *, calls: float) -> float:
        """How long all of it will hold slots, in seconds of one slot, with so many calls at work
        on each agent."""
        return self._of_models.get(model, self._of_all).seconds(demand, calls)

    def seconds_of_one(self, model: str, length: int, body_bytes: int, *, calls: float) -> float:
        """As `seconds`, for a single request; it is asked at each claim."""
        return self._of_models.get(model, self._of_all).seconds_of_one(length, body_bytes, calls)


class _Pace:
    """What calls of one model took."""

    def __init__(self) -> None:
        self._tokens: dict[int, Ratio] = {}
        self._tokens_of_all = Ratio()
        self._prompt_byte_s = Line()
        self._token_s = Line()

    def note(self, held: Held) -> None:
        self._tokens.setdefault(held.length, Ratio()).note(held.tokens, 1)
        self._tokens_of_all.note(held.tokens, 1)
        prompt_bytes = held.body_bytes + _LEAST_PROMPT_BYTES
        share = held.share
        self._prompt_byte_s.note(held.prompt_s * share, units=prompt_bytes, share=share)
        self._token_s.note(held.rest_s * share, units=held.tokens, share=share)

    def seconds(self, demand: Demand, calls: float) -> float:
        tokens = sum(count * self._expected(length) for length, count in demand.lengths.items())
        return self._seconds(demand.count, demand.body_bytes, tokens, calls)

    def seconds_of_one(self, length: int, body_bytes: int, calls: float) -> float:
        return self._seconds(1, body_bytes, self._expected(length), calls)

    def _seconds(self, count: int, body_bytes: int, tokens: float, calls: float) -> float:
        calls = max(calls, 1.0)
        byte_s = self._prompt_byte_s.value(1 / calls)
        if byte_s is None:
            return UNMEASURED_HOLD_S * count
        token_s = self._token_s.value(1 / calls) or 0.0
        return calls * (byte_s * (body_bytes + _LEAST_PROMPT_BYTES * count) + token_s * tokens)

    def _expected(self, length: int) -> float:
        """Tokens of an answer of this class; of one never seen, what all have within its limit."""
        known = self._tokens.get(length)
        if known is not None:
            return known.value or 0.0
        usual = self._tokens_of_all.value or 0.0
        return usual if length == ANY_LENGTH else min(usual, length)
