"""Slots and batch plans."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.engine.scheduler import Chunk, Plan, Run, Scheduler


def scheduler(
    slots: int = 4, batch_tokens: int = 512, prompt_budget: int = 128, *, is_strict: bool = True
) -> Scheduler:
    return Scheduler(
        slots=slots,
        batch_tokens=batch_tokens,
        prompt_budget=prompt_budget,
        is_strict=is_strict,
    )


def admitted(made: Scheduler, call: int, tokens: int, **seat: int) -> int:
    """Seat a call in the lowest free slot."""
    taken = {one.slot for one in made}
    slot = next(number for number in range(len(taken) + 1) if number not in taken)
    return made.admit(call, tokens, slot=slot, **seat).slot


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


def test_no_slot_is_given_twice_and_a_full_house_says_so() -> None:
    made = scheduler(slots=2)
    admitted(made, 1, 1)
    with pytest.raises(ValueError, match="cannot have slot 0"):
        made.admit(2, 1, slot=0)
    room = [made.has_free_slot]
    admitted(made, 2, 1)
    assert [*room, made.has_free_slot] == [True, False]
    with pytest.raises(ValueError, match="cannot have slot 7"):
        made.admit(3, 1, slot=7)


@pytest.mark.parametrize(("call", "tokens", "cached"), [(1, 5, 0), (2, 0, 0), (2, 5, 5)])
def test_a_known_call_or_one_with_nothing_to_prefill_is_our_own_mistake(
    call: int, tokens: int, cached: int
) -> None:
    made = scheduler()
    made.admit(1, 5, slot=0)
    with pytest.raises(ValueError, match=r"cannot have slot|must give an output"):
        made.admit(call, tokens, slot=1, cached=cached)


def test_what_is_cached_already_is_not_prefilled() -> None:
    made = scheduler()
    made.admit(1, 300, slot=3, cached=299)
    assert step(made).chunks == (Chunk(3, 299, 1, last=True),)
    assert step(made).decode == (3,)


def test_a_call_that_waits_for_anothers_prefix_is_left_out_until_it_is_there() -> None:
    made = scheduler()
    first, second = made.admit(1, 100, slot=0), made.admit(2, 120, slot=1)
    second.waiting = True
    assert [chunk.slot for chunk in step(made).chunks] == [0]
    second.waiting, second.cached = False, first.cached
    assert step(made) == Plan((0,), (Chunk(1, 100, 20, last=True),))


def test_a_prefill_stops_where_its_state_is_to_be_kept() -> None:
    made = scheduler()
    made.admit(1, 100, slot=0).stops = (99, 60)
    assert step(made).chunks == (Chunk(0, 0, 60, last=False),)
    assert step(made).chunks == (Chunk(0, 60, 39, last=False),)
    assert step(made).chunks == (Chunk(0, 99, 1, last=True),)


def test_a_stop_behind_the_prompt_is_none() -> None:
    made = scheduler()
    made.admit(1, 10, slot=0).stops = (12,)
    assert step(made).chunks == (Chunk(0, 0, 10, last=True),)


def of_run(slot: int, start: int, count: int, *, last: bool = False) -> Plan:
    return Plan((), (Chunk(slot, start, count, last),), of_run=True)


def test_an_image_has_batches_of_its_own_between_those_of_the_text() -> None:
    made = scheduler(batch_tokens=60)
    made.admit(1, 110, slot=0).runs = (Run(10, 90, whole=False),)
    assert step(made) == Plan((), (Chunk(0, 0, 10, last=False),))
    assert step(made) == of_run(0, 10, 60)
    assert step(made) == of_run(0, 70, 20)
    assert step(made) == Plan((), (Chunk(0, 90, 20, last=True),))
    assert step(made).decode == (0,)


def test_a_prompt_may_end_with_an_image() -> None:
    made = scheduler()
    made.admit(1, 30, slot=0, cached=20).runs = (Run(20, 30, whole=False),)
    assert step(made) == of_run(0, 20, 10, last=True)


def test_an_image_that_must_stay_whole_is_not_split_by_the_budget() -> None:
    made = scheduler(prompt_budget=8)
    generating(made, 1)
    made.admit(2, 40, slot=1).runs = (Run(0, 32, whole=True),)
    assert step(made) == of_run(1, 0, 32)


def test_one_that_need_not_takes_no_more_than_the_budget_while_others_generate() -> None:
    made = scheduler(prompt_budget=8)
    generating(made, 1)
    made.admit(2, 40, slot=1).runs = (Run(0, 32, whole=False),)
    assert step(made) == of_run(1, 0, 8)


def test_streams_and_other_prompts_have_every_other_batch_while_images_go_in() -> None:
    made = scheduler(slots=5, prompt_budget=8)
    generating(made, 1)
    for call, slot in ((3, 1), (2, 2)):
        made.admit(call, 17, slot=slot).runs = (Run(0, 8, whole=True), Run(8, 16, whole=True))
    made.admit(4, 8, slot=3)
    made.in_slot(0).drafts = 4
    assert step(made) == of_run(2, 0, 8)
    assert step(made) == Plan((0,), (Chunk(3, 0, 8, last=True),))
    assert step(made) == of_run(2, 8, 8)
    assert step(made) == Plan((0, 3), (Chunk(2, 16, 1, last=True),))
    assert step(made) == of_run(1, 0, 8)
    assert (step(made).decode, made.plan().of_run) == ((0, 2, 3), True)


def test_a_turn_that_only_made_embeddings_is_a_turn_all_the_same() -> None:
    made = scheduler()
    generating(made, 1)
    made.admit(2, 9, slot=1).runs = (Run(0, 8, whole=True),)
    made.passed(made.plan())
    assert step(made).decode == (0,)
    assert step(made) == of_run(1, 0, 8)


def test_drafts_stand_behind_the_decode_tokens_as_far_as_the_batch_has_room() -> None:
    made = scheduler(slots=3, batch_tokens=8)
    generating(made, 1, 2, 3)
    for seat, drafts in zip(made, (4, 0, 3), strict=True):
        seat.drafts = drafts
    plan = made.plan()
    assert (plan.decode, plan.drafts, plan.tokens) == ((0, 1, 2), (4, 0, 1), 8)
    made.executed(plan, {0: 4, 1: 0, 2: 1})
    assert [seat.cached for seat in made] == [6, 2, 3]


def test_nothing_is_drafted_while_prompts_are_worked_on() -> None:
    made = scheduler()
    generating(made, 1)
    made.in_slot(0).drafts = 4
    admitted(made, 2, 10)
    assert (step(made).drafts, step(made).drafts) == ((), (4, 0))


def test_groups_never_share_a_batch_and_take_turns() -> None:
    made = scheduler()
    for call, group in ((1, 0), (2, 7), (3, 7), (4, 3)):
        admitted(made, call, 1, group=group)
    plans = [step(made) for _ in range(6)]
    assert [plan.group for plan in plans] == [0, 3, 7, 0, 3, 7]
    assert [plan.decode for plan in plans[3:]] == [(0,), (3,), (1, 2)]


def test_a_group_that_comes_anew_waits_for_one_turn_of_the_others_at_most() -> None:
    made = scheduler()
    for call, group in ((1, 0), (2, 1)):
        admitted(made, call, 1, group=group)
    for _ in range(5):
        step(made)
    admitted(made, 3, 1, group=2)
    assert step(made).group == 2


@pytest.mark.parametrize(
    ("generating", "prompts", "is_strict", "most"),
    [
        (1, 1, False, 10),
        (1, 4, False, 40),
        (2, 4, False, 20),
        (3, 4, False, 10),
        (4, 2, False, 10),
        (1, 4, True, 10),
        (1, 15, False, 99),
    ],
)
def test_the_budget_grows_with_the_prompts_for_each_that_generates_unless_it_is_strict(
    generating: int, prompts: int, is_strict: bool, most: int
) -> None:
    made = scheduler(slots=16, batch_tokens=100, prompt_budget=10, is_strict=is_strict)
    for call in range(generating):
        made.admit(call, 1, slot=call)
    made.executed(made.plan())
    for call in range(generating, generating + prompts):
        made.admit(call, 1000, slot=call)
    plan = made.plan()
    assert len(plan.decode) == generating
    assert sum(chunk.count for chunk in plan.chunks) == most


def test_a_prompt_keeps_to_the_budget_while_another_group_generates() -> None:
    made = scheduler(prompt_budget=100)
    generating(made, 1)
    admitted(made, 2, 450, group=1)
    made.admit(3, 1000, slot=3, group=2).runs = (Run(0, 300, whole=False),)
    plans = [step(made) for _ in range(9)]
    assert [plan.group for plan in plans] == [1, 2, 0] * 3
    assert max(plan.tokens for plan in plans) == 100


def test_releasing_an_unknown_call_has_no_effect() -> None:
    assert scheduler().release(7) is None


def test_a_released_call_has_no_seat_and_its_slot_is_free() -> None:
    made = scheduler(slots=1)
    seat = made.admit(7, 10, slot=0)
    assert made.seat_of(7) is seat
    assert made.release(7) is seat
    assert made.seat_of(7) is None
    assert made.has_free_slot


def test_a_prompt_goes_in_as_a_whole_when_nobody_generates() -> None:
    made = scheduler()
    admitted(made, 1, 300)
    plan = step(made)
    assert plan == Plan((), (Chunk(0, 0, 300, last=True),))
    assert made.cells_used == 300


def test_a_prompt_longer_than_a_batch_gives_its_output_with_the_last_chunk() -> None:
    made = scheduler(batch_tokens=100)
    admitted(made, 1, 250)
    plans = [step(made) for _ in range(3)]
    assert [plan.chunks[0].count for plan in plans] == [100, 100, 50]
    assert [plan.chunks[0].last for plan in plans] == [False, False, True]


def test_running_streams_come_first_and_prompts_share_the_budget() -> None:
    made = scheduler(prompt_budget=128)
    generating(made, 1, 2)
    admitted(made, 3, 1000)
    plan = step(made)
    assert plan.decode == (0, 1)
    assert plan.chunks == (Chunk(2, 0, 128, last=False),)


def test_each_token_of_a_scored_prompt_has_an_output_and_its_chunks_are_small() -> None:
    made = scheduler()
    admitted(made, 1, 10)
    admitted(made, 2, 20)
    scored = made.seat_of(1)
    assert scored is not None
    scored.scored_rows = 4
    chunks = [step(made).chunks for _ in range(3)]
    plain = Chunk(1, 0, 20, last=True)
    assert chunks[0] == (Chunk(0, 0, 4, last=False, scored=True), plain)
    assert chunks[1:] == [
        (Chunk(0, 4, 4, last=False, scored=True),),
        (Chunk(0, 8, 2, last=True, scored=True),),
    ]
    assert [one.outputs for one in (*chunks[0], chunks[2][0])] == [4, 1, 2]
    assert Chunk(0, 0, 5, last=False).outputs == 0


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
    assert Chunk(short, 0, 60, last=True) in step(made).chunks


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
    parts = Plan((0, 1), (chunk,), (2, 0), group=5).parts()
    alone = [Plan((0,), ()), Plan((1,), ()), Plan((), (chunk,))]
    assert parts == [replace(part, group=5) for part in alone]
    assert of_run(2, 0, 8).parts() == [of_run(2, 0, 8)]


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
                if made.has_free_slot:
                    slot = admitted(made, next_call, number)
                    made.in_slot(slot).runs = runs_within(number, batch_tokens)
                    cached[next_call] = 0
                next_call += 1
            case "release":
                assert (made.release(number) is not None) == (cached.pop(number, None) is not None)
            case "pause" | "continue":
                made.pause(number, paused=name == "pause")
            case _:
                check_step(made, cached, slots, batch_tokens)
    assert made.cells_used == sum(cached.values())


def runs_within(tokens: int, batch_tokens: int) -> tuple[Run, ...]:
    """An image in some prompts, two that touch in others, text only in the rest."""
    start, size = tokens // 4, tokens // 3
    whole = size <= batch_tokens
    run = Run(start, start + size, whole=whole)
    match tokens % 3 if size else 0:
        case 0:
            return ()
        case 1:
            return (run,)
        case _:
            return run, Run(run.end, run.end + size, whole=not whole and size <= batch_tokens)


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
        check_run(plan, chunk, seat.runs)
        assert chunk.count > 0
        assert chunk.last == (chunk.start + chunk.count == seat.to_prefill)
        cached[seat.call] += chunk.count
    for slot in plan.decode:
        cached[made.in_slot(slot).call] += 1
    made.executed(plan)


def check_run(plan: Plan, chunk: Chunk, runs: tuple[Run, ...]) -> None:
    """A chunk is of one run, alone in its batch, or of none."""
    end = chunk.start + chunk.count
    touched = [run for run in runs if chunk.start < run.end and run.start < end]
    assert plan.of_run == bool(touched)
    for run in touched:
        assert (plan.decode, len(plan.chunks)) == ((), 1)
        assert run.start <= chunk.start < end <= run.end
        assert not run.whole or (chunk.start, end) == (run.start, run.end)
