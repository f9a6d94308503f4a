"""Where a new call's first tokens come from, and what gives way to it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from agent.engine.media_ids import media_ids
from agent.engine.prefix_cache import (
    FIRST_ENTRY,
    WARM_SCOPE,
    MemoryKind,
    Placement,
    PrefixCache,
)

Ints = NDArray[np.int32]
NOBODY: frozenset[int] = frozenset()


def tokens(*runs: tuple[int, int]) -> Ints:
    """Runs of so many tokens, from a number on: equal runs, equal tokens."""
    parts = [np.arange(first, first + count, dtype=np.int32) for first, count in runs]
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.int32)


SYSTEM = (1000, 400)
ALICE, BOB = (5000, 100), (6000, 100)


def cache(
    sequences: int = 4, *, kind: MemoryKind = "ranged", host_bytes: int = 0, sharing: bool = True
) -> PrefixCache:
    return PrefixCache(sequences=sequences, kind=kind, host_bytes=host_bytes, sharing=sharing)


def started(made: PrefixCache, prompt: Ints, scope: str = "") -> Placement:
    """Place a call whose prompt is in the cache at once."""
    placement = made.place(scope, prompt, NOBODY)
    assert placement is not None
    made.begin(placement, scope, prompt, len(prompt))
    return placement


def ran(made: PrefixCache, prompt: Ints, answer: Ints, scope: str = "") -> int:
    """A call from beginning to end; its sequence."""
    sequence = started(made, prompt, scope).sequence
    made.end(sequence, np.concatenate((prompt, answer)))
    return sequence


def test_a_conversation_goes_on_where_it_is() -> None:
    made = cache()
    question, answer = tokens(SYSTEM, ALICE), tokens((1, 30))
    sequence = ran(made, question, answer)
    placement = made.place("", np.concatenate((question, answer, tokens(BOB))), NOBODY)
    assert placement == Placement(sequence, cached=530)


def test_a_shared_prefix_is_copied_so_that_the_other_conversation_keeps_its_own() -> None:
    made = cache()
    first = ran(made, tokens(SYSTEM, ALICE), tokens((1, 30)))
    placement = made.place("", tokens(SYSTEM, BOB), NOBODY)
    assert placement is not None
    assert (placement.source, placement.cached) == (first, 400)
    assert placement.sequence != first


def test_a_little_is_not_copied_from_a_long_sequence_that_would_be_moved_as_a_whole() -> None:
    long = tokens(SYSTEM, (10_000, 12_000))
    prompt = np.concatenate((long[:20], tokens(BOB)))
    for shares_cells, cached in ((False, 0), (True, 20)):
        made = PrefixCache(sequences=2, shares_cells=shares_cells, sharing=True)
        ran(made, long, tokens())
        placement = made.place("", prompt, NOBODY)
        assert placement is not None
        assert placement.cached == cached


def test_an_entry_of_no_use_is_discarded() -> None:
    made = cache(host_bytes=1000)
    entry, _ = made.enter("", tokens(SYSTEM), 300)
    assert entry is not None
    placement = made.place("", tokens(SYSTEM, BOB), NOBODY)
    assert placement is not None
    assert placement.source == entry
    made.discard(entry)
    made.begin(placement, "", tokens(SYSTEM, BOB), 0)
    made.progressed(placement.sequence, 10)
    again = made.place("", tokens(SYSTEM, ALICE), NOBODY)
    assert again is not None
    assert (again.source, made.host_bytes_used) == (placement.sequence, 0)


def with_image(*runs: tuple[int, int]) -> Ints:
    """An image of 100 tokens behind the system prompt, then these."""
    return np.concatenate((tokens(SYSTEM), media_ids(b"image", 100), tokens(*runs)))


@pytest.mark.parametrize(("had", "cached"), [(399, 399), (400, 400), (450, 400), (500, 500)])
def test_an_image_is_kept_as_a_whole_or_not_at_all(had: int, cached: int) -> None:
    made = cache()
    ran(made, with_image()[:had], tokens())
    placement = made.place("", with_image(ALICE), NOBODY)
    assert placement is not None
    assert placement.cached == cached


def test_an_image_that_ends_the_prompt_is_prefilled_again_as_a_whole() -> None:
    made = cache()
    ran(made, with_image(), tokens())
    placement = made.place("", with_image(), NOBODY)
    assert placement is not None
    assert placement.cached == 400


def test_who_waits_for_a_prefix_takes_no_part_of_an_image() -> None:
    made = cache()
    first = made.place("", with_image(ALICE), NOBODY)
    assert first is not None
    made.begin(first, "", with_image(ALICE), 0)
    made.progressed(first.sequence, 450)
    second = made.place("", with_image(BOB), frozenset({first.sequence}))
    assert second is not None
    assert (second.cached, second.wait_for, second.wait_tokens) == (400, first.sequence, 500)
    made.begin(second, "", with_image(BOB), 0)
    assert made.source_for(second.sequence, with_image(BOB)) == (first.sequence, 400)
    made.progressed(second.sequence, 400)
    assert made.source_for(second.sequence, with_image(BOB)) is None


def test_at_least_the_last_token_is_left_to_prefill() -> None:
    made = cache()
    prompt = tokens(SYSTEM)
    ran(made, prompt, tokens((1, 5)))
    placement = made.place("", prompt, NOBODY)
    assert placement is not None
    assert placement.cached == len(prompt) - 1


def test_a_running_call_lends_what_it_has_so_far() -> None:
    made = cache()
    running = started(made, tokens(SYSTEM, ALICE))
    placement = made.place("", tokens(SYSTEM, BOB), NOBODY)
    assert placement is not None
    assert (placement.source, placement.cached) == (running.sequence, 400)


def test_a_prefix_that_is_being_prefilled_is_waited_for() -> None:
    made = cache()
    first = started(made, tokens(SYSTEM, ALICE)).sequence
    made.progressed(first, 100)
    placement = made.place("", tokens(SYSTEM, BOB), frozenset({first}))
    assert placement is not None
    assert (placement.cached, placement.wait_for, placement.wait_tokens) == (100, first, 400)
    made.begin(placement, "", tokens(SYSTEM, BOB), 100)
    made.progressed(first, 500)
    assert made.source_for(placement.sequence, tokens(SYSTEM, BOB)) == (first, 400)


def test_a_short_prefix_is_computed_rather_than_waited_for() -> None:
    made = cache()
    first = started(made, tokens((1, 20), ALICE)).sequence
    made.progressed(first, 0)
    placement = made.place("", tokens((1, 20), BOB), frozenset({first}))
    assert placement is not None
    assert placement.wait_for is None


def test_nobody_waits_for_a_prefix_that_stands_still() -> None:
    made = cache()
    made.progressed(started(made, tokens(SYSTEM, ALICE)).sequence, 10)
    placement = made.place("", tokens(SYSTEM, BOB), NOBODY)
    assert placement is not None
    assert placement.wait_for is None


def test_equal_tokens_in_another_scope_share_nothing() -> None:
    made = cache()
    ran(made, tokens(SYSTEM, ALICE), tokens(), scope="alice")
    placement = made.place("bob", tokens(SYSTEM, ALICE), NOBODY)
    assert placement is not None
    assert (placement.cached, placement.source, placement.wait_for) == (0, None, None)


def test_a_prompt_that_is_kept_warm_is_found_from_every_scope_that_asks_for_it() -> None:
    made = cache()
    warm = ran(made, tokens(SYSTEM), tokens(), scope=WARM_SCOPE)
    ran(made, tokens(SYSTEM, ALICE), tokens(), scope="alice")
    prompt = tokens(SYSTEM, ALICE, BOB)
    placement = made.place("bob", prompt, NOBODY, with_warm=True)
    assert placement is not None
    assert placement.cached == len(tokens(SYSTEM))
    assert warm in (placement.sequence, placement.source)
    without = made.place("bob", prompt, NOBODY)
    assert without is not None
    assert without.cached == 0


def test_a_call_waits_for_a_prompt_that_is_just_being_warmed_and_gets_it() -> None:
    made = cache()
    prompt = tokens(SYSTEM, BOB)
    warming = made.place(WARM_SCOPE, tokens(SYSTEM), NOBODY)
    assert warming is not None
    made.begin(warming, WARM_SCOPE, tokens(SYSTEM), 0)
    coming = frozenset({warming.sequence})
    placement = made.place("bob", prompt, coming, with_warm=True)
    assert placement is not None
    assert placement.wait_for == warming.sequence
    made.begin(placement, "bob", prompt, 0)
    made.progressed(warming.sequence, len(tokens(SYSTEM)))
    found = made.source_for(placement.sequence, prompt, with_warm=True)
    assert found == (warming.sequence, len(tokens(SYSTEM)))
    assert made.source_for(placement.sequence, prompt) is None


def test_the_least_used_conversation_gives_way() -> None:
    made = cache(sequences=3)
    often = tokens((100, 300))
    sequences = [ran(made, often, tokens()), ran(made, tokens((900, 300)), tokens())]
    for _ in range(3):
        started(made, often)
        made.end(sequences[0], often)
    ran(made, tokens((2000, 300)), tokens())
    placement = made.place("", tokens((4000, 300)), NOBODY)
    assert placement is not None
    assert placement.sequence != sequences[0]


def test_without_an_idle_sequence_there_is_no_place() -> None:
    made = cache(sequences=1)
    started(made, tokens(ALICE))
    assert made.place("", tokens(BOB), NOBODY) is None


def test_without_sharing_every_call_starts_from_nothing() -> None:
    made = cache(sharing=False)
    ran(made, tokens(SYSTEM), tokens((1, 9)))
    placement = made.place("", tokens(SYSTEM, BOB), NOBODY)
    assert placement == Placement(0, cached=0)
    assert made.tree.size == 0


def test_what_gives_way_is_saved_if_there_is_host_memory_and_it_is_worth_it() -> None:
    made = cache(sequences=1, host_bytes=1000)
    ran(made, tokens(SYSTEM), tokens())
    placement = made.place("", tokens(BOB), NOBODY)
    assert placement is not None
    assert placement.saves
    made = cache(sequences=1, host_bytes=1000)
    ran(made, tokens((1, 20)), tokens())
    placement = made.place("", tokens(BOB), NOBODY)
    assert placement is not None
    assert not placement.saves


def test_a_saved_prefix_comes_back() -> None:
    made = cache(sequences=1, host_bytes=1000)
    entry, gone = made.enter("", tokens(SYSTEM, ALICE), 700)
    placement = made.place("", tokens(SYSTEM, BOB), NOBODY)
    assert entry == FIRST_ENTRY
    assert gone == []
    assert placement is not None
    assert (placement.source, placement.cached) == (entry, 400)


def test_host_memory_is_bounded_and_pinned_entries_go_last() -> None:
    made = cache(host_bytes=1000)
    entries = []
    for first in (0, 1000, 2000):
        entry, gone = made.enter("", tokens((first, 100)), 300)
        assert entry is not None
        assert gone == []
        entries.append(entry)
    made.pin(entries[0])
    assert made.enter("", tokens((9000, 100)), 400)[1] == [entries[1]]
    assert made.host_bytes_used == 1000
    assert made.enter("", tokens((9900, 100)), 1001) == (None, [])


def test_the_least_valuable_idle_sequence_is_evicted_first_and_empty_ones_never() -> None:
    made = cache(sequences=3)
    assert made.to_evict() is None
    first = ran(made, tokens(ALICE), tokens())
    second = ran(made, tokens(BOB), tokens())
    assert made.to_evict() == first
    made.drop(first)
    assert made.to_evict() == second
    made.drop(second)
    assert made.to_evict() is None


def test_a_memory_that_cannot_be_cut_shares_whole_contents_only() -> None:
    made = cache(kind="whole")
    prompt, answer = tokens(SYSTEM, ALICE), tokens((1, 30))
    sequence = ran(made, prompt, answer)
    parting = made.place("", tokens(SYSTEM, BOB), NOBODY)
    going_on = made.place("", np.concatenate((prompt, answer, tokens(BOB))), NOBODY)
    assert parting is not None
    assert going_on is not None
    assert parting.cached == 0
    assert (going_on.sequence, going_on.cached) == (sequence, 530)


def test_a_memory_that_cannot_be_cut_learns_where_prompts_part() -> None:
    made = cache(kind="whole", host_bytes=1000)
    ran(made, tokens(SYSTEM, ALICE), tokens((1, 30)))
    second = tokens(SYSTEM, BOB)
    placement = made.place("", second, NOBODY)
    assert placement is not None
    assert placement.stops == (400, 499)
    entry, _ = made.enter("", second[:400], 100)
    third = made.place("", tokens(SYSTEM, (7000, 50)), NOBODY)
    assert third is not None
    assert (third.source, third.cached, third.stops) == (entry, 400, (449,))


def test_no_state_is_kept_of_a_short_prompt() -> None:
    made = cache(kind="whole", host_bytes=1000)
    for count, stops in ((64, ()), (65, (64,))):
        placement = made.place("", tokens((1, count)), NOBODY)
        assert placement is not None
        assert placement.stops == stops


def test_a_memory_that_cannot_be_cut_is_waited_for_until_it_has_passed_the_parting() -> None:
    made = cache(kind="whole", host_bytes=1000)
    first = started(made, tokens(SYSTEM, ALICE)).sequence
    second = tokens(SYSTEM, BOB)
    for ready, cached, wait_for in ((300, 300, first), (400, 400, None), (401, 0, None)):
        made.progressed(first, ready)
        placement = made.place("", second, frozenset({first}))
        assert placement is not None
        assert (placement.cached, placement.wait_for) == (cached, wait_for)
    unable = cache(kind="whole")
    first = started(unable, tokens(SYSTEM, ALICE)).sequence
    unable.progressed(first, 10)
    placement = unable.place("", second, frozenset({first}))
    assert placement is not None
    assert placement.wait_for is None


def test_without_host_memory_nothing_is_learnt_and_nobody_stops() -> None:
    made = cache(kind="whole")
    ran(made, tokens(SYSTEM, ALICE), tokens((1, 30)))
    placement = made.place("", tokens(SYSTEM, BOB), NOBODY)
    assert placement is not None
    assert placement.stops == ()


def test_a_saved_state_of_a_window_is_of_use_as_a_whole_or_if_it_is_shorter() -> None:
    made = PrefixCache(sequences=1, window=120, host_bytes=1000, sharing=True)
    made.enter("", tokens(SYSTEM, ALICE), 300)
    parting = made.place("", tokens(SYSTEM, BOB), NOBODY)
    going_on = made.place("", tokens(SYSTEM, ALICE, BOB), NOBODY)
    assert parting is not None
    assert going_on is not None
    assert (parting.cached, going_on.cached) == (0, 500)
    made.enter("", tokens(ALICE, (1, 10)), 300)
    short = made.place("", tokens(ALICE, BOB), NOBODY)
    assert short is not None
    assert short.cached == 100


@pytest.mark.parametrize(("fewest", "cached"), [(0, 400), (400, 400), (401, 0)])
def test_a_sequence_that_lost_what_is_before_its_window_is_cut_no_further(
    fewest: int, cached: int
) -> None:
    made = PrefixCache(sequences=2, window=120, fewest=lambda _: fewest, sharing=True)
    ran(made, tokens(SYSTEM, ALICE), tokens())
    parting = made.place("", tokens(SYSTEM, BOB), NOBODY)
    going_on = made.place("", tokens(SYSTEM, ALICE, BOB), NOBODY)
    assert parting is not None
    assert going_on is not None
    assert (parting.cached, going_on.cached) == (cached, 500)


def test_with_a_window_sequences_are_cut_as_long_as_nothing_is_lost() -> None:
    made = PrefixCache(sequences=2, window=120, sharing=True)
    ran(made, tokens(SYSTEM, ALICE), tokens())
    parting = made.place("", tokens(SYSTEM, BOB), NOBODY)
    assert parting is not None
    assert parting.cached == 400


def test_a_sequence_that_is_withdrawn_is_nobody_s_prefix() -> None:
    made = cache()
    running = started(made, tokens(SYSTEM, ALICE)).sequence
    made.withdraw(running)
    placement = made.place("", tokens(SYSTEM, BOB), NOBODY)
    assert placement is not None
    assert (placement.cached, made.length(running)) == (0, 500)


@pytest.mark.parametrize(("saved", "found"), [(500, True), (470, True), (430, False), (0, False)])
def test_the_entry_of_a_sequence_has_most_of_it(saved: int, found: bool) -> None:
    made = cache(host_bytes=1000)
    prompt = tokens(SYSTEM, ALICE)
    sequence = ran(made, prompt, tokens())
    if saved:
        made.enter("", prompt[:saved], 100)
    assert made.entry_of(sequence) == (FIRST_ENTRY if found else None)


CALLS = st.lists(
    st.tuples(
        st.sampled_from(["", "b"]),
        st.lists(st.integers(0, 2), min_size=1, max_size=4),
        st.integers(0, 60),
        st.booleans(),
    ),
    max_size=25,
)


@pytest.mark.parametrize("kind", ["ranged", "whole"])
@given(calls=CALLS, host_bytes=st.sampled_from([0, 500]))
def test_whatever_runs_a_call_gets_only_tokens_that_somebody_has(
    kind: MemoryKind, calls: list[tuple[str, list[int], int, bool]], host_bytes: int
) -> None:
    made = cache(sequences=3, kind=kind, host_bytes=host_bytes)
    held: dict[int, tuple[str, Ints]] = {}
    running: list[int] = []
    for scope, runs, answer, ends in calls:
        prompt = tokens(*((1000 * run, 40) for run in runs))
        placement = made.place(scope, prompt, frozenset())
        if placement is None:
            sequence = running.pop(0)
            made.end(sequence, held[sequence][1])
            continue
        giver = placement.sequence if placement.source is None else placement.source
        if placement.cached:
            assert held[giver][0] == scope
            assert (held[giver][1][: placement.cached] == prompt[: placement.cached]).all()
            assert placement.cached < len(prompt)
            assert kind == "ranged" or len(held[giver][1]) == placement.cached
        if placement.saves:
            old = held[placement.sequence]
            entry, gone = made.enter(*old, len(old[1]))
            for one in gone:
                del held[one]
            if entry is not None:
                held[entry] = old
        made.begin(placement, scope, prompt, len(prompt))
        held[placement.sequence] = scope, np.concatenate((prompt, tokens((7, answer))))
        made.progressed(placement.sequence, len(prompt) + answer)
        if ends:
            made.end(placement.sequence, held[placement.sequence][1])
        else:
            held[placement.sequence] = scope, prompt
            made.progressed(placement.sequence, len(prompt))
            running.append(placement.sequence)
        assert made.host_bytes_used <= host_bytes
