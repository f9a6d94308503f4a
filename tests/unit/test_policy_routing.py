"""Every routing policy keeps the same promises; each has a character besides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct, structs

from balancer.policy.rates import Rates
from balancer.policy.routing import (
    latency,
    least_busy,
    power_of_two,
    prefix_aware,
    round_robin,
)
from balancer.policy.routing.policy import Facts, RoutingPolicy, can_start
from balancer.policy.routing.table import POLICIES
from balancer.settings import PolicyName
from protocol.generation import GenerationRequest
from protocol.prefix_chain import HASH_BYTES


class Host(Struct, frozen=True):
    """A candidate that is just data."""

    name: str
    slots_total: int = 4
    slots_free: int = 4
    is_draining: bool = False
    model: str = "demo"
    cached_blocks: int = 0
    rates: Rates = Rates()

    def serves(self, model: str) -> bool:
        return model == self.model

    def matched_blocks(self, chain: bytes) -> int:
        return min(self.cached_blocks, len(chain) // HASH_BYTES)


REQUEST = GenerationRequest(model="demo", prompt="hi")


def facts(ordinal: int = 0, *, blocks: int = 0) -> Facts:
    bits = Random(ordinal).getrandbits(64)
    return Facts(now_s=1.0, random_bits=bits, ordinal=ordinal, chain=bytes(blocks * HASH_BYTES))


def measured(*, block_ms: float = 50.0, service_ms: float = 2000.0, blocks: int = 10) -> Rates:
    rates = Rates()
    rates.note(blocks=blocks, prefill_ms=blocks * block_ms, decode_ms=service_ms)
    return rates


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
                cached_blocks=draw(st.sampled_from([0, 0, 3, 20, 40])),
                rates=draw(st.sampled_from([Rates(), measured(), measured(block_ms=5.0)])),
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
def test_equal_agents_get_equally_much(choose: RoutingPolicy) -> None:
    fleet = [Host("a"), Host("b"), Host("c")]
    chosen = Counter(
        host.name for turn in range(900) if (host := choose(REQUEST, fleet, facts(turn)))
    )
    most = 0 if choose is not power_of_two.choose else 60
    assert all(abs(count - 300) <= most for count in chosen.values())


@every_policy
@given(fleet=hosts(), ordinal=st.integers(0, 100), blocks=st.integers(0, 40))
def test_what_is_known_of_all_gives_the_same_choice_as_asking_each(
    choose: RoutingPolicy, fleet: list[Host], ordinal: int, blocks: int
) -> None:
    asking = facts(ordinal, blocks=blocks)
    told = {host.name: count for host in fleet if (count := host.matched_blocks(asking.chain))}
    assert choose(REQUEST, fleet, structs.replace(asking, matched=told)) == choose(
        REQUEST, fleet, asking
    )


def least_busy_cost(host: Host, _facts: Facts) -> float:
    return 1 - host.slots_free / host.slots_total


def latency_cost(host: Host, facts: Facts) -> tuple[float, float]:
    share = least_busy_cost(host, facts)
    return host.rates.latency_ms * (1 + share), share


def prefix_aware_cost(host: Host, facts: Facts) -> float:
    missing = facts.blocks - host.matched_blocks(facts.chain)
    waiting_ms = least_busy_cost(host, facts) * host.rates.service_ms
    return missing * host.rates.block_ms + waiting_ms


@pytest.mark.parametrize(
    ("choose", "cost"),
    [
        (least_busy.choose, least_busy_cost),
        (latency.choose, latency_cost),
        (prefix_aware.choose, prefix_aware_cost),
    ],
    ids=["least_busy", "latency", "prefix_aware"],
)
@given(fleet=hosts(), ordinal=st.integers(0, 100), blocks=st.integers(0, 40))
def test_nobody_costs_less_than_the_chosen_one_and_those_who_cost_as_much_take_turns(
    choose: RoutingPolicy,
    cost: Callable[[Host, Facts], Any],
    fleet: list[Host],
    ordinal: int,
    blocks: int,
) -> None:
    known = facts(ordinal, blocks=blocks)
    able = [host for host in fleet if can_start(host, "demo")]
    cheapest = [host for host in able if all(cost(host, known) <= cost(one, known) for one in able)]
    choice = choose(REQUEST, fleet, known)
    assert choice in cheapest if cheapest else choice is None
    if cheapest and all(host.model == "demo" for host in fleet):
        assert choice is cheapest[ordinal % len(cheapest)]


def test_least_busy_compares_shares_of_slots_not_counts() -> None:
    large, small = Host("large", slots_total=16, slots_free=6), Host("small", slots_free=2)
    assert least_busy.choose(REQUEST, [large, small], facts()) is small


def test_round_robin_passes_over_a_full_agent_without_shifting_the_others() -> None:
    fleet = [Host("a"), Host("b", slots_free=0), Host("c")]
    turns = [round_robin.choose(REQUEST, fleet, facts(turn)) for turn in range(6)]
    assert [host.name for host in turns if host] == ["a", "c", "c", "a", "c", "c"]


def test_the_agent_with_the_longest_cached_prefix_is_chosen() -> None:
    fleet = [Host("a"), Host("b", cached_blocks=80, slots_free=2), Host("c", cached_blocks=30)]
    assert prefix_aware.choose(REQUEST, fleet, facts(blocks=100)) is fleet[1]


def test_where_nothing_is_cached_prefix_aware_is_least_busy() -> None:
    fleet = [Host("a", slots_free=1), Host("b", slots_free=3), Host("c", slots_free=2)]
    for blocks in (0, 50):
        assert prefix_aware.choose(REQUEST, fleet, facts(blocks=blocks)) is fleet[1]


def test_a_short_cached_prefix_is_not_worth_the_company_of_many() -> None:
    busy, idle = Host("busy", slots_free=1, cached_blocks=2), Host("idle")
    assert prefix_aware.choose(REQUEST, [busy, idle], facts(blocks=2)) is idle
    busy = Host("busy", slots_free=1, cached_blocks=60)
    assert prefix_aware.choose(REQUEST, [busy, idle], facts(blocks=60)) is busy


def test_blocks_weigh_what_they_take_on_each_agent() -> None:
    slow = Host("slow", rates=measured(block_ms=400), cached_blocks=5)
    fast = Host("fast", rates=measured(block_ms=10))
    assert prefix_aware.choose(REQUEST, [slow, fast], facts(blocks=20)) is fast


def test_of_two_drawn_the_less_busy_one_is_taken() -> None:
    fleet = [Host("a", slots_free=1), Host("b", slots_free=4)]
    turns = {power_of_two.choose(REQUEST, fleet, facts(turn)) for turn in range(20)}
    assert turns == {fleet[1]}


def test_latency_prefers_who_was_quick_and_tries_who_was_never_measured() -> None:
    quick = Host("quick", rates=measured(block_ms=10), slots_free=3)
    slow = Host("slow", rates=measured(block_ms=90))
    assert latency.choose(REQUEST, [slow, quick], facts()) is quick
    new = Host("new", slots_free=1)
    assert latency.choose(REQUEST, [slow, quick, new], facts()) is new


def test_rates_follow_what_agents_report_and_ignore_prompts_that_were_cached() -> None:
    rates = Rates()
    rates.note(blocks=0.0, prefill_ms=3.0, decode_ms=100.0)
    assert rates.block_ms == 50.0
    rates.note(blocks=10.0, prefill_ms=200.0, decode_ms=100.0)
    assert (rates.block_ms, rates.service_ms) == (20.0, 100.0)
    rates.note(blocks=10.0, prefill_ms=400.0, decode_ms=200.0)
    assert (rates.block_ms, rates.service_ms) == (20.4, 110.0)


def test_prompts_that_stood_behind_others_hardly_make_an_agent_seem_slow() -> None:
    rates = measured(block_ms=20.0)
    for _ in range(5):
        rates.note(blocks=10.0, prefill_ms=2000.0, decode_ms=100.0)
    assert rates.block_ms < 40.0
    for _ in range(5):
        rates.note(blocks=10.0, prefill_ms=200.0, decode_ms=100.0)
    assert rates.block_ms < 21.0
    for _ in range(500):
        rates.note(blocks=10.0, prefill_ms=2000.0, decode_ms=100.0)
    assert rates.block_ms > 190.0
