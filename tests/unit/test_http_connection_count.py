"""Who gets a connection: in all so many, of one address so many."""

from __future__ import annotations

import resource

import pytest

from balancer.errors import LimitExceeded, TooManyConnections
from balancer.http.client_address import ClientAddresses
from balancer.http.connection_count import ConnectionCount
from balancer.settings import LiveSettings, Settings

STRANGER, ANOTHER, PROXY = "192.0.2.1", "192.0.2.2", "10.0.0.1"


def _count(
    live: LiveSettings | None = None, *, most: int = 100, of_address: int = 2
) -> ConnectionCount:
    settings = Settings(
        max_connections=most, max_connections_of_address=of_address, trusted_proxies=("10.0.0.0/8",)
    )
    live = live or LiveSettings(settings)
    return ConnectionCount(live, ClientAddresses(live))


def test_an_address_has_so_many_and_others_have_theirs() -> None:
    count = _count()
    places = [count.enter(STRANGER) for _ in range(2)]
    with pytest.raises(LimitExceeded) as refused:
        count.enter(STRANGER)
    assert (refused.value.status, refused.value.code) == (429, "too_many_connections")
    count.enter(ANOTHER)
    assert count.open == 3
    count.leave(places[0])
    count.enter(STRANGER)
    with pytest.raises(LimitExceeded):
        count.enter(STRANGER)


def test_a_household_of_ipv6_is_one_address() -> None:
    count = _count()
    count.enter("2001:db8:0:1::1")
    count.enter("2001:db8:0:1::2")
    with pytest.raises(LimitExceeded):
        count.enter("2001:db8:0:1::3")
    count.enter("2001:db8:0:2::1")


@pytest.mark.parametrize("address", [PROXY, "127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_this_host_and_trusted_proxies_are_counted_in_all_alone(address: str) -> None:
    count = _count(most=5)
    for _ in range(5):
        count.enter(address)
    with pytest.raises(TooManyConnections) as refused:
        count.enter(address)
    assert refused.value.status == 503
    assert refused.value.retry_after_s


def test_what_is_left_is_forgotten() -> None:
    count = _count()
    for number in range(1000):
        place = count.enter(f"198.51.100.{number % 250}")
        count.leave(place)
    assert count.open == 0
    assert not vars(count)["_of_subject"]


def test_limits_follow_the_settings() -> None:
    live = LiveSettings(Settings(max_connections_of_address=1))
    count = _count(live)
    count.enter(STRANGER)
    with pytest.raises(LimitExceeded):
        count.enter(STRANGER)
    live.replace(Settings(max_connections_of_address=2))
    count.enter(STRANGER)
    live.replace(Settings(max_connections=2))
    with pytest.raises(TooManyConnections):
        count.enter(ANOTHER)


def test_there_are_never_more_than_the_process_has_descriptors_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (8, 8))
    count = _count()
    for number in range(6):
        count.enter(f"198.51.100.{number}")
    with pytest.raises(TooManyConnections):
        count.enter(STRANGER)


def test_who_may_open_files_without_end_has_the_setting_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    endless = resource.RLIM_INFINITY
    monkeypatch.setattr(resource, "getrlimit", lambda _: (endless, endless))
    count = _count(most=1)
    count.enter(STRANGER)
    with pytest.raises(TooManyConnections):
        count.enter(ANOTHER)
