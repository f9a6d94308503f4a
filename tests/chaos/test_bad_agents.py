"""Short forms of the other parts of `make chaos`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.all_gone import all_gone, all_gone_words
from tests.chaos.black_hole import CLIENTS, FORMS, Form, black_hole, black_hole_words
from tests.chaos.gray import gray, gray_words


@pytest.mark.parametrize("form", FORMS)
async def test_no_request_is_lost_to_an_agent_that_swallows_everything(
    form: Form, tmp_path: Path
) -> None:
    outcome = await black_hole(tmp_path, form, requests=200)
    assert outcome.answered == 200, black_hole_words(outcome)
    assert 0 < outcome.swallowed < 2 * CLIENTS, black_hole_words(outcome)


async def test_the_streams_of_an_engine_that_stands_still_go_on_elsewhere(tmp_path: Path) -> None:
    outcome = await gray(tmp_path, agents=2, streams=4)
    assert [one.error for one in outcome.said] == [""] * 4
    assert [one.words for one in outcome.said] == [one.words for one in outcome.expected]
    assert outcome.gaps_s, gray_words(outcome)


async def test_streams_go_on_when_every_agent_was_killed_and_came_back(tmp_path: Path) -> None:
    outcome = await all_gone(tmp_path, agents=2, streams=4)
    assert [one.error for one in outcome.said] == [""] * 4
    assert [one.words for one in outcome.said] == [one.words for one in outcome.expected]
    assert all(one.attempts > 1 for one in outcome.said), all_gone_words(outcome)
