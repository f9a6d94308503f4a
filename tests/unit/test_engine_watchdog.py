"""When an engine is taken to stand still; numbers only."""

from __future__ import annotations

import pytest

from agent.engine.watchdog import (
    LEAST_PATIENCE_S,
    TIMES_THE_LONGEST_STEP,
    TIMES_THE_WARM_UP,
    Watchdog,
)


@pytest.fixture
def resting() -> Watchdog:
    """Nothing was asked for."""
    return Watchdog()


@pytest.fixture
def awaiting(resting: Watchdog) -> Watchdog:
    """A call was submitted at 0 s, and nothing heard since."""
    resting.asked(0.0)
    return resting


def patience_from(dog: Watchdog, since_s: float) -> float:
    """For how long it waits from this time on; checked to a tenth of a second."""
    longest_s = dog.patience_s
    assert not dog.stands_still(since_s + longest_s)
    assert dog.stands_still(since_s + longest_s + 0.1)
    return longest_s


def test_a_step_that_is_due_and_does_not_come_is_missed(awaiting: Watchdog) -> None:
    assert patience_from(awaiting, 0.0) == LEAST_PATIENCE_S


def test_who_was_asked_for_nothing_may_rest_for_ever(resting: Watchdog) -> None:
    assert not resting.stands_still(1e9)


def test_who_has_answered_may_rest_for_ever(awaiting: Watchdog) -> None:
    awaiting.heard(1.0, has_work=False)
    assert not awaiting.stands_still(1e9)


def test_each_step_starts_the_wait_anew_and_a_further_call_does_not(awaiting: Watchdog) -> None:
    awaiting.heard(20.0, has_work=True)
    awaiting.asked(30.0)
    assert patience_from(awaiting, 20.0) == TIMES_THE_LONGEST_STEP * 20.0


def test_a_slow_machine_is_given_more_time(awaiting: Watchdog) -> None:
    awaiting.warmed_up(2.0)
    assert patience_from(awaiting, 0.0) == TIMES_THE_WARM_UP * 2.0


def test_time_in_which_nobody_listened_does_not_count(awaiting: Watchdog) -> None:
    awaiting.forgive(1000.0)
    assert patience_from(awaiting, 1000.0) == LEAST_PATIENCE_S


def test_forgiving_who_owes_nothing_makes_no_debt(resting: Watchdog) -> None:
    resting.forgive(5.0)
    assert not resting.stands_still(1e9)
