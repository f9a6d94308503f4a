from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.access import NO_LIMITS, Limits
from balancer.policy.limits.amounts import DAY_S, MINUTE_S, Bound, Moment, Refusal, Standing
from balancer.policy.limits.day import DayCount
from balancer.policy.limits.ledger import OTHERS, Entry, Ledger, Reservation

NOON = 20_000 * DAY_S + DAY_S / 2


def at(now_s: float) -> Moment:
    return Moment(now_s, NOON + now_s)


def let_in(found: Entry | Refusal) -> Entry:
    assert isinstance(found, Entry)
    return found


def promised(found: Reservation | Refusal) -> Reservation:
    assert isinstance(found, Reservation)
    return found


def refused(found: Entry | Reservation | Refusal | None) -> Refusal:
    assert isinstance(found, Refusal)
    return found


def of(**limits: int) -> list[Bound]:
    return [Bound("key:a", Limits(**limits))]


# --- requests ---


def test_no_limits_refuse_nothing_and_have_no_standing() -> None:
    ledger = Ledger()
    for _ in range(1000):
        entry = let_in(ledger.enter([Bound("key:a", NO_LIMITS)], at(0)))
        promised(entry.reserve(10**9, at(0))).settle(at(0), spent=10**9)
    assert NO_LIMITS.is_none
    assert not entry.limits_tokens
    assert entry.tokens_left(at(0)) is None
    assert entry.requests_standing(at(0)) is None
    assert entry.tokens_standing(at(0)) is None


def test_the_request_past_a_minute_s_limit_is_told_the_second_when_it_may_come() -> None:
    ledger = Ledger()
    for second in range(3):
        let_in(ledger.enter(of(requests_per_minute=3), at(10.0 * second)))

    refusal = refused(ledger.enter(of(requests_per_minute=3), at(30)))
    assert (refusal.subject, refusal.excess, refusal.limit) == ("key:a", "requests", 3)
    assert refusal.retry_after_s == 30

    refused(ledger.enter(of(requests_per_minute=3), at(59.9)))
    let_in(ledger.enter(of(requests_per_minute=3), at(60)))


def test_a_burst_bounds_what_comes_in_one_second() -> None:
    ledger = Ledger()
    limits = {"requests_per_minute": 100, "burst": 2}
    let_in(ledger.enter(of(**limits), at(0)))
    let_in(ledger.enter(of(**limits), at(0.25)))
    refusal = refused(ledger.enter(of(**limits), at(0.5)))
    assert (refusal.excess, refusal.retry_after_s) == ("burst", 0.5)
    let_in(ledger.enter(of(**limits), at(1.0)))


@pytest.mark.parametrize(
    "limits", [{"requests_per_minute": 0}, {"requests_per_minute": 5, "burst": 0}]
)
def test_a_limit_of_nothing_lets_nothing_in(limits: dict[str, int]) -> None:
    assert refused(Ledger().enter(of(**limits), at(0))).retry_after_s > 0


def test_who_is_refused_is_not_counted() -> None:
    ledger = Ledger()
    let_in(ledger.enter(of(requests_per_minute=1), at(0)))
    for second in range(1, 60):
        refused(ledger.enter(of(requests_per_minute=1), at(second)))
    let_in(ledger.enter(of(requests_per_minute=1), at(60)))


def test_one_bound_that_refuses_leaves_the_others_uncounted() -> None:
    ledger = Ledger()
    narrow, wide = Bound("address:x", Limits(requests_per_minute=1)), of(requests_per_minute=2)
    let_in(ledger.enter([*wide, narrow], at(0)))
    assert refused(ledger.enter([*wide, narrow], at(1))).subject == "address:x"
    entry = let_in(ledger.enter(wide, at(1)))
    assert entry.requests_standing(at(1)) == Standing(2, 0, 60)


