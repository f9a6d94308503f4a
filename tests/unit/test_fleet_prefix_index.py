"""One look-up of a chain for all agents says of each what its own blocks say."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from balancer.fleet.prefix_index import PrefixIndex
from protocol.prefix_chain import HASH_BYTES, MAX_BLOCKS

blocks_of_agents = st.dictionaries(
    st.text("abcdefgh", min_size=1, max_size=1), st.sets(st.integers(0, 12))
)
chains = st.lists(st.integers(0, 12), unique=True)


def block(number: int) -> bytes:
    return number.to_bytes(HASH_BYTES, "big")


def packed(*numbers: int) -> bytes:
    return b"".join(map(block, numbers))


def index_of(fleet: dict[str, set[int]]) -> PrefixIndex:
    index = PrefixIndex()
    for name, numbers in fleet.items():
        index.add(map(block, numbers), index.enter(name))
    return index


class CountingChain(bytes):
    """A chain that counts how often one of its blocks is looked at."""

    looks = 0

    def __getitem__(self, key: Any) -> Any:
        self.looks += 1
        return super().__getitem__(key)


@given(chains, st.dictionaries(st.text("abcdefgh", min_size=1, max_size=1), st.integers(0, 13)))
def test_each_agent_matches_the_blocks_that_it_holds_from_the_first_on(
    chain: list[int], lengths: dict[str, int]
) -> None:
    index = index_of({name: set(chain[:length]) for name, length in lengths.items()})
    expected = {name: min(length, len(chain)) for name, length in lengths.items()}
    assert index.matched_blocks(packed(*chain)) == {
        name: length for name, length in expected.items() if length
    }


@given(chains, blocks_of_agents)
def test_where_blocks_are_missing_in_between_it_is_a_border_that_there_is(
    chain: list[int], fleet: dict[str, set[int]]
) -> None:
    matched = index_of(fleet).matched_blocks(packed(*chain))
    for name, held in fleet.items():
        count = matched.get(name, 0)
        assert count == 0 or chain[count - 1] in held
        assert count == len(chain) or chain[count] not in held


@given(chains, blocks_of_agents)
def test_what_one_agent_holds_changes_nothing_for_another(
    chain: list[int], fleet: dict[str, set[int]]
) -> None:
    together = index_of(fleet).matched_blocks(packed(*chain))
    alone = [index_of({name: held}).matched_blocks(packed(*chain)) for name, held in fleet.items()]
    assert together == {name: count for one in alone for name, count in one.items()}


@given(blocks_of_agents, st.data())
def test_who_left_is_as_if_it_had_never_come(
    fleet: dict[str, set[int]], data: st.DataObject
) -> None:
    index = PrefixIndex()
    bits = {name: index.enter(name) for name in fleet}
    for name, bit in bits.items():
        index.add(map(block, fleet[name]), bit)
    gone = data.draw(st.sets(st.sampled_from(sorted(fleet)))) if fleet else set()
    for name in gone:
        index.discard(map(block, fleet[name]), bits[name])
        index.leave(bits[name])
    newcomers = {f"new {name}": {0, 1} for name in sorted(gone)}
    for name, numbers in newcomers.items():
        index.add(map(block, numbers), index.enter(name))
    left = {name: held for name, held in fleet.items() if name not in gone} | newcomers
    for number in range(13):
        here = {name: 1 for name, held in left.items() if number in held}
        assert index.matched_blocks(block(number)) == here
    assert len(index) == len(set().union(*left.values()))


def test_the_longest_chain_takes_a_dozen_look_ups_however_many_agents_hold_it() -> None:
    numbers = range(MAX_BLOCKS)
    index = index_of({f"agent {one}": set(numbers) for one in range(20)})
    chain = CountingChain(packed(*numbers))
    assert set(index.matched_blocks(chain).values()) == {MAX_BLOCKS}
    assert 0 < chain.looks <= 13


def test_each_other_length_that_is_found_takes_a_dozen_look_ups_at_most() -> None:
    lengths = {f"agent {one}": 1 + 700 * (one % 5) for one in range(50)}
    index = index_of({name: set(range(length)) for name, length in lengths.items()})
    chain = CountingChain(packed(*range(MAX_BLOCKS)))
    assert index.matched_blocks(chain) == lengths
    assert 0 < chain.looks <= 13 * 5
