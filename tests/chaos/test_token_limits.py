"""A short attack on a limit of tokens; `make chaos` runs the long one."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.token_limits import token_limits


async def test_a_limit_of_tokens_holds_and_what_ends_badly_leaves_nothing_reserved(
    tmp_path: Path,
) -> None:
    outcome = await token_limits(tmp_path, seconds=1.0, requests=40, limit=1500)
    assert outcome.is_good, outcome.words
    assert outcome.refused > 0
    assert outcome.faults.total() > 0
    assert {"HTTP 200", "HTTP 400", "left"} <= set(outcome.ends), outcome.words