def test_places_are_free_again_when_their_requests_leave() -> None:
    ledger = Ledger()
    first = let_in(ledger.enter(of(concurrent=1), at(0)))
    refusal = refused(ledger.enter(of(concurrent=1), at(1)))
    assert (refusal.excess, refusal.limit) == ("concurrency", 1)
    first.leave(at(2))
    first.leave(at(2))
    let_in(ledger.enter(of(concurrent=1), at(2)))
    refused(ledger.enter(of(concurrent=1), at(2)))


def test_where_all_places_are_taken_the_wait_is_what_requests_take() -> None:
    ledger = Ledger()
    for second in range(100):
        let_in(ledger.enter(of(concurrent=2), at(40.0 * second))).leave(at(40.0 * second + 20))
    for _ in range(2):
        let_in(ledger.enter(of(concurrent=2), at(5000)))
    assert refused(ledger.enter(of(concurrent=2), at(5000))).retry_after_s == pytest.approx(
        10, rel=0.01
    )
    nothing = refused(Ledger().enter(of(concurrent=0), at(0)))
    assert nothing.retry_after_s > 0


def test_a_day_s_requests_end_at_midnight() -> None:
    ledger = Ledger()
    let_in(ledger.enter(of(requests_per_day=1), at(0)))
    refusal = refused(ledger.enter(of(requests_per_day=1), at(100)))
    assert (refusal.excess, refusal.retry_after_s) == ("requests_of_day", DAY_S / 2 - 100)
    let_in(ledger.enter(of(requests_per_day=1), at(DAY_S / 2)))


def test_a_clock_that_is_set_back_gives_nobody_another_day() -> None:
    ledger = Ledger()
    let_in(ledger.enter(of(requests_per_day=1), Moment(0, NOON)))
    refused(ledger.enter(of(requests_per_day=1), Moment(1, NOON - DAY_S)))


def test_headers_tell_the_limit_that_is_reached_first() -> None:
    ledger = Ledger()
    bounds = [
        Bound("key:a", Limits(requests_per_minute=10, requests_per_day=3)),
        Bound("address:x", Limits(requests_per_minute=5)),
        Bound("key:a chat", NO_LIMITS),
    ]
    entry = let_in(ledger.enter(bounds, at(0)))
    assert entry.requests_standing(at(0)) == Standing(3, 2, DAY_S / 2)
    assert Standing(5, 1, 0).is_stricter_than(Standing(9, 1, 0))
    assert not Standing(5, 1, 0).is_stricter_than(Standing(5, 1, 9))


def test_what_is_a_minute_old_no_longer_counts() -> None:
    ledger = Ledger()
    for count in range(1000):
        let_in(ledger.enter(of(requests_per_minute=1000), at(count * 0.06)))
    entry = let_in(ledger.enter(of(requests_per_minute=1000), at(90)))
    standing = entry.requests_standing(at(90))
    assert standing is not None
    assert standing.remaining == pytest.approx(500, abs=2)
    assert entry.requests_standing(at(1000)) == Standing(1000, 1000, 0)


# --- tokens ---


def test_promised_tokens_count_until_they_are_settled_to_what_was_spent() -> None:
    ledger = Ledger()
    limits = of(tokens_per_minute=100)
    first = let_in(ledger.enter(limits, at(0)))
    assert first.limits_tokens
    reservation = promised(first.reserve(80, at(0)))
    second = let_in(ledger.enter(limits, at(1)))
    assert second.tokens_left(at(1)) == 20
    refusal = refused(second.reserve(30, at(1)))
    assert (refusal.excess, refusal.limit, refusal.is_hopeless) == ("tokens", 100, False)
    assert refusal.retry_after_s == MINUTE_S  # nothing that is spent could end sooner
    assert second.tokens_standing(at(1)) == Standing(100, 20, 60)

    reservation.settle(at(2), spent=10)
    reservation.settle(at(2), spent=10)
    assert second.tokens_left(at(2)) == 90
    other = promised(second.reserve(90, at(2)))
    assert (ledger.reserved_tokens, other.tokens) == (90, 90)
    other.settle(at(3), spent=0)
    assert ledger.reserved_tokens == ledger.leaked_reservations == 0
    third = let_in(ledger.enter(limits, at(61.9)))
    standing = third.tokens_standing(at(61.9))
    assert standing is not None
    assert standing.remaining == 90
    assert standing.reset_s == pytest.approx(0.1)
    assert third.tokens_left(at(62)) == 100


