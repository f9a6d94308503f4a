"""Under which limits a request comes in."""

from __future__ import annotations

import pytest

from balancer.access import NO_LIMITS, Allowance, Limits, LimitTable
from balancer.policy.identity.principal import Principal, open_mode_principal
from balancer.policy.limits.amounts import Bound
from balancer.policy.limits.bounds import bounds_of, subject_of_address

DEFAULTS = LimitTable()


def a_minute(requests: int, burst: int | None = None) -> Limits:
    return Limits(requests_per_minute=requests, burst=burst)


def principal(**facts: object) -> Principal:
    return Principal(**{"tenant": "t", "role": "user", "id": "k", **facts})  # type: ignore[arg-type]  # any facts


def test_a_caller_on_this_host_has_no_bounds_while_nobody_has_to_sign_in() -> None:
    assert bounds_of(open_mode_principal("127.0.0.1"), "chat", "127.0.0.1", DEFAULTS) == ()


def test_a_key_is_bound_by_its_role_and_by_the_class_of_the_route() -> None:
    assert bounds_of(principal(), "chat", "10.0.0.1", DEFAULTS) == (
        Bound("key k", a_minute(300)),
        Bound("key k chat", a_minute(100, 10)),
    )


def test_without_a_key_the_address_is_bound() -> None:
    public = Principal(tenant="10.0.0.1", role="public")
    assert bounds_of(public, "models", "10.0.0.1", DEFAULTS) == (
        Bound("address 10.0.0.1", a_minute(60)),
        Bound("address 10.0.0.1 models", a_minute(60)),
    )


def test_a_key_s_own_words_go_before_its_tier_s_and_these_before_its_role_s() -> None:
    table = LimitTable(
        roles={"user": Allowance(limits=Limits(requests_per_minute=1, burst=1, concurrent=1))},
        tiers={"pro": Allowance(limits=Limits(requests_per_minute=2, burst=2))},
        classes={},
    )
    own = Allowance(limits=a_minute(3))
    (bound,) = bounds_of(principal(tier="pro", allowance=own), "chat", "x", table)
    assert bound.limits == Limits(requests_per_minute=3, burst=2, concurrent=1)


def test_a_class_s_limit_is_for_whom_nothing_narrower_says_anything_of_it() -> None:
    table = LimitTable(
        roles={"user": Allowance(classes={"chat": Limits(requests_per_minute=7, burst=1)})},
        tiers={},
        classes={"chat": a_minute(100), "models": a_minute(60)},
    )
    own = Allowance(classes={"chat": a_minute(8)})
    of_chat = bounds_of(principal(allowance=own), "chat", "x", table)
    assert of_chat == (Bound("key k chat", Limits(requests_per_minute=8, burst=1)),)
    of_models = bounds_of(principal(allowance=own), "models", "x", table)
    assert of_models == (Bound("key k models", a_minute(60)),)


def test_what_is_for_all_has_the_limit_of_its_class_alone() -> None:
    public = Principal(tenant="10.0.0.1", role="public")
    assert bounds_of(public, "health", "10.0.0.1", DEFAULTS, is_for_all=True) == (
        Bound("address 10.0.0.1 health", a_minute(600, 100)),
    )


def test_a_day_is_limited_by_the_tier() -> None:
    (whole, _) = bounds_of(principal(tier="free"), "chat", "x", DEFAULTS)
    assert whole.limits == Limits(requests_per_minute=300, requests_per_day=1000)


def test_an_address_may_be_bound_whoever_calls_from_there() -> None:
    table = LimitTable(roles={}, tiers={}, classes={}, address=a_minute(5))
    assert bounds_of(principal(role="system"), "agents", "10.0.0.1", table) == (
        Bound("all of address 10.0.0.1", a_minute(5)),
    )


@pytest.mark.parametrize(
    ("address", "subject"),
    [
        ("10.0.0.1", "address 10.0.0.1"),
        ("::ffff:10.0.0.1", "address 10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "address 2001:db8:1:2::/64"),
        ("fe80::1%eth0", "address fe80::/64"),
        ("a socket", "address a socket"),
    ],
)
def test_an_ipv6_network_is_one_caller(address: str, subject: str) -> None:
    assert subject_of_address(address) == subject


def test_limits_over_others_say_what_they_say() -> None:
    assert NO_LIMITS.over(a_minute(5)) == a_minute(5)
    assert a_minute(5).over(Limits(concurrent=2)) == Limits(requests_per_minute=5, concurrent=2)
