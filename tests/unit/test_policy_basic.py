"""Names and passwords, before they are compared and after."""

from __future__ import annotations

from base64 import b64encode

import pytest

from balancer.access import PasswordHolder
from balancer.policy.identity.basic import MAX_GIVEN_CHARS, Attempt, PasswordRing
from balancer.policy.identity.keyring import Denied
from balancer.policy.identity.principal import Principal
from balancer.secret import Secret
from tests.support.keys import credential

NOT_KNOWN = Denied("unknown", kind="password")


def given(text: str) -> str:
    return b64encode(text.encode()).decode()


def ring() -> PasswordRing:
    return PasswordRing(
        [
            PasswordHolder(
                name=name,
                password_hash=Secret(f"hash of {name}"),
                credential=credential(f"basic:{name}", tenant=name, **facts),
            )
            for name, facts in (
                ("ci", {"role": "admin"}),
                ("far", {"networks": ("10.0.0.0/8",)}),
                ("old", {"expires_s": 10.0}),
            )
        ],
        b"secret",
    )


def principal(name: str) -> Principal:
    found = ring().attempt(given(f"{name}:pw"))
    assert isinstance(found, Attempt)
    assert isinstance(found.found, Principal)
    return found.found


def test_a_password_is_compared_with_the_hash_of_its_name() -> None:
    found = ring().attempt(given("ci:a:b"))
    assert isinstance(found, Attempt)
    assert (found.password, found.password_hash) == ("a:b", "hash of ci")
    assert (principal("ci").role, principal("ci").id) == ("admin", "basic:ci")
    assert principal("ci").key_number is None


def test_a_name_that_nobody_has_is_compared_with_a_hash_that_never_lets_it_in() -> None:
    hashes = set()
    for name in map(str, range(50)):
        first, second = ring().attempt(given(f"{name}:a")), ring().attempt(given(f"{name}:b"))
        assert isinstance(first, Attempt)
        assert isinstance(second, Attempt)
        assert first.found == second.found == NOT_KNOWN
        assert first.password_hash == second.password_hash
        hashes.add(first.password_hash)
    assert hashes == {"hash of ci", "hash of far", "hash of old"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "!",
        given("no colon"),
        b64encode(b"ci:\xff").decode(),
        given("ci:" + "x" * MAX_GIVEN_CHARS),
        "Y2k6cHc",  # without its padding
    ],
)
def test_what_is_no_name_and_password_is_not_compared(text: str) -> None:
    assert ring().attempt(text) == Denied("form", kind="password")


def test_networks_and_ends_bind_whose_password_is_right() -> None:
    keys = ring()

    def check(name: str, address: str, unix_s: float) -> Principal | Denied:
        return keys.check(principal(name), address=address, unix_s=unix_s)

    assert check("ci", "192.0.2.1", 0) == principal("ci")
    assert check("far", "10.1.2.3", 0) == principal("far")
    assert check("far", "192.0.2.1", 0) == Denied("address", "basic:far", kind="password")
    assert check("old", "192.0.2.1", 9.9) == principal("old")
    assert check("old", "192.0.2.1", 10) == Denied("expired", "basic:old", kind="password")
    assert keys.check(NOT_KNOWN, address="192.0.2.1", unix_s=0) == NOT_KNOWN