def test_a_settled_reservation_promises_no_more() -> None:
    entry = let_in(Ledger().enter(of(tokens_per_minute=100), at(0)))
    reservation = promised(entry.reserve(50, at(0)))
    reservation.settle(at(1), spent=10)
    with pytest.raises(AssertionError, match="is settled"):
        reservation.extend(1, at(1))


def test_a_reservation_grows_and_shrinks_as_more_is_known() -> None:
    ledger = Ledger()
    entry = let_in(ledger.enter(of(tokens_per_minute=100), at(0)))
    reservation = promised(entry.reserve(50, at(0)))
    assert reservation.extend(20, at(0)) is None
    assert refused(reservation.extend(40, at(0))).is_hopeless  # together
    reservation.shrink(60)
    assert (reservation.tokens, entry.tokens_left(at(0))) == (10, 90)
    reservation.shrink(60)
    assert (reservation.tokens, ledger.reserved_tokens) == (0, 0)
    reservation.settle(at(0), spent=0)


def test_what_was_never_settled_is_given_back_and_counted_as_leaked() -> None:
    ledger = Ledger()
    entry = let_in(ledger.enter(of(tokens_per_minute=100), at(0)))
    reservation = promised(entry.reserve(50, at(0)))
    del reservation
    assert (ledger.reserved_tokens, ledger.reservations, ledger.leaked_reservations) == (0, 0, 1)
    entry.leave(at(0))
    assert ledger.leaked_reservations == 1
    assert entry.tokens_left(at(0)) == 100


def test_what_is_not_settled_when_its_request_is_over_leaks_until_it_is() -> None:
    ledger = Ledger()
    entry = let_in(ledger.enter(of(tokens_per_minute=100), at(0)))
    first, second = promised(entry.reserve(20, at(0))), promised(entry.reserve(30, at(0)))
    entry.leave(at(1))
    assert (ledger.entries, ledger.reservations, ledger.leaked_reservations) == (0, 2, 2)
    first.settle(at(2), spent=5)
    assert (ledger.reservations, ledger.leaked_reservations) == (1, 1)
    del second
    assert (ledger.reservations, ledger.leaked_reservations) == (0, 1)  # a fault that was


def test_no_more_counts_than_was_promised_whatever_an_agent_says_was_spent() -> None:
    ledger = Ledger()
    entry = let_in(ledger.enter(of(tokens_per_minute=100, tokens_per_day=100), at(0)))
    promised(entry.reserve(50, at(0))).settle(at(0), spent=10**9)
    assert ledger.settled_tokens == 50
    assert entry.tokens_left(at(0)) == 50


def test_the_wait_for_tokens_is_until_enough_of_them_are_a_minute_old() -> None:
    ledger = Ledger()
    limits = of(tokens_per_minute=100)
    for second in range(5):
        entry = let_in(ledger.enter(limits, at(second)))
        promised(entry.reserve(20, at(second))).settle(at(second), spent=20)
    entry = let_in(ledger.enter(limits, at(10)))
    assert refused(entry.reserve(30, at(10))).retry_after_s == 51
    refused(entry.reserve(30, at(60.9)))
    promised(entry.reserve(30, at(61))).settle(at(61), spent=0)


def test_more_than_a_limit_ever_leaves_is_hopeless() -> None:
    ledger = Ledger()
    entry = let_in(ledger.enter(of(tokens_per_minute=100, tokens_per_day=50), at(0)))
    assert refused(entry.reserve(51, at(0))).is_hopeless
    promised(entry.reserve(50, at(0))).settle(at(0), spent=0)


