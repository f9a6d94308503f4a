"""What a principal may ask for."""

from __future__ import annotations

import pytest

from balancer.policy.identity.principal import Principal, Role, has_role, may_use
from protocol.generation import MAX_PRIORITY


@pytest.mark.parametrize(
    ("role", "highest"),
    [("public", 0), ("user", 0), ("admin", MAX_PRIORITY), ("system", MAX_PRIORITY)],
)
def test_only_who_runs_the_system_lets_others_give_way(role: Role, highest: int) -> None:
    assert Principal(tenant="t", role=role).highest_priority == highest


@pytest.mark.parametrize(
    ("role", "may"),
    [
        ("public", {"public"}),
        ("user", {"public", "user"}),
        ("admin", {"public", "user", "admin"}),
        ("system", {"public", "user", "admin", "system"}),
    ],
)
def test_a_role_may_do_what_lower_ones_may(role: Role, may: set[str]) -> None:
    principal = Principal(tenant="t", role=role)
    needed: tuple[Role, ...] = ("public", "user", "admin", "system")
    assert {one for one in needed if has_role(principal, one)} == may


def test_a_key_of_some_models_may_use_these_alone() -> None:
    some = Principal(tenant="t", role="user", models=("a", "b"))
    assert [may_use(some, name) for name in ("a", "c", None)] == [True, False, False]
    assert may_use(Principal(tenant="t", role="user"), None)
