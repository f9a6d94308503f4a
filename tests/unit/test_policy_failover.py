"""Who goes on elsewhere, who pays for it, and who is left out; no clock but numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.policy.ejection import (
    FAILURES_IN_A_ROW,
    FIRST_EJECTION_S,
    LONGEST_EJECTION_S,
    SLOW_START_S,
    Health,
)
from balancer.policy.failover import (
    BUDGET_FLOOR,
    BUDGET_SHARE,
    BUDGET_WINDOW_S,
    MOST_FAILURES,
    MOST_GARBLED,
    MOST_STALLS,
    Breakage,
    RetryBudget,
    Trail,
    Verdict,
    verdict,
)
from balancer.policy.stall import Stall

NOBODYS_DOING: tuple[Breakage, ...] = ("link_lost", "engine_died", "drained")


def after(*breakages: Breakage, had_output: bool = True) -> Trail:
    trail = Trail()
    for breakage in breakages:
        trail.note(breakage, had_output=had_output)
    return trail


@pytest.mark.parametrize("breakage", NOBODYS_DOING)
def test_what_is_nobodys_doing_costs_nothing_however_often_it_happens(breakage: Breakage) -> None:
    trail = after(*[breakage] * 50)
    assert verdict(breakage, trail, has_budget=False, has_others=False) == "elsewhere"


@pytest.mark.parametrize(
    ("failures", "has_budget", "has_others", "expected"),
    [
        (1, True, True, "elsewhere"),
        (MOST_FAILURES, True, True, "elsewhere"),
        (MOST_FAILURES + 1, True, True, "moves_spent"),
        (1, False, True, "budget_spent"),
        (1, True, False, "nowhere"),
    ],
)
def test_reported_failures_are_counted(
    failures: int, has_budget: bool, has_others: bool, expected: Verdict
) -> None:
    failed: Breakage = "failed"
    trail = after(*[failed] * failures)
    assert verdict("failed", trail, has_budget=has_budget, has_others=has_others) == expected


def test_a_request_over_which_agents_stand_still_is_not_given_to_all_of_them() -> None:
    stalled: Breakage = "stalled"
    for stalls in range(1, 6):
        trail = after(*[stalled] * stalls)
        expected = "elsewhere" if stalls <= MOST_STALLS else "stalls_spent"
        assert verdict(stalled, trail, has_budget=True, has_others=True) == expected


def test_a_request_that_nobody_speaks_of_clearly_is_given_up_in_the_end() -> None:
    garbled: Breakage = "garbled"
    for messages in (1, MOST_GARBLED):
        trail = after(*[garbled] * messages)
        assert verdict(garbled, trail, has_budget=False, has_others=False) == "elsewhere"
    trail = after(*[garbled] * (MOST_GARBLED + 1))
    assert verdict(garbled, trail, has_budget=True, has_others=True) == "moves_spent"


def test_two_engines_that_die_before_they_gave_a_token_make_a_request_poison() -> None:
    once = after("engine_died", had_output=False)
    assert verdict("engine_died", once, has_budget=True, has_others=True) == "elsewhere"
    twice = after("engine_died", "link_lost", "engine_died", had_output=False)
    assert verdict("engine_died", twice, has_budget=True, has_others=True) == "poison"


def test_killed_agents_and_deaths_after_tokens_make_no_request_poison() -> None:
    trail = after("link_lost", "link_lost", "link_lost", had_output=False)
    assert verdict("link_lost", trail, has_budget=True, has_others=True) == "elsewhere"
    trail = after("engine_died", "engine_died", "engine_died")
    assert verdict("engine_died", trail, has_budget=True, has_others=True) == "elsewhere"


def retried(budget: RetryBudget, now: float) -> int:
    count = 0
    while budget.has_room(now):
        budget.note_retry(now)
        count += 1
    return count


def test_a_fifth_of_recent_requests_and_ten_more_may_be_tried_again() -> None:
    budget = RetryBudget()
    assert retried(budget, 0.0) == BUDGET_FLOOR
    for _ in range(100):
        budget.note_request(1.0)
    assert retried(budget, 1.5) == BUDGET_SHARE * 100
    assert not budget.has_room(29.9)
    assert retried(budget, 1.0 + BUDGET_WINDOW_S) == BUDGET_FLOOR


@given(st.lists(st.tuples(st.floats(0, 5), st.booleans()), max_size=300))
def test_the_budget_is_what_a_plain_count_of_the_last_half_minute_gives(
    events: list[tuple[float, bool]],
) -> None:
    budget, now = RetryBudget(), 0.0
    requests: list[int] = []
    retries: list[int] = []
    for pause_s, is_request in events:
        now += pause_s
        recent, tried = (
            sum(second > now - BUDGET_WINDOW_S for second in one) for one in (requests, retries)
        )
        has_room = budget.has_room(now)
        assert has_room == (tried < BUDGET_SHARE * recent + BUDGET_FLOOR)
        if is_request:
            budget.note_request(now)
            requests.append(int(now))
        elif has_room:
            budget.note_retry(now)
            retries.append(int(now))
        assert len(budget._seconds) <= BUDGET_WINDOW_S + 1


# --- ejection ---


def ejected(now: float = 0.0) -> Health:
    health = Health()
    for _ in range(FAILURES_IN_A_ROW):
        health.failed(now)
    return health


def test_an_agent_is_left_out_after_failures_in_a_row_and_tried_with_one_call() -> None:
    health = Health()
    assert [health.failed(0.0) for _ in range(FAILURES_IN_A_ROW)] == [False, False, True]
    assert health.most_calls(8, 0.0) == 0
    assert health.most_calls(8, FIRST_EJECTION_S - 0.1) == 0
    assert health.most_calls(8, FIRST_EJECTION_S) == 1


def test_a_success_in_between_forgives_the_failures() -> None:
    health = Health()
    for _ in range(10):
        health.failed(0.0)
        health.failed(0.0)
        health.succeeded(0.0)
    assert health.most_calls(8, 0.0) == 8


def test_a_failed_probe_doubles_the_time_up_to_a_minute() -> None:
    health, now, waits = ejected(), 0.0, []
    for _ in range(6):
        until = health.ejected_until(now)
        assert until is not None
        waits.append(until - now)
        now = until
        assert health.failed(now)
    assert waits == [5.0, 10.0, 20.0, 40.0, LONGEST_EJECTION_S, LONGEST_EJECTION_S]


def test_failures_of_calls_from_before_prolong_nothing() -> None:
    health = ejected()
    assert not any(health.failed(1.0) for _ in range(20))
    assert health.most_calls(8, FIRST_EJECTION_S) == 1


def test_after_a_good_probe_the_share_grows_back_slowly() -> None:
    health = ejected()
    health.succeeded(FIRST_EJECTION_S)
    start = FIRST_EJECTION_S
    shares = [health.most_calls(8, start + part * SLOW_START_S) for part in (0, 0.25, 0.5, 0.9, 1)]
    assert shares == [1, 2, 4, 8, 8]
    assert health.is_well
    assert health.ejected_until(start) is None


def test_a_failure_during_the_slow_start_ejects_at_once_and_for_longer() -> None:
    health = ejected()
    health.succeeded(FIRST_EJECTION_S)
    assert health.failed(6.0)
    assert health.ejected_until(6.0) == 16.0


def test_the_calls_that_an_engines_death_ends_are_one_failure() -> None:
    health = Health()
    assert not any(health.engine_died(0.01 * call) for call in range(16))
    assert not health.engine_died(10.0)
    assert health.engine_died(20.0)


def test_an_agent_may_be_left_out_for_other_reasons() -> None:
    health = Health()
    health.eject(3.0)
    assert (health.most_calls(4, 3.0), health.is_well) == (0, False)


# --- standing still ---


def test_standing_still_lasts_from_the_last_progress_and_excuses_count() -> None:
    stall = Stall(0.0)
    assert stall.lasts(1, 5.0, is_excused=False) == 0.0
    assert stall.lasts(1, 9.0, is_excused=False) == 4.0
    assert stall.lasts(1, 10.0, is_excused=True) == 0.0
    assert stall.lasts(1, 12.0, is_excused=False) == 2.0
    assert stall.lasts(2, 13.0, is_excused=False) == 0.0