def test_tokens_settled_at_nearly_the_same_time_count_until_the_last_is_a_minute_old() -> None:
    ledger = Ledger()
    entry = let_in(ledger.enter(of(tokens_per_minute=100), at(0)))
    for now_s in (0, 0.008):
        promised(entry.reserve(10, at(now_s))).settle(at(now_s), spent=10)
    assert entry.tokens_left(at(60.005)) == 80
    assert entry.tokens_left(at(60.008)) == 100


def test_a_day_s_tokens_end_at_midnight_but_promises_go_on() -> None:
    ledger = Ledger()
    limits = of(tokens_per_day=100)
    entry = let_in(ledger.enter(limits, at(0)))
    reservation = promised(entry.reserve(60, at(0)))
    other = let_in(ledger.enter(limits, at(0)))
    assert refused(other.reserve(50, at(0))).excess == "tokens_of_day"
    assert other.tokens_left(at(0)) == 40
    assert other.tokens_standing(at(0)) == Standing(100, 40, DAY_S / 2)
    tomorrow = at(DAY_S / 2 + 1)
    assert other.tokens_left(tomorrow) == 40
    reservation.settle(tomorrow, spent=50)
    assert other.tokens_left(tomorrow) == 50


def test_a_ledger_that_begins_anew_goes_on_with_the_day() -> None:
    limits = of(requests_per_day=3, tokens_per_day=100)
    earlier = Ledger()
    entry = let_in(earlier.enter(limits, at(0)))
    promised(entry.reserve(70, at(0))).settle(at(0), spent=40)
    let_in(earlier.enter([Bound("key:b", Limits(requests_per_minute=5))], at(0)))  # has no days
    kept = earlier.changed_days(at(1), most=9)
    assert [one.subject for one in kept] == ["key:a"]
    assert earlier.changed_days(at(1), most=9) == []

    later = Ledger()
    later.take_days(kept, at(100))
    again = let_in(later.enter(limits, at(100)))
    assert again.tokens_left(at(100)) == 60
    let_in(later.enter(limits, at(101)))
    assert refused(later.enter(limits, at(102))).excess == "requests_of_day"
    (changed,) = later.changed_days(at(103), most=9)
    assert (changed.requests, changed.tokens) == (3, 40)


def test_days_that_are_over_are_neither_told_nor_taken() -> None:
    earlier, tomorrow = Ledger(), at(DAY_S)
    let_in(earlier.enter(of(requests_per_day=1), at(0)))
    kept = earlier.changed_days(at(1), most=9)
    let_in(earlier.enter([Bound("key:b", Limits(requests_per_day=1))], at(1)))
    assert earlier.changed_days(tomorrow, most=9) == []
    later = Ledger()
    later.take_days(kept, tomorrow)
    assert len(later) == 0
    let_in(later.enter(of(requests_per_day=1), tomorrow))


def test_a_ledger_that_begins_on_a_day_before_has_the_counts_until_that_day_is_over() -> None:
    earlier, later = Ledger(), Ledger()
    let_in(earlier.enter(of(requests_per_day=1), at(0)))
    yesterday = Moment(0, NOON - DAY_S)
    later.take_days(earlier.changed_days(at(0), most=9), yesterday)
    refused(later.enter(of(requests_per_day=1), yesterday))
    let_in(later.enter(of(requests_per_day=1), at(DAY_S)))


def test_no_more_days_are_taken_than_there_is_room_for() -> None:
    earlier, later = Ledger(), Ledger(most_subjects=2)
    for name in "abc":
        let_in(earlier.enter([Bound(name, Limits(requests_per_day=1))], at(0)))
    kept = [*earlier.changed_days(at(0), most=2), *earlier.changed_days(at(0), most=2)]
    assert [one.subject for one in kept] == ["a", "b", "c"]
    later.take_days(kept, at(0))
    assert len(later) == 2


# --- bounds of the account itself ---


