"""Which credential a key is."""

from __future__ import annotations

from math import inf

import pytest

from balancer.access import Allowance, Limits, digest_of, keyed_digest_of
from balancer.config_file.auth_section import auth
from balancer.policy.identity.keyring import MAX_KEY_CHARS, Denied, KeyRing
from balancer.policy.identity.principal import Principal
from tests.support.keys import credential

HERE = "127.0.0.1"


def ring(**facts: object) -> KeyRing:
    return KeyRing([credential("secret", **facts)], b"of this process")


def find(keys: KeyRing, key: str = "secret", address: str = HERE) -> Principal | Denied:
    return keys.find(key, address=address, unix_s=1000.0)


def test_a_key_stands_for_what_was_said_of_it() -> None:
    allowance = Allowance(limits=Limits(concurrent=3))
    keys = ring(
        role="admin", tier="pro", tenant="team", models=("m",), classes=("chat",),
        allowance=allowance,
    )  # fmt: skip
    found = find(keys)
    assert isinstance(found, Principal)
    assert found == Principal(
        tenant="team",
        role="admin",
        id="secret",
        key_number=found.key_number,
        tier="pro",
        models=("m",),
        classes=("chat",),
        allowance=allowance,
        signed_in_by="key",
    )


def test_a_key_without_a_tenant_is_its_own() -> None:
    found = find(ring())
    assert isinstance(found, Principal)
    assert found.tenant == "key:secret"


def test_who_has_no_name_leaves_its_tenant_to_nobody_who_comes_into_its_place() -> None:
    def listed(*keys: str) -> dict[str, Principal]:
        found = KeyRing(auth({"api_keys": keys}, lambda _, __: "").api_keys, b"kept")
        by_key = {key: find(found, key) for key in keys}
        return {key: one for key, one in by_key.items() if isinstance(one, Principal)}

    before, after = listed("first", "second"), listed("second", "third")
    assert after["second"].id == before["first"].id
    assert after["second"].tenant == before["second"].tenant
    tenants = {one.tenant for one in (*before.values(), *after.values())}
    assert len(tenants) == 3
    assert not any(key in tenant for tenant in tenants for key in ("first", "second", "third"))


def test_another_text_under_the_same_name_is_another_key() -> None:
    def named(text: str) -> KeyRing:
        return KeyRing([credential("ops", digest=digest_of(text))], b"kept")

    before = find(named("leaked"), "leaked")
    assert isinstance(before, Principal)
    assert named("leaked").has(before)
    assert not named("fresh").has(before)


@pytest.mark.parametrize(
    "key", ["", "secre", "secret ", "SECRET", "x" * MAX_KEY_CHARS, "x" * (MAX_KEY_CHARS + 1)]
)
def test_any_other_text_is_no_key(key: str) -> None:
    assert find(ring(), key) == Denied("unknown")


def test_a_longer_text_is_not_cut_to_a_key() -> None:
    longest = "x" * MAX_KEY_CHARS
    keys = KeyRing([credential(longest)], b"s")
    assert isinstance(find(keys, longest), Principal)
    assert find(keys, longest + "y") == Denied("unknown")


def test_a_key_ends_at_its_second() -> None:
    assert find(ring(expires_s=1000.0)) == Denied("expired", "secret")
    assert isinstance(find(ring(expires_s=1000.1)), Principal)


def test_stored_keys_are_known_by_digests_of_their_store_alone() -> None:
    held = [credential("secret", digest=keyed_digest_of("secret", b"pepper"))]
    assert isinstance(find(KeyRing(held, b"s", pepper=b"pepper")), Principal)
    assert find(KeyRing(held, b"s", pepper=b"another")) == Denied("unknown")
    assert find(KeyRing(held, b"s")) == Denied("unknown")


def test_a_key_has_two_numbers_while_it_is_rotated_and_each_ends_by_itself() -> None:
    keys = KeyRing(
        [credential("old", id="k", expires_s=2000.0), credential("new", id="k", number=1)], b"s"
    )
    old, new = find(keys, "old"), find(keys, "new")
    assert isinstance(old, Principal)
    assert isinstance(new, Principal)
    assert (old.id, old.tenant) == (new.id, new.tenant)
    assert (keys.ends_s(old), keys.ends_s(new)) == (2000.0, inf)
    after = KeyRing([credential("new", id="k", number=1)], b"s")
    assert (after.has(old), after.has(new)) == (False, True)


def test_whoever_came_without_a_key_is_in_no_ring() -> None:
    stranger = Principal(tenant="t", role="user", id="secret")
    assert not ring().has(stranger)
    assert ring(expires_s=5.0).ends_s(stranger) == inf


@pytest.mark.parametrize("key", ["\udce4", "pk_\udce4"])
def test_bytes_that_are_no_text_are_nobody_s_key(key: str) -> None:
    assert find(ring(), key) == Denied("unknown")
    assert find(KeyRing([], b"s", pepper=b"p"), key) == Denied("unknown")


@pytest.mark.parametrize(
    ("address", "is_let_in"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("11.0.0.1", False),
        ("fd00::1", True),
        ("fd00::1%eth0", True),
        ("2001:db8::1", False),
        ("", False),
        ("no address", False),
    ],
)
def test_a_key_may_be_bound_to_networks(address: str, is_let_in: bool) -> None:
    found = find(ring(networks=("10.0.0.0/8", "fd00::/8")), address=address)
    assert found == (found if is_let_in else Denied("address", "secret"))
    assert isinstance(found, Principal) == is_let_in
