"""Which agents a token or a client certificate is for."""

from __future__ import annotations

import pytest

from balancer.policy.identity.badge import NO_BADGE, Badge

BY_CERTIFICATE = Badge(
    id="agents", certificate_names=frozenset({"gpu-1", "host-1"}), is_named_by_certificate=True
)


@pytest.mark.parametrize(
    ("badge", "name"),
    [
        (NO_BADGE, "anybody"),
        (Badge(agents=("gpu-1",)), "gpu-1"),
        (Badge(agents=("other", "gpu-*")), "gpu-17"),
        (Badge(agents=("gpu-?",)), "gpu-1"),
        (Badge(labels=(("room", "north"),)), "gpu-1"),
        (BY_CERTIFICATE, "gpu-1"),
        (BY_CERTIFICATE, "host-1"),
        (Badge(certificate_names=frozenset({"other"})), "gpu-1"),
    ],
)
def test_an_agent_may_come_in_with_what_is_for_it(badge: Badge, name: str) -> None:
    assert badge.objection(name, {"room": "north", "size": "big"}) is None


@pytest.mark.parametrize(
    ("badge", "said"),
    [
        (Badge(agents=("gpu-2", "cpu-*")), "agents called gpu-2, cpu-*"),
        (Badge(agents=("gpu-?",)), "called gpu-?"),
        (Badge(agents=("GPU-10",)), "called GPU-10"),
        (Badge(agents=tuple(f"n{i}" for i in range(10))), "n7 and 2 more"),
        (Badge(labels=(("size", "big"), ("room", "south"))), "room=south"),
        (Badge(labels=(("floor", ""),)), "the label floor="),
        (BY_CERTIFICATE, "is for gpu-1, host-1"),
        (Badge(is_named_by_certificate=True), "is for nobody"),
    ],
)
def test_another_agent_is_told_why_it_may_not(badge: Badge, said: str) -> None:
    objection = badge.objection("gpu-10", {"room": "north", "size": "big"})
    assert objection is not None
    assert said in objection
    assert "start" in objection


def test_a_key_is_another_key_and_a_certificate_another_certificate() -> None:
    agents = Badge(id="agents")
    assert agents.is_same(Badge(id="agents", agents=("a",)))
    assert not agents.is_same(Badge(id="others"))
    assert not agents.is_same(NO_BADGE)
    assert not agents.is_same(BY_CERTIFICATE)
    assert BY_CERTIFICATE.is_same(
        Badge(id="agents", certificate_names=frozenset({"host-1", "gpu-1"}))
    )
