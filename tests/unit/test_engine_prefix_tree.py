"""Which holders share which prefix, against a plain dict of rows."""

from __future__ import annotations

from itertools import takewhile

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
)

from agent.engine.prefix_tree import Ints, PrefixTree

SCOPES = ("", "tenant b")
# two token ids, so that rows meet and part often, and one as images have
ROWS = st.lists(st.sampled_from([1, 2, -7]), max_size=9)


def row(*tokens: int) -> Ints:
    return np.array(tokens, np.int32)


def tree(**contents: Ints) -> PrefixTree:
    """Holders named after their numbers, all of one scope: h1=row(1, 2)."""
    made = PrefixTree()
    for name, tokens in contents.items():
        made.put(int(name[1:]), "", tokens)
    return made


def test_everyone_who_begins_alike_is_found_with_the_common_length() -> None:
    made = tree(h1=row(1, 2, 3), h2=row(1, 2, 3, 4, 5), h3=row(1, 2, 9), h4=row(8))
    assert made.matches("", row(1, 2, 3, 4, 6)) == {1: 3, 2: 4, 3: 2}


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ((), {}),
        ((4,), {}),
        ((1,), {1: 1, 2: 1}),
        ((1, 2, 3), {1: 3, 2: 2}),
        ((1, 2, 3, 4), {1: 3, 2: 2}),
        ((1, 2, 9, 9), {1: 2, 2: 2}),
        ((1, 5), {1: 1, 2: 1}),
    ],
)
def test_a_match_ends_with_the_row_asked_for_or_with_what_is_held(
    asked: tuple[int, ...], found: dict[int, int]
) -> None:
    assert tree(h1=row(1, 2, 3), h2=row(1, 2)).matches("", row(*asked)) == found


def test_equal_tokens_of_another_scope_are_not_found() -> None:
    made = tree(h1=row(1, 2, 3))
    made.put(2, "tenant b", row(1, 2, 3))
    assert made.matches("tenant b", row(1, 2, 3)) == {2: 3}
    assert made.matches("tenant c", row(1, 2, 3)) == {}
    assert (made.scope(1), made.scope(2)) == ("", "tenant b")


def test_tokens_of_other_scopes_take_room_of_their_own() -> None:
    made = tree(h1=row(1, 2, 3))
    made.put(2, "tenant b", row(1, 2, 3))
    assert (made.size, made.unique(1), made.unique(2)) == (6, 3, 3)


def test_what_is_shared_counts_once() -> None:
    made = tree(h1=row(1, 2, 3, 4), h2=row(1, 2, 3, 5), h3=row(1, 2, 3, 4))
    assert made.size == 5
    assert [made.unique(holder) for holder in made] == [0, 1, 0]


def test_a_holder_can_be_put_only_once() -> None:
    with pytest.raises(ValueError, match="remove it first"):
        tree(h1=row(1)).put(1, "", row(2))


def test_a_holder_without_tokens_matches_nothing_and_can_grow() -> None:
    made = tree(h1=row())
    assert (1 in made, made.length(1), made.unique(1)) == (True, 0, 0)
    assert made.matches("", row(1)) == {}
    made.extend(1, row(1, 2))
    assert made.matches("", row(1)) == {1: 1}


@pytest.mark.parametrize("unknown", ["length", "scope", "tokens", "unique", "remove"])
def test_an_unknown_holder_is_a_key_error(unknown: str) -> None:
    with pytest.raises(KeyError):
        getattr(tree(h1=row(1)), unknown)(2)


def test_generation_appends_token_by_token() -> None:
    made = tree(h1=row(1, 2))
    for token in range(3, 2000):
        made.extend(1, row(token))
    assert made.tokens(1).tolist() == list(range(1, 2000))
    assert (made.size, made.nodes) == (1999, 2)


def test_twins_that_generate_the_same_share_it_all() -> None:
    made = tree(h1=row(1, 2), h2=row(1, 2))
    for token in range(3, 50):
        made.extend(1, row(token))
        made.extend(2, row(token))
    assert (made.size, made.nodes, made.unique(1)) == (49, 2, 0)


def test_rows_of_any_integer_type_are_taken_as_token_ids() -> None:
    made = tree(h1=np.array([1, 2, 3]))
    made.extend(1, np.array([4, 0, 6, 0, 8])[::2])
    assert made.tokens(1).tolist() == [1, 2, 3, 4, 6, 8]
    assert made.tokens(1).dtype == np.int32


def test_what_is_read_is_a_copy() -> None:
    made = tree(h1=row(1, 2))
    made.tokens(1)[0] = 9
    assert made.tokens(1).tolist() == [1, 2]


def test_the_tree_keeps_no_hold_of_what_was_put() -> None:
    given = row(1, 2, 3)
    made = tree(h1=given)
    given[:] = 9
    assert made.tokens(1).tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("length", "left"), [(9, [1, 2, 3, 4]), (4, [1, 2, 3, 4]), (3, [1, 2, 3]), (1, [1]), (0, [])]
)
def test_trimming_keeps_the_first_tokens_and_the_neighbours_whole(
    length: int, left: list[int]
) -> None:
    made = tree(h1=row(1, 2, 3, 4), h2=row(1, 2, 5), h3=row(1, 2, 3, 4, 6))
    made.trim(1, length)
    assert made.tokens(1).tolist() == left
    assert made.tokens(2).tolist() == [1, 2, 5]
    assert made.tokens(3).tolist() == [1, 2, 3, 4, 6]


