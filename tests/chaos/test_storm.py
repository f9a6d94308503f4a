"""A short storm; `make chaos` runs the long one."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.__main__ import words
from tests.chaos.drain import drain
from tests.chaos.storm import storm


async def test_streams_say_the_same_while_agents_are_killed_frozen_and_robbed(
    tmp_path: Path,
) -> None:
    tally = await storm(tmp_path, seconds=7.0)
    assert not tally.failed, words(tally)
    assert not tally.different, words(tally)
    assert tally.faults.total() >= 2
    assert tally.moved > 0


async def test_the_streams_of_a_drained_agent_go_on_elsewhere_with_their_state(
    tmp_path: Path,
) -> None:
    outcome = await drain(tmp_path)
    assert [one.error for one in outcome.said] == [""] * 8
    assert [one.words for one in outcome.said] == [one.words for one in outcome.expected]
    assert outcome.moves >= 4
    assert {one.attempts for one in outcome.said} <= {1, 2}
    moved = [
        tokens
        for one, tokens in zip(outcome.said, outcome.cached_tokens, strict=True)
        if one.attempts == 2
    ]
    assert sum(tokens > 0 for tokens in moved) >= len(moved) / 2
