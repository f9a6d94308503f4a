"""What a request's sampling means, said the plain way in float64: every token's probability."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from agent.engine.frames import Sampling

Doubles = NDArray[np.float64]


def distribution(
    logits: NDArray[np.float32], sampling: Sampling, accepted: tuple[int, ...] = ()
) -> Doubles:
    """The probabilities of the next token. Without DRY; mirostat as it is before its first token;
    a constraint is a row with -inf."""
    values = _penalised(_biased(logits.astype(np.float64), sampling), sampling, accepted)
    if sampling.mirostat:
        return _mirostat(values, sampling)
    for keep in (_top_k, _typical_p, _top_p, _min_p):
        values = np.where(keep(values, sampling), values, -np.inf)
    plain = _softmax(values / sampling.temperature)
    if sampling.xtc_probability == 0:
        return plain
    excluded = _softmax(_without_top_choices(values, sampling) / sampling.temperature)
    acts = sampling.xtc_probability
    return acts * excluded + (1 - acts) * plain


def _softmax(values: Doubles) -> Doubles:
    weights = np.exp(values - values.max())
    result: Doubles = weights / weights.sum()
    return result


def _biased(values: Doubles, sampling: Sampling) -> Doubles:
    for token, bias in sampling.logit_bias:
        values[token] += bias
    return values


def _penalised(values: Doubles, sampling: Sampling, accepted: tuple[int, ...]) -> Doubles:
    last = accepted[-sampling.penalty_last_n :] if sampling.penalty_last_n else ()
    for token in set(last):
        repeat = sampling.repeat_penalty
        values[token] *= repeat if values[token] <= 0 else 1 / repeat
        values[token] -= last.count(token) * sampling.frequency_penalty
        values[token] -= sampling.presence_penalty
    return values


def _top_k(values: Doubles, sampling: Sampling) -> NDArray[np.bool_]:
    best = np.argsort(-values, kind="stable")[: sampling.top_k or len(values)]
    return np.isin(np.arange(len(values)), best)


def _fewest(order: NDArray[np.intp], probabilities: Doubles, wanted: float) -> NDArray[np.bool_]:
    keep, held = np.zeros(len(order), dtype=bool), 0.0
    for token in order:
        keep[token] = True
        held += probabilities[token]
        if held >= wanted:
            break
    return keep


def _typical_p(values: Doubles, sampling: Sampling) -> NDArray[np.bool_]:
    if sampling.typical_p >= 1:
        return np.ones(len(values), dtype=bool)
    probabilities = _softmax(values)
    with np.errstate(divide="ignore"):
        surprises = -np.log(probabilities)
    possible = probabilities > 0
    entropy = float((probabilities[possible] * surprises[possible]).sum())
    order = np.argsort(np.abs(surprises - entropy), kind="stable")
    return _fewest(order, probabilities, sampling.typical_p)


def _top_p(values: Doubles, sampling: Sampling) -> NDArray[np.bool_]:
    if sampling.top_p >= 1:
        return np.ones(len(values), dtype=bool)
    return _fewest(np.argsort(-values, kind="stable"), _softmax(values), sampling.top_p)


def _min_p(values: Doubles, sampling: Sampling) -> NDArray[np.bool_]:
    probabilities = _softmax(values)
    likely: NDArray[np.bool_] = probabilities >= sampling.min_p * probabilities.max()
    return likely


def _without_top_choices(values: Doubles, sampling: Sampling) -> Doubles:
    top = [t for t, p in enumerate(_softmax(values)) if p >= sampling.xtc_threshold]
    top.sort(key=lambda token: (-values[token], token))
    values = values.copy()
    values[top[:-1]] = -np.inf
    return values


def _mirostat(values: Doubles, sampling: Sampling) -> Doubles:
    values = values / sampling.temperature
    probabilities = _softmax(values)
    order = np.argsort(-values, kind="stable")
    mu = 2 * sampling.mirostat_tau
    if sampling.mirostat == 2:
        kept = [t for t in order if probabilities[t] > 0 and -math.log2(probabilities[t]) <= mu]
    else:
        kept = list(order[: _zipf_k(_possible(probabilities[order])[:100], mu, len(values))])
    cut = np.full(len(values), -np.inf)
    cut[kept or order[:1]] = values[kept or order[:1]]
    return _softmax(cut)


def _possible(probabilities: Doubles) -> Doubles:
    return probabilities[probabilities > 0]


def _zipf_k(best: Doubles, mu: float, size: int) -> int:
    """Algorithm 1 of the paper, lines 4 to 6."""
    steps = [math.log((i + 2) / (i + 1)) for i in range(len(best) - 1)]
    falls = [math.log(best[i] / best[i + 1]) for i in range(len(best) - 1)]
    s = sum(t * b for t, b in zip(steps, falls, strict=True)) / sum(t * t for t in steps)
    epsilon = s - 1
    return max(1, int((epsilon * 2**mu / (1 - size**-epsilon)) ** (1 / s)))
