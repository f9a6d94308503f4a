"""Whose cached tokens a request may use."""

from __future__ import annotations

import pytest

from balancer.access import CacheIsolation
from balancer.policy.isolation import is_isolated, scope_of

SECRET, OTHER_SECRET = b"s" * 32, b"t" * 32
LONGEST_ON_THE_LINK = 128


@pytest.mark.parametrize(
    ("mode", "is_open", "isolated"),
    [
        ("auto", True, False),
        ("auto", False, True),
        ("tenant", True, True),
        ("tenant", False, True),
        ("off", True, False),
        ("off", False, False),
    ],
)
def test_tenants_are_kept_apart_as_soon_as_there_are_any(
    mode: CacheIsolation, is_open: bool, isolated: bool
) -> None:
    assert is_isolated(mode, is_open=is_open) is isolated


def test_a_tenant_s_scope_stays_the_same_and_is_its_own() -> None:
    scopes = {scope_of(tenant, SECRET) for tenant in ("a", "b", "", "key:a", "A", "\ud800")}
    assert len(scopes) == 6
    assert scope_of("a", SECRET) == scope_of("a", SECRET)


def test_a_scope_tells_nothing_to_whoever_has_not_the_secret() -> None:
    tenant = "a team of ours" * 100
    scope = scope_of(tenant, SECRET)
    assert tenant not in scope
    assert scope != scope_of(tenant, OTHER_SECRET)
    assert 0 < len(scope) <= LONGEST_ON_THE_LINK
