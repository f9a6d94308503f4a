"""`Retry-After` is an estimate within bounds, never a constant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.policy.eta import LONGEST_RETRY_S, retry_after_s, smoothed_service_s
from balancer.policy.identity.principal import open_mode_principal


@pytest.mark.parametrize(
    ("ahead", "slots", "service_s", "expected"),
    [
        (0, 4, 2.0, 1),
        (7, 4, 2.0, 4),
        (7, 8, 2.0, 2),
        (99, 1, 60.0, LONGEST_RETRY_S),
        (0, 0, 2.0, 5),
        (0, 1, None, 5),
        (0, 4, 0.0, 1),
    ],
)
def test_the_estimate_follows_queue_slots_and_service_time(
    ahead: int, slots: int, service_s: float | None, expected: int
) -> None:
    assert retry_after_s(ahead=ahead, slots=slots, service_s=service_s) == expected


@given(
    ahead=st.integers(0, 10_000),
    slots=st.integers(0, 1000),
    service_s=st.none() | st.floats(0, 1e6),
)
def test_the_estimate_stays_in_bounds_and_grows_with_the_queue(
    ahead: int, slots: int, service_s: float | None
) -> None:
    now = retry_after_s(ahead=ahead, slots=slots, service_s=service_s)
    later = retry_after_s(ahead=ahead + 1, slots=slots, service_s=service_s)
    assert 1 <= now <= later <= LONGEST_RETRY_S


def test_the_mean_starts_at_the_first_measurement_and_follows_newer_ones() -> None:
    first = smoothed_service_s(None, 4.0)
    assert first == 4.0
    assert 4.0 < smoothed_service_s(first, 9.0) < 9.0


def test_a_loopback_caller_in_open_mode_is_an_admin_counted_by_address() -> None:
    principal = open_mode_principal("127.0.0.1")
    assert (principal.tenant, principal.role) == ("127.0.0.1", "admin")
