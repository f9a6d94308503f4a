"""Log-probabilities are the model's own, and always numbers that JSON can carry."""

from __future__ import annotations

import numpy as np
import pytest

from agent.engine.sampling.logprobs import IMPOSSIBLE, logprobs_of
from tests.support.samplers import SIZE, row

PIECES = [bytes([token]) for token in range(SIZE)]


def test_logprobs_are_of_the_model_and_sum_to_one() -> None:
    logits = row()
    entry = logprobs_of(logits, 7, SIZE, PIECES)
    assert [top.token_id for top in entry.top] == np.argsort(-logits, kind="stable").tolist()
    assert sum(np.exp(top.logprob) for top in entry.top) == pytest.approx(1, abs=1e-6)
    assert entry.logprob == next(top.logprob for top in entry.top if top.token_id == 7)
    assert entry.piece.encode("latin-1") == PIECES[7]


def test_only_as_many_likeliest_are_given_as_were_asked_for() -> None:
    logits = row()
    best = np.argsort(-logits)[:5].tolist()
    assert [top.token_id for top in logprobs_of(logits, 7, 5, PIECES).top] == best
    assert logprobs_of(logits, 7, 0, PIECES).top == ()


def test_a_row_to_work_in_changes_no_logprob() -> None:
    logits, room = row(), np.full(SIZE, np.nan, dtype=np.float32)
    before = logits.copy()
    assert logprobs_of(logits, 7, 5, PIECES, room) == logprobs_of(logits, 7, 5, PIECES)
    assert (logits == before).all()


def test_broken_logits_give_logprobs_that_json_can_carry() -> None:
    """NaN is `null` in JSON; the balancer dropped such a step, with its neighbours' tokens."""
    broken = np.full(SIZE, np.nan, dtype=np.float32)
    impossible = row()
    impossible[9] = -np.inf
    for logits in (broken, impossible):
        entry = logprobs_of(logits, 9, 3, PIECES)
        assert entry.logprob == IMPOSSIBLE
        assert all(np.isfinite(top.logprob) for top in entry.top)
