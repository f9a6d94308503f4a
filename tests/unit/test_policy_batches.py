"""Batches that are split over agents: nothing lost or doubled, in proportion to free capacity."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from balancer.policy.batches import Part, split

COSTS = st.lists(st.integers(1, 5000), max_size=60)
FREE = st.lists(st.integers(0, 40), max_size=8)
LIMITS = st.tuples(st.integers(1, 3000), st.integers(1, 40_000))
UNLIMITED = 10**9


@given(COSTS, FREE, LIMITS)
def test_parts_are_the_first_inputs_in_order_none_twice_one_part_an_agent(
    costs: list[int], free: list[int], limits: tuple[int, int]
) -> None:
    parts = split(costs, free, smallest=limits[0], largest=limits[1])
    ends = [0, *(part.stop for part in parts)]
    assert [part.start for part in parts] == ends[:-1]
    assert all(part.start < part.stop for part in parts)
    assert ends[-1] <= len(costs)
    assert len({part.agent for part in parts}) == len(parts)
    assert all(free[part.agent] > 0 for part in parts)


@given(COSTS, FREE, LIMITS)
def test_there_is_always_a_part_where_there_is_an_input_and_room(
    costs: list[int], free: list[int], limits: tuple[int, int]
) -> None:
    parts = split(costs, free, smallest=limits[0], largest=limits[1])
    assert bool(parts) == bool(costs and any(free))


@given(COSTS, FREE)
def test_without_a_limit_no_input_is_left(costs: list[int], free: list[int]) -> None:
    parts = split(costs, free, smallest=1, largest=UNLIMITED)
    assert not parts or parts[-1].stop == len(costs)


@given(COSTS.filter(bool), FREE.filter(any), LIMITS)
@example([1, 1, 1], [1, 13, 13], (1, 1))
@example([5000, 1, 1], [3, 2, 1], (1, 1))
def test_a_part_costs_its_agent_s_share_give_or_take_one_input(
    costs: list[int], free: list[int], limits: tuple[int, int]
) -> None:
    smallest, largest = limits
    parts = split(costs, free, smallest=smallest, largest=largest)
    able = sorted((room for room in free if room > 0), reverse=True)
    able = able[: max(sum(costs) // smallest, 1)]
    at_once = min(Fraction(sum(costs)), Fraction(largest * sum(able), able[0]))
    by_agent = {part.agent: sum(costs[part.start : part.stop]) for part in parts}
    for agent, cost in by_agent.items():
        share = at_once * free[agent] / sum(able)
        assert abs(cost - share) <= max(costs) + 2
        assert share <= largest


@given(COSTS.filter(bool), FREE.filter(any), st.integers(1, 3000))
def test_a_cheap_batch_goes_to_the_freest_agents_alone(
    costs: list[int], free: list[int], smallest: int
) -> None:
    parts = split(costs, free, smallest=smallest, largest=UNLIMITED)
    used = {part.agent for part in parts}
    assert len(used) <= max(sum(costs) // smallest, 1)
    left_out = [free[agent] for agent in range(len(free)) if agent not in used]
    if len(used) == 1:
        assert free[used.pop()] >= max(left_out, default=0)


@pytest.mark.parametrize(
    ("costs", "free", "parts"),
    [
        ([10] * 8, [4, 4], [Part(0, 0, 4), Part(1, 4, 8)]),
        ([10] * 8, [1, 3], [Part(1, 0, 6), Part(0, 6, 8)]),
        ([10] * 8, [0, 3], [Part(1, 0, 8)]),
        ([70, 10], [1, 1], [Part(0, 0, 1), Part(1, 1, 2)]),
        ([10] * 100, [2, 1], [Part(0, 0, 20), Part(1, 20, 30)]),
        ([5000, 1], [1, 1], [Part(0, 0, 1)]),
        ([5, 4], [3, 3], [Part(0, 0, 2)]),
        ([], [1], []),
        ([1], [], []),
    ],
)
def test_examples(costs: list[int], free: list[int], parts: list[Part]) -> None:
    assert split(costs, free, smallest=10, largest=200) == parts
