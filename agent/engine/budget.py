"""How many prompt tokens a step may take while others generate. Pure; learns from each step.

A prompt's chunk delays every running stream by the time it takes, so the budget follows a target:
the time from one token to the next that streams shall see. What a step costs is learned as
a base, the decode tokens alone, and a price for each prompt token on top.
"""

from __future__ import annotations

START_TOKENS = 128
"""The largest gap of running streams was 148 ms with it, 1633 ms with 2048 (100 M, two threads)."""
DEFAULT_TARGET_MS = 50.0
"""Without a target of one's own more than `START_TOKENS` are taken where they fit in this."""
LEAST_TOKENS = 8
SMALL_CHUNKS_COST = 2.0
"""How much dearer a token is expected to be in a chunk beside streams than in a batch of its own,
until such a step has shown it."""
RISING_SHARE = 0.6
"""Weight of the latest step in the price of a token that costs more than was thought."""
OUTLIER = 2.0
_NEW_SHARE = 0.25
"""Weight of the latest step."""


class PromptBudget:
    """Prompt tokens a step, at most `most`. `target_gap_ms` 0: none was asked for."""

    def __init__(self, *, target_gap_ms: float, most: int) -> None:
        self._target_ms = target_gap_ms or DEFAULT_TARGET_MS
        self._least = LEAST_TOKENS if target_gap_ms else START_TOKENS
        self._most = most
        self._base_ms: float | None = None
        self._token_ms: float | None = None
        self._alone_ms: float | None = None

    @property
    def tokens(self) -> int:
        """The budget now."""
        token_ms = self._token_ms or self._alone_ms
        if token_ms is None:
            return min(START_TOKENS, self._most)
        if self._token_ms is None:
            token_ms *= SMALL_CHUNKS_COST
        room_ms = self._target_ms - (self._base_ms or 0.0)
        fitting = int(room_ms / token_ms) if room_ms > 0 else 0
        return min(max(fitting, self._least), self._most)

    def measured(self, *, decode_tokens: int, prompt_tokens: int, took_ms: float) -> None:
        """A step with so many tokens of both kinds took so long."""
        if not prompt_tokens:
            self._base_ms = _mixed(self._base_ms, took_ms)
            return
        if not decode_tokens:
            self._alone_ms = max(_mixed(self._alone_ms, took_ms / prompt_tokens), 1e-6)
            return
        # a chunk in the company of decode tokens shares their pass over the weights
        price = max(took_ms - (self._base_ms or 0.0), 0.1 * took_ms) / prompt_tokens
        self._token_ms = max(_risen(self._token_ms, price), 1e-6)


def _risen(old: float | None, new: float) -> float:
    """A token gets dearer the further into its prompt it stands, so the price follows upwards
    faster; one step that was held up counts for no more than twice what was thought."""
    if old is None:
        return new
    share = RISING_SHARE if new > old else _NEW_SHARE
    return old + share * (min(new, OUTLIER * old) - old)


def _mixed(old: float | None, new: float) -> float:
    return new if old is None else old + _NEW_SHARE * (new - old)
