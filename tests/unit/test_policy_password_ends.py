"""Until when somebody may sign in with a name and a password."""

from __future__ import annotations

from math import inf

from balancer.access import PasswordHolder
from balancer.policy.identity.basic import PasswordRing
from balancer.policy.identity.keyring import principal_of
from balancer.policy.identity.principal import Principal
from balancer.secret import Secret
from tests.support.keys import credential

BRIEF, LASTING = credential("basic:brief", expires_s=10.0), credential("basic:lasting")


def test_a_password_ends_when_it_was_said_and_nothing_is_said_of_others() -> None:
    ring = PasswordRing(
        [
            PasswordHolder(name=one.id, password_hash=Secret("hash"), credential=one)
            for one in (BRIEF, LASTING)
        ],
        b"secret",
    )
    assert ring.ends_s(principal_of(BRIEF, "basic")) == 10.0
    assert ring.ends_s(principal_of(LASTING, "basic")) == inf
    assert ring.ends_s(Principal(tenant="t", role="user", id="basic:brief")) == inf
    assert ring.ends_s(Principal(tenant="t", role="user", id="nobody")) == inf