def test_a_negative_length_is_our_own_mistake() -> None:
    with pytest.raises(ValueError, match="0 or more"):
        tree(h1=row(1)).trim(1, -1)


def test_nodes_of_a_parting_that_is_gone_are_joined_again() -> None:
    made = tree(h1=row(1, 2, 3, 4))
    made.put(2, "", row(1, 2, 9))
    assert made.nodes == 4
    made.remove(2)
    assert (made.nodes, made.size) == (2, 4)
    made.put(2, "", row(1, 2))
    assert made.nodes == 3
    made.extend(2, row(3, 4))
    assert (made.nodes, made.size) == (2, 4)


def test_an_empty_scope_vanishes() -> None:
    made = tree(h1=row(1, 2, 3), h2=row())
    made.remove(1)
    assert (made.nodes, made.size, list(made)) == (1, 0, [2])
    made.remove(2)
    assert (made.nodes, made.size, list(made)) == (0, 0, [])


def test_a_long_prompt_is_compared_as_far_as_it_goes() -> None:
    base = np.arange(4000, dtype=np.int32)
    made = PrefixTree()
    for holder in range(1, 101):
        own = base.copy()
        own[holder * 40 - 1] = -holder
        made.put(holder, "", own)
    assert made.matches("", base) == {holder: holder * 40 - 1 for holder in range(1, 101)}


def common(one: list[int], other: list[int]) -> int:
    pairs = zip(one, other, strict=False)
    return len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))


class TreeAgainstRows(RuleBasedStateMachine):
    """The tree and, for each holder, its scope and its row."""

    holders = Bundle("holders")

    @initialize()
    def begin(self) -> None:
        self.tree = PrefixTree()
        self.rows: dict[int, tuple[str, list[int]]] = {}
        self.next = 0

    def rows_of(self, scope: str) -> dict[int, list[int]]:
        return {holder: held for holder, (own, held) in self.rows.items() if own == scope}

    def add(self, scope: str, tokens: list[int]) -> int:
        self.next += 1
        self.tree.put(self.next, scope, row(*tokens))
        self.rows[self.next] = (scope, list(tokens))
        return self.next

    @rule(target=holders, scope=st.sampled_from(SCOPES), tokens=ROWS)
    def put(self, scope: str, tokens: list[int]) -> int:
        return self.add(scope, tokens)

    @rule(target=holders, source=holders, more=ROWS)
    def put_what_goes_on_from_another(self, source: int, more: list[int]) -> int:
        scope, tokens = self.rows[source]
        return self.add(scope, tokens + more)

    @rule(holder=holders, tokens=ROWS)
    def extend(self, holder: int, tokens: list[int]) -> None:
        self.tree.extend(holder, row(*tokens))
        self.rows[holder][1].extend(tokens)

    @rule(holder=holders, length=st.integers(0, 12))
    def trim(self, holder: int, length: int) -> None:
        self.tree.trim(holder, length)
        del self.rows[holder][1][length:]

    @rule(holder=consumes(holders))
    def remove(self, holder: int) -> None:
        self.tree.remove(holder)
        del self.rows[holder]

    @rule(scope=st.sampled_from(SCOPES), tokens=ROWS)
    def matches_are_those_of_every_row_compared(self, scope: str, tokens: list[int]) -> None:
        expected = {
            holder: length
            for holder, held in self.rows_of(scope).items()
            if (length := common(held, tokens))
        }
        assert self.tree.matches(scope, row(*tokens)) == expected

    @rule(holder=holders)
    def a_holder_finds_itself_whole(self, holder: int) -> None:
        scope, tokens = self.rows[holder]
        found = self.tree.matches(scope, row(*tokens))
        assert found.get(holder, 0) == len(tokens)

    @invariant()
    def every_row_is_held(self) -> None:
        assert sorted(self.tree) == sorted(self.rows)
        for holder, (scope, tokens) in self.rows.items():
            assert self.tree.tokens(holder).tolist() == tokens
            assert self.tree.length(holder) == len(tokens)
            assert self.tree.scope(holder) == scope

    @invariant()
    def nothing_is_held_twice_and_no_node_is_without_a_reason(self) -> None:
        size = nodes = 0
        for scope in SCOPES:
            rows = [tuple(held) for held in self.rows_of(scope).values()]
            ends = set(rows)
            prefixes = {held[:end] for held in rows for end in range(len(held) + 1)}
            followers = [prefix[:-1] for prefix in prefixes if prefix]
            size += len(followers)
            nodes += sum(
                not prefix or prefix in ends or followers.count(prefix) > 1 for prefix in prefixes
            )
        assert (self.tree.size, self.tree.nodes) == (size, nodes)

    @invariant()
    def unique_is_what_no_other_row_begins_with(self) -> None:
        for holder, (scope, tokens) in self.rows.items():
            others = [held for one, held in self.rows_of(scope).items() if one != holder]
            shared = max((common(tokens, held) for held in others), default=0)
            assert self.tree.unique(holder) == len(tokens) - shared


TreeAgainstRows.TestCase.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
TestTreeAgainstRows = TreeAgainstRows.TestCase
