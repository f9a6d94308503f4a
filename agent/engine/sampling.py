"""From a row of logits to a token, so that any agent draws the same one at the same position.

The filters are llama.cpp's own (bias, penalties, top_k, typical_p, top_p, min_p, in this order);
temperature and the draw are ours: a softmax in float64 over what is left, ordered by token id, cut
by a number that is a function of (seed, position, stream) alone. Nothing depends on earlier draws.

Penalties count generated tokens only, as OpenAI's formula does, not the prompt's.

top_p over a whole vocabulary would make llama.cpp sort it: 6.8 ms a token at 131k tokens. Without
a top_k in front we therefore cut the nucleus ourselves, from the probable tokens only; the result
is the same set (`nucleus`).
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from agent.engine.frames import Sampling
from agent.engine.llama.arrays import Floats, Ints
from agent.engine.llama.sampler_chain import Candidates, SamplerChain
from protocol.generation import TokenLogprob, TopLogprob

PROBABLE_LOGITS = 12.0
"""Tokens within this distance of the best one are looked at first for a nucleus."""
GREEDY_BELOW = 1e-5
"""Temperatures that would only overflow the division."""
MAX_BIAS = 1e9
IMPOSSIBLE = -9999.0
"""The log-probability that stands for none, as in OpenAI's API."""
_DRAW_BITS = 53


def uniform(seed: int, position: int, stream: int = 0) -> float:
    """The number in [0, 1) for a position: the same on every machine, whatever was drawn before."""
    key = b"%d,%d,%d" % (seed, position, stream)
    bits = int.from_bytes(blake2b(key, digest_size=8).digest(), "little")
    return float(bits >> (64 - _DRAW_BITS)) / float(1 << _DRAW_BITS)


def draw(logits: Floats, temperature: float, number: float) -> int:
    """The index that `number` in [0, 1) falls on in softmax(logits / temperature).

    Logits of -inf are never drawn; at least one must be finite.
    """
    scaled = logits.astype(np.float64)
    scaled -= scaled.max()
    scaled /= temperature
    heights = np.exp(scaled).cumsum()
    index = int(heights.searchsorted(number * heights[-1], side="right"))
    if index == len(heights):
        # number * total was rounded up to total: the last index with a share of its own
        index = int(heights.searchsorted(heights[-1], side="left"))
    return index


def nucleus(logits: Floats, top_p: float) -> Ints:
    """The fewest likeliest tokens that hold `top_p` of the probability, ordered by id."""
    best = logits.max()
    weights = np.exp((logits - best).astype(np.float64))
    wanted = top_p * weights.sum()
    ids = np.flatnonzero(logits >= best - PROBABLE_LOGITS)
    if weights[ids].sum() < wanted:
        ids = np.flatnonzero(logits > -np.inf)
    ids = ids[np.argsort(-logits[ids], kind="stable")]
    count = int(weights[ids].cumsum().searchsorted(wanted, side="left")) + 1
    return np.sort(ids[:count]).astype(np.int32)


class Sampler:
    """One call's sampling. `close` frees its native chains."""

    def __init__(
        self, sampling: Sampling, candidates: Candidates, vocabulary_size: int, ends: Ints
    ) -> None:
        self._sampling = sampling
        self._candidates = candidates
        self._vocabulary_size = vocabulary_size
        self._ends = ends
        self._penalises = _penalises(sampling)
        self._is_greedy = sampling.temperature < GREEDY_BELOW
        self._cuts_nucleus = _cuts_nucleus(sampling) and not self._is_greedy
        self._before = self._chain_before()
        self._after = None if self._is_greedy else self._chain_after()

    def choose(self, row: Floats, position: int, *, may_end: bool) -> int:
        """The token for a position. `row` is not changed. Pure but for the penalties' memory."""
        if self._sampling.ignore_eos or not may_end:
            row = row.copy()
            row[self._ends] = -np.inf
        best = int(row.argmax())
        if not isfinite(row[best]):
            # NaN, or everything but the end tokens is impossible: the least bad token
            row = np.where(np.isnan(row), np.float32(-np.inf), row)
            best = int(row.argmax())
            if not isfinite(row[best]):
                return best
        if self._is_greedy and self._before is None:
            return best
        ids, logits = self._filtered(row)
        if self._is_greedy:
            return int(ids[logits.argmax()])
        number = uniform(self._sampling.seed, position)
        return int(ids[draw(logits, self._sampling.temperature, number)])

    def accept(self, token: int) -> None:
        """Tell the penalties of a token that was generated, here or elsewhere."""
        if self._penalises and self._before is not None:
            self._before.accept(token)

    def close(self) -> None:
        """Free the native chains."""
        for chain in (self._before, self._after):
            if chain is not None:
                chain.close()
        self._before = self._after = None

    def _filtered(self, row: Floats) -> tuple[Ints, Floats]:
        """Ids and logits of what may be drawn, ordered by id."""
        candidates = self._candidates
        ids, logits = candidates.ids, row
        if self._before is not None:
            candidates.keep(ids, logits)
            candidates.apply(self._before)
            ids, logits = candidates.read()
        if self._cuts_nucleus:
            ids = nucleus(logits, self._sampling.top_p)
            logits = logits[ids]
        if self._after is not None:
            candidates.keep(ids, logits)
            candidates.apply(self._after)
            ids, logits = candidates.read()
        return ids, logits

    def _chain_before(self) -> SamplerChain | None:
        """What changes logits: bias and penalties."""
        sampling = self._sampling
        if not (sampling.logit_bias or self._penalises):
            return None
        chain = SamplerChain(self._vocabulary_size)
        if sampling.logit_bias:
            chain.add_logit_bias(sampling.logit_bias)
        if self._penalises:
            chain.add_penalties(
                sampling.penalty_last_n,
                sampling.repeat_penalty,
                sampling.frequency_penalty,
                sampling.presence_penalty,
            )
        return chain

    def _chain_after(self) -> SamplerChain | None:
        """What drops candidates."""
        sampling = self._sampling
        filters = (
            (sampling.top_k > 0, SamplerChain.add_top_k, sampling.top_k),
            (sampling.typical_p < 1, SamplerChain.add_typical_p, sampling.typical_p),
            (sampling.top_p < 1 and not self._cuts_nucleus, SamplerChain.add_top_p, sampling.top_p),
            (sampling.min_p > 0, SamplerChain.add_min_p, sampling.min_p),
        )
        wanted = [(add, value) for is_on, add, value in filters if is_on]
        if not wanted:
            return None
        chain = SamplerChain(self._vocabulary_size)
        for add, value in wanted:
            add(chain, value)  # type: ignore[arg-type]  # each filter's own number
        return chain


