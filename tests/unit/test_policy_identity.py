"""What a principal may ask for."""

from __future__ import annotations

import pytest

from balancer.policy.identity.principal import Principal, Role
from protocol.generation import MAX_PRIORITY


@pytest.mark.parametrize(
    ("role", "highest"),
    [("public", 0), ("user", 0), ("admin", MAX_PRIORITY), ("system", MAX_PRIORITY)],
)
def test_only_who_runs_the_system_lets_others_give_way(role: Role, highest: int) -> None:
    assert Principal(tenant="t", role=role).highest_priority == highest
