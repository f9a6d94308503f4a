"""Browsers that signed in."""

from __future__ import annotations

from math import inf

from balancer.policy.identity.keyring import KeyRing
from balancer.policy.identity.principal import Principal
from balancer.policy.identity.sessions import IDLE_S, LONGEST_S, MOST_SESSIONS, Sessions
from tests.support.keys import credential

ADMIN = Principal(tenant="key:a", role="admin", id="a")


def test_a_cookie_stands_for_its_key_until_it_signs_out() -> None:
    sessions = Sessions()
    sessions.open("cookie", "token", ADMIN, unix_s=0, ends_s=inf)
    found = sessions.find("cookie", unix_s=1)
    assert found is not None
    assert found.principal is ADMIN
    assert found.knows("token")
    assert not found.knows("")
    assert not found.knows("tökén")
    assert sessions.find("another", unix_s=1) is None
    sessions.close("cookie")
    sessions.close("cookie")
    assert sessions.find("cookie", unix_s=1) is None


def test_a_session_ends_unused_and_in_the_end_and_with_its_key() -> None:
    sessions = Sessions()
    sessions.open("idle", "t", ADMIN, unix_s=0, ends_s=inf)
    assert sessions.find("idle", unix_s=IDLE_S - 1) is not None
    assert sessions.find("idle", unix_s=2 * IDLE_S - 2) is not None
    assert sessions.find("idle", unix_s=3 * IDLE_S) is None
    sessions.open("long", "t", ADMIN, unix_s=0, ends_s=inf)
    for hours in range(12):
        assert sessions.find("long", unix_s=hours * 3599.0) is not None
    assert sessions.find("long", unix_s=LONGEST_S) is None
    sessions.open("key's", "t", ADMIN, unix_s=0, ends_s=100.0)
    assert sessions.find("key's", unix_s=100) is None
    assert len(sessions) == 0


def test_past_the_bound_the_one_unused_for_longest_goes() -> None:
    sessions = Sessions()
    for number in range(MOST_SESSIONS):
        sessions.open(str(number), "t", ADMIN, unix_s=0, ends_s=inf)
    assert sessions.find("0", unix_s=1) is not None
    sessions.open("one more", "t", ADMIN, unix_s=1, ends_s=inf)
    assert sessions.find("0", unix_s=1) is not None
    assert sessions.find("1", unix_s=1) is None


def test_sessions_end_with_keys_that_are_taken_away_or_changed() -> None:
    ring = KeyRing([credential("a", role="admin", expires_s=50.0), credential("b")], b"s")
    one = ring.find("a", address="", unix_s=0)
    other = ring.find("b", address="", unix_s=0)
    assert isinstance(one, Principal)
    assert isinstance(other, Principal)
    assert (ring.ends_s(one), ring.ends_s(other)) == (50.0, inf)
    sessions = Sessions()
    sessions.open("one", "t", one, unix_s=0, ends_s=inf)
    sessions.open("other", "t", other, unix_s=0, ends_s=inf)
    sessions.keep(KeyRing([credential("a", role="user"), credential("b")], b"s").has)
    assert sessions.find("one", unix_s=0) is None
    assert sessions.find("other", unix_s=0) is not None


def test_a_session_ends_with_a_key_that_was_given_an_end_later() -> None:
    sessions = Sessions()
    sessions.open("rotated", "t", ADMIN, unix_s=0, ends_s=inf)
    sessions.shorten(lambda _: inf)
    assert sessions.find("rotated", unix_s=100) is not None
    sessions.shorten(lambda _: 100.0)
    assert sessions.find("rotated", unix_s=100) is None