def logprobs_of(row: Floats, token: int, top: int, pieces: Sequence[bytes]) -> TokenLogprob:
    """The chosen token's log-probability and the `top` likeliest, before any sampler."""
    values = log_softmax(row)
    likeliest: NDArray[np.intp] = np.empty(0, dtype=np.intp)
    if top:
        top = min(top, len(values))
        likeliest = np.argpartition(-values, top - 1)[:top]
        likeliest = likeliest[np.argsort(-values[likeliest], kind="stable")]
    return TokenLogprob(
        token,
        pieces[token].decode("latin-1"),
        float(values[token]),
        tuple(
            TopLogprob(int(one), pieces[one].decode("latin-1"), float(values[one]))
            for one in likeliest
        ),
    )


def log_softmax(row: Floats) -> NDArray[np.float64]:
    """Natural-log probabilities of a row of logits, all finite: JSON knows nothing else."""
    values = row.astype(np.float64)
    with np.errstate(invalid="ignore"):
        values -= values.max()
        values -= np.log(np.exp(values).sum())
    return np.nan_to_num(values, copy=False, nan=IMPOSSIBLE, posinf=0.0, neginf=IMPOSSIBLE)


def problem_with(sampling: Sampling, vocabulary_size: int) -> str:
    """What llama.cpp would not survive, "" if nothing; ranges as in `GenerationRequest`."""
    ranges = (
        ("temperature", sampling.temperature, 0.0, 2.0),
        ("top_p", sampling.top_p, 0.0, 1.0),
        ("min_p", sampling.min_p, 0.0, 1.0),
        ("typical_p", sampling.typical_p, 0.0, 1.0),
        ("repeat_penalty", sampling.repeat_penalty, 1e-6, 10.0),
        ("presence_penalty", sampling.presence_penalty, -2.0, 2.0),
        ("frequency_penalty", sampling.frequency_penalty, -2.0, 2.0),
        ("top_k", sampling.top_k, 0, 2**31 - 1),
        ("penalty_last_n", sampling.penalty_last_n, 0, 2**20),
        ("top_logprobs", sampling.top_logprobs or 0, 0, vocabulary_size),
    )
    for name, value, low, high in ranges:
        if not low <= value <= high:
            return f"`{name}` is {value}, allowed are {low} to {high}"
    for token, bias in sampling.logit_bias:
        if not 0 <= token < vocabulary_size:
            return f"`logit_bias` names token {token}, the vocabulary has {vocabulary_size}"
        if not abs(bias) <= MAX_BIAS:
            return f"`logit_bias` of token {token} is {bias}, allowed are -1e9 to 1e9"
    return ""


def _penalises(sampling: Sampling) -> bool:
    penalties = (sampling.presence_penalty, sampling.frequency_penalty, sampling.repeat_penalty)
    return sampling.penalty_last_n > 0 and penalties != (0.0, 0.0, 1.0)


def _cuts_nucleus(sampling: Sampling) -> bool:
    return sampling.top_p < 1 and sampling.top_k == 0 and sampling.typical_p >= 1
