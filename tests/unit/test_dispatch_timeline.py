"""What a request waited for, as its route tells it."""

from __future__ import annotations

from balancer.dispatch.journal import Decision, Route
from balancer.dispatch.timeline import Timeline, timeline


def _decision(
    after_ms: float,
    chosen: str | None,
    outcome: str = "",
    *,
    ended_ms: float | None = None,
    first_ms: float | None = None,
) -> Decision:
    return Decision(
        after_ms=after_ms,
        policy="least_busy",
        model="demo",
        blocks=0,
        chosen=chosen,
        candidates=(),
        candidates_total=1,
        outcome=outcome,
        outcome_after_ms=ended_ms,
        first_token_after_ms=first_ms,
    )


def _story(*decisions: Decision, ended_ms: float | None = None, age_ms: float = 999.0) -> Timeline:
    route = Route(request_id="req_1", tenant="t", arrived=5.0, ended_after_ms=ended_ms)
    for one in decisions:
        route.add(one)
    return timeline(route, age_ms=age_ms)


def _phases(story: Timeline) -> list[tuple[str, float, float | None, str | None]]:
    return [(one.phase, one.start_ms, one.end_ms, one.agent) for one in story.phases]


def test_a_request_waits_is_prefilled_and_decoded() -> None:
    story = _story(_decision(10, "one", "finished", ended_ms=100, first_ms=30), ended_ms=101)
    assert _phases(story) == [
        ("waited", 0.0, 10, None),
        ("prefilled", 10, 30, "one"),
        ("decoded", 30, 100, "one"),
    ]
    assert (story.agent, story.total_ms) == ("one", 101)
    sums = story.totals_ms
    assert (sums.waited, sums.prefilled, sums.decoded, sums.moved) == (10, 20, 70, 0)


def test_a_move_lasts_from_the_breaking_off_to_the_next_slot() -> None:
    story = _story(
        _decision(0, "one", "link_lost", ended_ms=50, first_ms=20),
        _decision(60, "two", "finished", ended_ms=100, first_ms=70),
        ended_ms=100,
    )
    assert _phases(story)[3] == ("moved", 50, 60, None)
    assert story.phases[3].reason == "link_lost"
    assert _phases(story)[4:] == [("prefilled", 60, 70, "two"), ("decoded", 70, 100, "two")]
    assert story.agent == "two"


def test_a_refusal_for_want_of_room_and_a_wait_for_a_full_agent_are_waiting() -> None:
    story = _story(
        _decision(1, "one", "refused: no_free_slot", ended_ms=2),
        _decision(3, None, "waits for two"),
        _decision(9, "two", first_ms=12),
        age_ms=20.0,
    )
    assert _phases(story) == [
        ("waited", 0.0, 9, None),
        ("prefilled", 9, 12, "two"),
        ("decoded", 12, None, "two"),
    ]
    assert (story.totals_ms.decoded, story.total_ms, story.outcome) == (8, None, None)


def test_what_never_had_a_slot_waited_and_what_broke_for_good_was_moving() -> None:
    assert _phases(_story(age_ms=5.0)) == [("waited", 0.0, None, None)]
    assert _story(age_ms=5.0).totals_ms.waited == 5
    story = _story(_decision(0, "one", "failed", ended_ms=40), ended_ms=60)
    assert _phases(story) == [
        ("waited", 0.0, 0, None),
        ("prefilled", 0, 40, "one"),
        ("moved", 40, 60, None),
    ]


def test_a_request_that_was_left_is_decoded_until_its_end() -> None:
    story = _story(_decision(0, "one", first_ms=5), ended_ms=25)
    assert _phases(story)[-1] == ("decoded", 5, 25, "one")
