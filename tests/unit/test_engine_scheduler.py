"""Slots and batch plans."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.engine.scheduler import Chunk, Plan, Scheduler


def scheduler(slots: int = 4, batch_tokens: int = 512, prompt_budget: int = 128) -> Scheduler:
    return Scheduler(slots=slots, batch_tokens=batch_tokens, prompt_budget=prompt_budget)


def admitted(made: Scheduler, call: int, tokens: int) -> int:
    seat = made.admit(call, tokens)
    assert seat is not None
    return seat.slot


def step(made: Scheduler) -> Plan:
    plan = made.plan()
    made.executed(plan)
    return plan


def generating(made: Scheduler, *calls: int) -> None:
    """Bring calls into decode with prompts of one token."""
    for call in calls:
        admitted(made, call, 1)
    step(made)


def test_a_batch_smaller_than_the_slots_is_refused() -> None:
    with pytest.raises(ValueError, match="4 slots"):
        scheduler(slots=4, batch_tokens=3)


def test_the_lowest_free_slot_is_given_first() -> None:
    made = scheduler(slots=3)
    assert [admitted(made, call, 1) for call in (10, 11, 12)] == [0, 1, 2]
    made.release(11)
    made.release(10)
    assert admitted(made, 13, 1) == 0


def test_no_slot_is_given_twice_and_a_full_house_says_so() -> None:
    made = scheduler(slots=2)
    admitted(made, 1, 1)
    assert made.has_free_slot
    admitted(made, 2, 1)
    free_slot_left = made.has_free_slot
    assert (free_slot_left, made.admit(3, 1)) == (False, None)


@pytest.mark.parametrize(("call", "tokens"), [(1, 5), (2, 0)])
def test_a_known_call_or_an_empty_prompt_is_our_own_mistake(call: int, tokens: int) -> None:
    made = scheduler()
    admitted(made, 1, 5)
    with pytest.raises(ValueError, match="cannot be admitted"):
        made.admit(call, tokens)


def test_releasing_an_unknown_call_has_no_effect() -> None:
    assert scheduler().release(7) is None


def test_a_prompt_goes_in_as_a_whole_when_nobody_generates() -> None:
    made = scheduler()
    admitted(made, 1, 300)
    plan = step(made)
    assert plan == Plan((), (Chunk(0, 0, 300, last=True),))
    assert plan.outputs == (0,)
    assert made.cells_used == 300


def test_a_prompt_longer_than_a_batch_gives_its_output_with_the_last_chunk() -> None:
    made = scheduler(batch_tokens=100)
    admitted(made, 1, 250)
    plans = [step(made) for _ in range(3)]
    assert [plan.chunks[0].count for plan in plans] == [100, 100, 50]
    assert [plan.outputs for plan in plans] == [(), (), (0,)]


def test_running_streams_come_first_and_prompts_share_the_budget() -> None:
    made = scheduler(prompt_budget=128)
    generating(made, 1, 2)
    admitted(made, 3, 1000)
    plan = step(made)
    assert plan.decode == (0, 1)
    assert plan.chunks == (Chunk(2, 0, 128, last=False),)


def test_several_prompts_progress_evenly() -> None:
    made = scheduler(batch_tokens=90)
    for call in (1, 2, 3):
        admitted(made, call, 100)
    assert [chunk.count for chunk in step(made).chunks] == [30, 30, 30]


def test_what_a_short_prompt_does_not_need_goes_to_the_long_one() -> None:
    made = scheduler(batch_tokens=100)
    admitted(made, 1, 1000)
    admitted(made, 2, 10)
    assert step(made).chunks == (Chunk(0, 0, 90, last=False), Chunk(1, 0, 10, last=True))


def test_a_short_prompt_is_not_stuck_behind_a_long_one() -> None:
    made = scheduler(prompt_budget=128)
    generating(made, 1)
    admitted(made, 2, 10_000)
    step(made)
    short = admitted(made, 3, 60)
    assert short in step(made).outputs


def test_with_less_room_than_prompts_the_shortest_go_first() -> None:
    made = scheduler(slots=3, batch_tokens=3, prompt_budget=1)
    generating(made, 1)
    admitted(made, 2, 9)
    admitted(made, 3, 2)
    assert step(made).chunks == (Chunk(2, 0, 1, last=False),)


def test_a_paused_call_keeps_its_slot_and_is_left_out() -> None:
    made = scheduler()
    generating(made, 1, 2)
    made.pause(1, paused=True)
    assert step(made).decode == (1,)
    assert made.cells_used == 1 + 2
    made.pause(1, paused=False)
    assert step(made).decode == (0, 1)


def test_a_paused_prompt_makes_no_progress() -> None:
    made = scheduler()
    admitted(made, 1, 50)
    made.pause(1, paused=True)
    assert not made.plan()
    assert not made.has_work
    assert made.prefilling() == []


def test_pausing_an_unknown_call_has_no_effect() -> None:
    made = scheduler()
    made.pause(9, paused=True)
    assert not made.has_work


def test_calls_in_prefill_are_told_apart() -> None:
    made = scheduler(batch_tokens=100)
    admitted(made, 1, 1)
    step(made)
    admitted(made, 2, 300)
    step(made)
    assert [(seat.call, seat.cached, seat.to_prefill) for seat in made.prefilling()] == [
        (2, 99, 300)
    ]


def test_a_plan_can_be_taken_apart_slot_by_slot() -> None:
    chunk = Chunk(2, 0, 8, last=True)
    parts = Plan((0, 1), (chunk,)).parts()
    assert parts == [Plan((0,), ()), Plan((1,), ()), Plan((), (chunk,))]


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("admit"), st.integers(1, 700)),
        st.tuples(st.sampled_from(["release", "pause", "continue"]), st.integers(0, 30)),
        st.tuples(st.just("step"), st.just(0)),
    ),
    max_size=60,
)


@given(OPERATIONS, st.integers(1, 6), st.integers(6, 64), st.integers(1, 32))
def test_whatever_happens_batches_fit_and_every_token_goes_in_once(
    operations: list[tuple[str, int]], slots: int, batch_tokens: int, prompt_budget: int
) -> None:
    made = scheduler(slots, batch_tokens, prompt_budget)
    cached: dict[int, int] = {}
    next_call = 0
    for name, number in operations:
        match name:
            case "admit":
                if made.admit(next_call, number) is not None:
                    cached[next_call] = 0
                next_call += 1
            case "release":
                assert (made.release(number) is not None) == (cached.pop(number, None) is not None)
            case "pause" | "continue":
                made.pause(number, paused=name == "pause")
            case _:
                check_step(made, cached, slots, batch_tokens)
    assert made.cells_used == sum(cached.values())


def check_step(made: Scheduler, cached: dict[int, int], slots: int, batch_tokens: int) -> None:
    had_work = made.has_work
    plan = made.plan()
    assert bool(plan) == had_work
    named = [*plan.decode, *(chunk.slot for chunk in plan.chunks)]
    assert len(set(named)) == len(named)
    assert all(0 <= slot < slots for slot in named)
    assert len(plan.decode) + sum(chunk.count for chunk in plan.chunks) <= batch_tokens
    for chunk in plan.chunks:
        seat = made.in_slot(chunk.slot)
        assert chunk.start == cached[seat.call]
        assert chunk.count > 0
        assert chunk.last == (chunk.start + chunk.count == seat.to_prefill)
        cached[seat.call] += chunk.count
    for slot in plan.decode:
        cached[made.in_slot(slot).call] += 1
    made.executed(plan)
