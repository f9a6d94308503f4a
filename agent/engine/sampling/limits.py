"""What a request's sampling may be: the ranges of `GenerationRequest`, and the vocabulary's."""

from __future__ import annotations

from agent.engine.frames import Sampling
from protocol.generation import (
    MAX_DRY_SEQUENCE_BREAKER_CHARS,
    MAX_DRY_SEQUENCE_BREAKERS,
    MAX_DRY_WINDOW,
    MAX_PENALTY_WINDOW,
    MAX_TEMPERATURE,
)

MAX_BIAS = 1e9
MAX_SEED = 2**63 - 1

_RANGES: tuple[tuple[str, float, float], ...] = (
    ("seed", 0, MAX_SEED),
    ("temperature", 0.0, MAX_TEMPERATURE),
    ("top_k", 0, 2**31 - 1),
    ("top_p", 0.0, 1.0),
    ("min_p", 0.0, 1.0),
    ("typical_p", 0.0, 1.0),
    ("repeat_penalty", 1e-6, 10.0),
    ("presence_penalty", -2.0, 2.0),
    ("frequency_penalty", -2.0, 2.0),
    ("penalty_last_n", 0, MAX_PENALTY_WINDOW),
    ("dry_multiplier", 0.0, 100.0),
    ("dry_base", 1.0, 100.0),
    ("dry_allowed_length", 0, MAX_DRY_WINDOW),
    ("dry_penalty_last_n", 0, MAX_DRY_WINDOW),
    ("xtc_probability", 0.0, 1.0),
    ("xtc_threshold", 0.0, 1.0),
    ("mirostat", 0, 2),
    ("mirostat_tau", 0.0, 100.0),
    ("mirostat_eta", 0.0, 1.0),
)


def problem_with(sampling: Sampling, vocabulary_size: int) -> str:
    """What is out of range, "" if nothing. It begins with the parameter's name in backticks."""
    for name, low, high in _RANGES:
        value = getattr(sampling, name)
        if not low <= value <= high:
            return f"`{name}` is {value}, allowed are {low} to {high}"
    if not 0 <= (sampling.top_logprobs or 0) <= vocabulary_size:
        return f"`top_logprobs` is {sampling.top_logprobs}, allowed are 0 to {vocabulary_size}"
    for token, bias in sampling.logit_bias:
        if not 0 <= token < vocabulary_size:
            return f"`logit_bias` names token {token}, the vocabulary has {vocabulary_size}"
        if not abs(bias) <= MAX_BIAS:
            return f"`logit_bias` of token {token} is {bias}, allowed are -1e9 to 1e9"
    return _problem_with_breakers(sampling.dry_sequence_breakers)


def _problem_with_breakers(breakers: tuple[str, ...]) -> str:
    if len(breakers) > MAX_DRY_SEQUENCE_BREAKERS:
        return f"`dry_sequence_breakers` are {len(breakers)}, at most {MAX_DRY_SEQUENCE_BREAKERS}"
    if not all(1 <= len(text) <= MAX_DRY_SEQUENCE_BREAKER_CHARS for text in breakers):
        most = MAX_DRY_SEQUENCE_BREAKER_CHARS
        return f"`dry_sequence_breakers` must have 1 to {most} characters each"
    return ""
