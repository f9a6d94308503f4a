"""Every routing policy keeps the same promises; each has a character besides."""

from __future__ import annotations

from collections import Counter
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from balancer.policy.routing import least_busy, round_robin
from balancer.policy.routing.policy import Facts, RoutingPolicy
from balancer.policy.routing.table import POLICIES
from balancer.settings import PolicyName
from protocol.generation import GenerationRequest


class Host(Struct, frozen=True):
    """A candidate that is just data."""

    name: str
    slots_total: int = 4
    slots_free: int = 4
    is_draining: bool = False
    model: str = "demo"

    def serves(self, model: str) -> bool:
        return model == self.model


REQUEST = GenerationRequest(model="demo", prompt="hi")


def facts(ordinal: int = 0) -> Facts:
    return Facts(now_s=1.0, random_bits=7, ordinal=ordinal)


@st.composite
def hosts(draw: st.DrawFn) -> list[Host]:
    fleet = []
    for index in range(draw(st.integers(0, 6))):
        total = draw(st.integers(0, 8))
        fleet.append(
            Host(
                name=f"host-{index}",
                slots_total=total,
                slots_free=draw(st.integers(0, total)),
                is_draining=draw(st.booleans()),
                model=draw(st.sampled_from(["demo", "other"])),
            )
        )
    return fleet


every_policy = pytest.mark.parametrize("choose", POLICIES.values(), ids=list(POLICIES))


def test_the_table_has_every_name_that_the_setting_takes() -> None:
    assert set(POLICIES) == set(get_args(PolicyName))


@every_policy
@given(fleet=hosts(), ordinal=st.integers(0, 100))
def test_a_choice_could_start_now_and_none_means_that_nobody_could(
    choose: RoutingPolicy, fleet: list[Host], ordinal: int
) -> None:
    usable = [
        host for host in fleet if host.slots_free and not host.is_draining and host.model == "demo"
    ]
    choice = choose(REQUEST, fleet, facts(ordinal))
    assert choice in usable if usable else choice is None


@every_policy
@given(fleet=hosts(), ordinal=st.integers(0, 100))
def test_the_same_facts_give_the_same_choice(
    choose: RoutingPolicy, fleet: list[Host], ordinal: int
) -> None:
    assert choose(REQUEST, fleet, facts(ordinal)) == choose(REQUEST, fleet, facts(ordinal))


@every_policy
def test_an_empty_fleet_gives_none(choose: RoutingPolicy) -> None:
    assert choose(REQUEST, [], facts()) is None


@every_policy
def test_equal_agents_take_turns(choose: RoutingPolicy) -> None:
    fleet = [Host("a"), Host("b"), Host("c")]
    chosen = Counter(
        host.name for turn in range(9) if (host := choose(REQUEST, fleet, facts(turn)))
    )
    assert chosen == {"a": 3, "b": 3, "c": 3}


def test_least_busy_compares_shares_of_slots_not_counts() -> None:
    large, small = Host("large", slots_total=16, slots_free=6), Host("small", slots_free=2)
    assert least_busy.choose(REQUEST, [large, small], facts()) is small


def test_round_robin_passes_over_a_full_agent_without_shifting_the_others() -> None:
    fleet = [Host("a"), Host("b", slots_free=0), Host("c")]
    turns = [round_robin.choose(REQUEST, fleet, facts(turn)) for turn in range(6)]
    assert [host.name for host in turns if host] == ["a", "c", "c", "a", "c", "c"]
