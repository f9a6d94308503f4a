"""A few kills in the middle of a stream of each family of APIs; `make chaos` has many."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.families import FAMILIES, families

KILLS = 3


async def test_streams_of_every_family_say_the_same_when_their_agent_is_killed(
    tmp_path: Path,
) -> None:
    outcome = await families(tmp_path, kills=KILLS)
    assert not outcome.different, outcome.words
    # a family moves once a kill at most: so many moves take all of them
    assert outcome.moves > KILLS * (len(FAMILIES) - 1), outcome.words
