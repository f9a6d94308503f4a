"""When an engine is taken to stand still; numbers only."""

from __future__ import annotations

from agent.engine.watchdog import (
    LEAST_PATIENCE_S,
    TIMES_THE_LONGEST_STEP,
    TIMES_THE_WARM_UP,
    Watchdog,
)


def test_a_step_that_is_due_and_does_not_come_is_missed() -> None:
    dog = Watchdog()
    dog.asked(10.0)
    assert not dog.stands_still(10.0 + LEAST_PATIENCE_S)
    assert dog.stands_still(10.1 + LEAST_PATIENCE_S)


def test_who_owes_nothing_may_rest_for_ever() -> None:
    dog = Watchdog()
    assert not dog.stands_still(1e9)
    dog.asked(0.0)
    dog.heard(1.0, has_work=False)
    assert not dog.stands_still(1e9)


def test_each_step_starts_the_wait_anew_and_a_further_call_does_not() -> None:
    dog = Watchdog()
    dog.asked(0.0)
    dog.heard(20.0, has_work=True)
    dog.asked(30.0)
    assert dog.stands_still(20.0 + TIMES_THE_LONGEST_STEP * 20.0 + 0.1)
    assert not dog.stands_still(20.0 + TIMES_THE_LONGEST_STEP * 20.0)


def test_a_slow_machine_is_given_more_time() -> None:
    dog = Watchdog()
    dog.warmed_up(2.0)
    assert dog.patience_s == 2.0 * TIMES_THE_WARM_UP


def test_time_in_which_nobody_listened_does_not_count() -> None:
    dog = Watchdog()
    dog.asked(0.0)
    dog.forgive(1000.0)
    assert not dog.stands_still(1000.0 + LEAST_PATIENCE_S)
    resting = Watchdog()
    resting.forgive(5.0)
    assert not resting.stands_still(1e9)