def test_what_is_over_at_once_is_counted_without_a_place() -> None:
    ledger = Ledger()
    bound = Bound("failures of x", Limits(requests_per_minute=2, concurrent=1))
    assert ledger.would_refuse(bound, at(0)) is None
    assert ledger.count(bound, at(0)) is None
    assert ledger.would_refuse(bound, at(0)) is None
    assert ledger.count(bound, at(0)) is None
    assert refused(ledger.would_refuse(bound, at(1))).retry_after_s == 59
    assert refused(ledger.count(bound, at(1))).retry_after_s == 59


def test_a_flood_of_names_shares_limits_and_makes_nobody_forgotten() -> None:
    ledger = Ledger(most_subjects=10)
    limits = Limits(requests_per_minute=2)
    for number in range(10):
        let_in(ledger.enter([Bound(f"address:{number}", limits)], at(0)))
    let_in(ledger.enter([Bound("address:new", limits)], at(1)))
    let_in(ledger.enter([Bound("address:newer", limits)], at(1)))
    assert refused(ledger.enter([Bound("address:newest", limits)], at(1))).excess == "requests"
    assert len(ledger) == 11  # those and `OTHERS`
    let_in(ledger.enter([Bound("address:3", limits)], at(1)))
    refused(ledger.enter([Bound("address:3", limits)], at(1)))


def test_who_came_a_minute_ago_makes_room_first_where_nothing_of_a_day_is_lost() -> None:
    ledger = Ledger(most_subjects=2)
    entry = let_in(ledger.enter([Bound("key:a", Limits(requests_per_minute=2))], at(0)))
    entry.leave(at(0))
    midnight = DAY_S / 2
    other = let_in(ledger.enter([Bound("key:b", Limits(requests_per_day=2))], at(midnight)))
    other.leave(at(midnight))
    let_in(ledger.enter([Bound("key:c", Limits(concurrent=1))], at(midnight + 100)))
    assert len(ledger) == 2
    let_in(ledger.enter([Bound("key:b", Limits(requests_per_day=2))], at(midnight + 100)))
    refused(ledger.enter([Bound("key:b", Limits(requests_per_day=2))], at(midnight + 100)))


def test_a_flood_of_addresses_gives_nobody_a_new_day() -> None:
    ledger = Ledger(most_subjects=30)
    daily, brief = Limits(requests_per_day=1), Limits(requests_per_minute=9)
    for number in range(20):
        let_in(ledger.enter([Bound(f"key:{number}", daily)], at(0))).leave(at(0))
    for number in range(100):
        now_s = 100.0 * (number + 1)  # nothing else of those before counts any more
        let_in(ledger.enter([Bound(f"address:{number}", brief)], at(now_s))).leave(at(now_s))
    assert len(ledger) <= 31  # those and `OTHERS`
    for number in range(20):
        entered = ledger.enter([Bound(f"key:{number}", daily)], at(20_000))
        assert refused(entered).excess == "requests_of_day"


@pytest.mark.parametrize(
    ("ahead_s", "has_had"), [(0.4 * DAY_S, True), (0.7 * DAY_S, True), (400 * DAY_S, False)]
)
def test_a_calendar_that_goes_back_makes_no_new_day_but_for_one_that_was_far_ahead(
    ahead_s: float, *, has_had: bool
) -> None:
    ledger = Ledger()
    bounds = of(requests_per_day=1)
    wrong, right = Moment(1.0, 0.5 * DAY_S + ahead_s), Moment(2.0, 0.5 * DAY_S)
    let_in(ledger.enter(bounds, wrong)).leave(wrong)
    assert isinstance(ledger.enter(bounds, right), Refusal) == has_had


@pytest.mark.parametrize(("days_ahead", "taken"), [(0, 1), (1, 1), (2, 0), (400, 0)])
def test_what_was_kept_under_a_calendar_far_ahead_is_not_taken(days_ahead: int, taken: int) -> None:
    ledger = Ledger()
    ledger.take_days(
        [DayCount(subject="key:a", day=at(0).day + days_ahead, requests=1, tokens=1)], at(0)
    )
    assert len(ledger) == taken


