"""Short forms of `make soak`."""

from __future__ import annotations

import os

import pytest

from tests.soak import churn, killed_engine

SECONDS = float(os.environ.get("PADDLER_SOAK_SECONDS", "8"))


@pytest.mark.parametrize("name", churn.CACHES)
def test_under_random_churn_caches_stay_true_and_answers_exact(name: str) -> None:
    tally = churn.churn(SECONDS, 17, **churn.CACHES[name])
    assert tally.is_enough, tally


def test_an_engine_that_is_killed_again_and_again_loses_no_call_unnoticed() -> None:
    tally = killed_engine.run(SECONDS, 23, kill_every_s=SECONDS / 4)
    assert tally.is_enough, tally
