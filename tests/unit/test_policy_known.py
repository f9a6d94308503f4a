"""Credentials that need not be looked at again, and keys that issuers publish."""

from __future__ import annotations

from math import inf

from balancer.policy.identity.keyring import Denied
from balancer.policy.identity.known import KnownCredentials
from balancer.policy.identity.principal import Principal
from balancer.policy.identity.published import PublishedKeys
from balancer.signing_keys import SigningKey

ALICE = Principal(tenant="a", role="user", id="jwt:alice")
BOB = Principal(tenant="b", role="user", id="jwt:bob")
ONE = SigningKey(algorithm="ES256", key=None, digest=b"1", id="one")
TWO = SigningKey(algorithm="ES256", key=None, digest=b"2", id="two")


def test_what_was_found_is_known_until_its_time() -> None:
    known = KnownCredentials(b"secret")
    tag = known.tag_of("bearer", "token")
    assert known.find(tag, unix_s=0) is None
    known.keep(tag, ALICE, until_s=10)
    assert known.find(tag, unix_s=9.9) is ALICE
    assert known.find(tag, unix_s=10) is None
    assert len(known) == 0


def test_a_clock_that_is_set_back_prolongs_nothing() -> None:
    known = KnownCredentials(b"secret")
    known.keep(b"1", ALICE, since_s=1000.0, until_s=1030.0)
    assert known.find(b"1", unix_s=1000.0) is ALICE
    assert known.find(b"1", unix_s=900.0) is None
    assert known.find(b"1", unix_s=1000.0) is None


def test_a_tag_tells_nothing_without_the_secret() -> None:
    a, b = KnownCredentials(b"a"), KnownCredentials(b"b")
    assert a.tag_of("bearer", "token") != b.tag_of("bearer", "token")
    assert a.tag_of("bearer", "token") == KnownCredentials(b"a").tag_of("bearer", "token")


def test_tags_of_two_kinds_differ_and_any_bytes_of_a_header_have_one() -> None:
    known = KnownCredentials(b"a")
    texts = ("a", "basic a", "\udcff", "\ud800")
    tags = {known.tag_of(kind, text) for kind in ("bearer", "basic") for text in texts}
    assert len(tags) == 8


def test_past_the_bound_what_was_not_used_for_longest_is_forgotten() -> None:
    known = KnownCredentials(b"secret", most=2)
    known.keep(b"1", ALICE, until_s=inf)
    known.keep(b"2", BOB, until_s=inf)
    assert known.find(b"1", unix_s=0) is ALICE
    known.keep(b"3", Denied("unknown"), until_s=inf)
    assert known.find(b"2", unix_s=0) is None
    assert [known.find(tag, unix_s=0) for tag in (b"1", b"3")] == [ALICE, Denied("unknown")]


def test_what_a_key_signed_goes_with_it() -> None:
    known = KnownCredentials(b"secret")
    known.keep(b"1", ALICE, until_s=inf, signed_by=b"one")
    known.keep(b"2", BOB, until_s=inf, signed_by=b"two")
    known.keep(b"3", BOB, until_s=inf)
    assert known.drop_signed({b"one"}) == {BOB.id}
    assert known.find(b"1", unix_s=0) is None
    assert known.find(b"2", unix_s=0) is BOB
    assert known.find(b"3", unix_s=0) is BOB


def test_somebody_ends_with_the_last_token() -> None:
    known = KnownCredentials(b"secret")
    known.keep(b"1", ALICE, until_s=5, ends_s=10)
    known.keep(b"2", ALICE, until_s=5, ends_s=20)
    assert (known.ends_s(ALICE), known.ends_s(BOB)) == (20, inf)


def test_published_keys_are_good_until_others_take_their_place_or_they_are_too_old() -> None:
    published = PublishedKeys()
    assert published.keys("u", unix_s=0, keep_s=10) == ()
    assert published.until_s("u", 10) == inf
    assert published.take("u", (ONE, TWO), unix_s=100) == frozenset()
    assert published.until_s("u", 10) == 110
    assert published.keys("u", unix_s=109, keep_s=10) == (ONE, TWO)
    assert published.keys("u", unix_s=110, keep_s=10) == ()
    assert published.take("u", (TWO,), unix_s=200) == {b"1"}
    assert published.keys("u", unix_s=200, keep_s=10) == (TWO,)


def test_a_key_that_another_issuer_publishes_too_is_not_gone() -> None:
    published = PublishedKeys()
    published.take("u", (ONE,), unix_s=0)
    published.take("v", (ONE,), unix_s=0)
    assert published.take("u", (TWO,), unix_s=0) == frozenset()


def test_keys_of_issuers_that_are_not_trusted_any_more_are_forgotten() -> None:
    published = PublishedKeys()
    published.take("u", (ONE,), unix_s=0)
    published.take("v", (TWO,), unix_s=0)
    published.keep_those_of({"v"})
    assert published.keys("u", unix_s=0, keep_s=10) == ()
    assert published.keys("v", unix_s=0, keep_s=10) == (TWO,)