def test_where_there_is_no_other_way_a_day_s_sums_are_forgotten_too() -> None:
    ledger = Ledger(most_subjects=1)
    let_in(ledger.enter([Bound("key:a", Limits(requests_per_day=1))], at(0))).leave(at(0))
    let_in(ledger.enter([Bound("key:b", Limits(requests_per_day=1))], at(100))).leave(at(100))
    assert len(ledger) == 1


def test_those_who_share_are_not_forgotten() -> None:
    ledger = Ledger(most_subjects=1)
    running = let_in(ledger.enter([Bound("key:a", NO_LIMITS)], at(0)))
    let_in(ledger.enter([Bound("key:b", NO_LIMITS)], at(0))).leave(at(0))
    running.leave(at(DAY_S))
    let_in(ledger.enter([Bound(OTHERS, NO_LIMITS)], at(DAY_S)))
    let_in(ledger.enter([Bound("key:c", NO_LIMITS)], at(2 * DAY_S)))
    assert len(ledger) == 2


# --- whatever happens ---


@given(seed=st.integers(0, 2**32), limit=st.integers(1, 12), burst=st.integers(1, 5))
def test_no_minute_and_no_second_ever_has_too_many_requests(
    seed: int, limit: int, burst: int
) -> None:
    drawn = random.Random(seed)
    ledger, now_s, came = Ledger(), 0.0, list[float]()
    bounds = of(requests_per_minute=limit, burst=burst)
    for _ in range(120):
        now_s += drawn.choice((0.0, 0.125, 0.5, 1.0, 7.0))  # exact as floats
        found = ledger.enter(bounds, at(now_s))
        fits = (
            sum(one > now_s - MINUTE_S for one in came) < limit
            and sum(one > now_s - 1 for one in came) < burst
        )
        assert isinstance(found, Entry) == fits
        if isinstance(found, Entry):
            came.append(now_s)
        else:
            now_s += found.retry_after_s - 0.0625
            refused(ledger.enter(bounds, at(now_s)))  # not before


@given(seed=st.integers(0, 2**32), limit=st.integers(10, 500))
def test_no_minute_ever_has_more_spent_tokens_than_the_limit(seed: int, limit: int) -> None:
    drawn = random.Random(seed)
    ledger, now_s = Ledger(), 0.0
    bounds = [
        Bound("key:a", Limits(tokens_per_minute=limit)),
        Bound("address:x", Limits(tokens_per_minute=2 * limit, tokens_per_day=10**6)),
    ]
    running: list[Reservation] = []
    spent: list[tuple[float, int]] = []
    for _ in range(200):
        now_s += drawn.choice((0.0, 0.001, 0.02, 1.0, 20.0))
        if running and drawn.random() < 0.5:
            reservation = running.pop(drawn.randrange(len(running)))
            tokens = drawn.randint(0, reservation.tokens)
            reservation.settle(at(now_s), spent=tokens)
            spent.append((now_s, tokens))
        else:
            entry = let_in(ledger.enter(bounds, at(now_s)))
            found = entry.reserve(drawn.randint(0, limit), at(now_s))
            if isinstance(found, Reservation):
                found.extend(drawn.randint(0, limit), at(now_s))
                found.shrink(drawn.randint(0, 20))
                running.append(found)
        in_window = sum(tokens for when_s, tokens in spent if when_s > now_s - MINUTE_S)
        reserved = sum(one.tokens for one in running)
        assert in_window + reserved <= limit
        assert ledger.reserved_tokens == reserved
    for reservation in running:
        reservation.settle(at(now_s), spent=0)
    assert ledger.reserved_tokens == ledger.leaked_reservations == 0
    fresh = let_in(ledger.enter(bounds, at(now_s + MINUTE_S + 1)))
    assert fresh.tokens_left(at(now_s + MINUTE_S + 1)) == limit
