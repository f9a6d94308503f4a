"""`Retry-After` is an estimate within bounds, never a constant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.policy.eta import (
    AGENT_RETURN_S,
    LONGEST_RETRY_S,
    MOST_AGENTS,
    Running,
    retry_after_s,
)
from balancer.policy.holds import UNMEASURED_HOLD_S
from balancer.policy.identity.principal import open_mode_principal


def begun(slots: int, *, hold_s: float, at_s: float = 0.0, agent: str = "one") -> Running:
    running = Running()
    for key in range(slots):
        running.begins(key, agent, hold_s=hold_s, now_s=at_s)
    return running


def test_the_only_slot_is_free_when_its_call_should_end() -> None:
    running = begun(1, hold_s=10.0)
    outlook = running.outlook(slots=1, agents=["one"], now_s=4.0)
    assert outlook.start_s(0.0) == pytest.approx(6.0)
    assert outlook.start_s(7.0) == pytest.approx(13.0)


def test_work_ahead_is_shared_by_all_slots() -> None:
    outlook = begun(4, hold_s=10.0).outlook(slots=4, agents=["one"], now_s=5.0)
    assert outlook.start_s(80.0) - outlook.start_s(0.0) == pytest.approx(20.0)


def test_after_a_burst_the_first_slot_takes_longer_than_at_a_random_moment() -> None:
    running = begun(8, hold_s=10.0)
    at_once = running.outlook(slots=8, agents=["one"], now_s=0.0)
    half_way = running.outlook(slots=8, agents=["one"], now_s=5.0)
    assert at_once.start_s(0.0) - half_way.start_s(0.0) == pytest.approx(5.0)


def test_what_calls_usually_have_left_is_learned() -> None:
    running = begun(2, hold_s=10.0)
    running.ends(0, now_s=30.0)  # the other one is far past its time, as here all are
    late = running.outlook(slots=2, agents=["one"], now_s=30.0)
    assert late.start_s(0.0) == pytest.approx(10.0 / 3)
    running.begins(2, "one", hold_s=10.0, now_s=30.0)
    running.ends(1, now_s=31.0)
    assert running.outlook(slots=2, agents=["one"], now_s=31.0).start_s(100.0) > 50.0


def test_calls_of_which_nothing_is_known_are_expected_to_take_as_long_again() -> None:
    running = begun(2, hold_s=5.0)
    outlook = running.outlook(slots=2, agents=["one"], now_s=25.0)
    assert outlook.start_s(0.0) == pytest.approx(20.0, rel=0.1)


def test_with_slots_and_no_calls_only_the_work_ahead_counts() -> None:
    outlook = Running().outlook(slots=2, agents=["one"], now_s=0.0)
    assert (outlook.start_s(0.0), outlook.start_s(6.0)) == (0.0, 3.0)


def test_without_slots_an_agent_must_come_back_first() -> None:
    outlook = Running().outlook(slots=0, agents=[], now_s=0.0)
    assert outlook.start_s(2.0) == AGENT_RETURN_S + UNMEASURED_HOLD_S + 2.0


def test_agents_are_forgotten_past_a_bound_unless_calls_run_there() -> None:
    running = begun(1, hold_s=10.0, agent="busy")
    for number in range(1, MOST_AGENTS + 5):
        running.begins(number, f"agent-{number}", hold_s=1.0, now_s=0.0)
        running.ends(number, now_s=1.0)
    assert len(running._agents) <= MOST_AGENTS
    assert running.outlook(slots=1, agents=["busy"], now_s=0.0).start_s(0.0) == 10.0


@given(
    holds=st.lists(st.floats(0, 1e4), max_size=20),
    work_s=st.floats(0, 1e6),
    slots=st.integers(0, 100),
    now_s=st.floats(0, 1e5),
)
def test_the_estimate_stays_in_bounds_and_grows_with_the_work(
    holds: list[float], work_s: float, slots: int, now_s: float
) -> None:
    running = Running()
    for key, hold_s in enumerate(holds):
        running.begins(key, "one", hold_s=hold_s, now_s=0.0)
    outlook = running.outlook(slots=slots, agents=["one", "other"], now_s=now_s)
    now, later = outlook.start_s(work_s), outlook.start_s(work_s + 1.0)
    assert 0.0 <= now <= later
    assert 1 <= retry_after_s(now) <= retry_after_s(later) <= LONGEST_RETRY_S


def test_a_loopback_caller_in_open_mode_is_an_admin_counted_by_address() -> None:
    principal = open_mode_principal("127.0.0.1")
    assert (principal.tenant, principal.role) == ("127.0.0.1", "admin")
