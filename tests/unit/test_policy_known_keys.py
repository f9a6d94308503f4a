"""Keys of the configuration and of the store, together."""

from __future__ import annotations

from math import inf

from balancer.access import Credential, keyed_digest_of
from balancer.policy.identity.key_text import RANDOM_BYTES, key_text
from balancer.policy.identity.keyring import Denied, KeyRing
from balancer.policy.identity.known_keys import KnownKeys
from balancer.policy.identity.principal import Principal
from tests.support.keys import credential

STORED = key_text(b"\x07" * RANDOM_BYTES)


def in_store(key: str, **facts: object) -> Credential:
    return credential(key, number=1, digest=keyed_digest_of(key, b"pepper"), **facts)


def ring(*credentials: Credential) -> KeyRing:
    return KeyRing(credentials, b"secret", pepper=b"pepper")


def known(*stored: Credential) -> KnownKeys:
    keys = KnownKeys(b"secret")
    keys.configure([credential("configured"), credential("both", expires_s=1.0)])
    keys.store(ring(*stored), has_keys=bool(stored))
    return keys


def find(keys: KnownKeys, key: str) -> Principal | Denied:
    return keys.find(key, address="127.0.0.1", unix_s=1000.0)


def test_keys_are_found_wherever_they_are_and_a_good_one_before_one_that_has_ended() -> None:
    keys = known(in_store(STORED, id="k", expires_s=2000.0), in_store("both"))
    configured, stored, both = (find(keys, key) for key in ("configured", STORED, "both"))
    assert isinstance(configured, Principal)
    assert isinstance(stored, Principal)
    assert isinstance(both, Principal)
    assert [keys.has(one) for one in (configured, stored, both)] == [True] * 3
    assert [keys.ends_s(one) for one in (configured, stored)] == [inf, 2000.0]
    keys.store(ring(), has_keys=True)
    assert (keys.has(configured), keys.has(stored)) == (True, False)
    assert keys.ends_s(stored) == inf
    assert find(keys, "both") == Denied("expired", "both")


def test_a_key_that_is_known_may_come_from_its_networks_alone() -> None:
    keys = known(in_store(STORED, id="k", networks=("127.0.0.0/31",)))
    stored, configured = find(keys, STORED), find(keys, "configured")
    assert isinstance(stored, Principal)
    assert isinstance(configured, Principal)
    places = ("127.0.0.1", "127.0.0.2")
    assert [keys.may_come_from(stored, place) for place in places] == [True, False]
    assert [keys.may_come_from(configured, place) for place in places] == [True, True]
    assert keys.may_come_from(Principal(tenant="t", role="user", id="k"), "127.0.0.2")


def test_what_nobody_has_is_unknown_and_what_was_never_made_mistyped() -> None:
    keys = known(in_store(STORED, id="k"))
    assert find(keys, "guess") == Denied("unknown")
    assert find(keys, STORED[:-1]) == Denied("mistyped")
    assert find(keys, key_text(bytes(RANDOM_BYTES))) == Denied("unknown")


def test_it_is_known_when_keys_were_used_until_that_is_taken() -> None:
    keys = known(in_store(STORED, id="k"))
    find(keys, STORED)
    find(keys, "guess")
    assert (keys.used_s("k"), keys.used_s("configured")) == (1000.0, None)
    assert keys.take_used() == {"k": 1000.0}
    assert keys.take_used() == {}


def test_that_there_was_a_stored_key_is_not_forgotten() -> None:
    keys = known()
    assert not keys.has_had_stored
    keys.store(ring(), has_keys=True)
    keys.store(ring(), has_keys=False)
    assert keys.has_had_stored
