"""How many prompt tokens a step takes while others generate."""

from __future__ import annotations

import pytest

from agent.engine.budget import (
    DEFAULT_TARGET_MS,
    LEAST_TOKENS,
    SMALL_CHUNKS_COST,
    START_TOKENS,
    PromptBudget,
)

MOST = 2048


def running(budget: PromptBudget, *, base_ms: float, token_ms: float, steps: int) -> None:
    """Steps on a machine of these costs: decode alone, then with as many tokens as allowed."""
    for _ in range(steps):
        budget.measured(decode_tokens=4, prompt_tokens=0, took_ms=base_ms)
        count = budget.tokens
        budget.measured(decode_tokens=4, prompt_tokens=count, took_ms=base_ms + token_ms * count)


@pytest.mark.parametrize("target_gap_ms", [0.0, 10.0, 1000.0])
def test_before_anything_is_known_a_fixed_number_is_taken(target_gap_ms: float) -> None:
    assert PromptBudget(target_gap_ms=target_gap_ms, most=MOST).tokens == START_TOKENS
    assert PromptBudget(target_gap_ms=target_gap_ms, most=100).tokens == 100


@pytest.mark.parametrize(
    ("target_ms", "base_ms", "token_ms", "tokens"),
    [
        (100.0, 20.0, 1.0, 80),
        (200.0, 20.0, 1.0, 180),
        (100.0, 20.0, 0.1, 800),
        (100.0, 20.0, 0.01, MOST),
        (100.0, 95.0, 1.0, LEAST_TOKENS),
        (100.0, 300.0, 1.0, LEAST_TOKENS),
    ],
    ids=["as many as fit", "a longer gap", "a faster machine", "no more than a batch holds",
         "never too few to get on", "decode alone takes longer"],
)  # fmt: skip
def test_a_target_is_followed_and_a_step_takes_what_fits_in_it(
    target_ms: float, base_ms: float, token_ms: float, tokens: int
) -> None:
    budget = PromptBudget(target_gap_ms=target_ms, most=MOST)
    running(budget, base_ms=base_ms, token_ms=token_ms, steps=1)
    assert budget.tokens == pytest.approx(tokens, abs=1)


def test_without_a_target_a_fast_machine_takes_more_and_a_slow_one_no_less_than_at_first() -> None:
    fast, slow = (PromptBudget(target_gap_ms=0.0, most=MOST) for _ in range(2))
    running(fast, base_ms=10.0, token_ms=0.05, steps=1)
    running(slow, base_ms=10.0, token_ms=20.0, steps=5)
    assert fast.tokens == pytest.approx((DEFAULT_TARGET_MS - 10.0) / 0.05, abs=1)
    assert slow.tokens == START_TOKENS


def test_a_machine_that_becomes_slower_or_faster_is_followed_within_a_few_steps() -> None:
    budget = PromptBudget(target_gap_ms=100.0, most=MOST)
    running(budget, base_ms=20.0, token_ms=0.5, steps=3)
    assert budget.tokens == pytest.approx(160, abs=1)
    running(budget, base_ms=20.0, token_ms=2.0, steps=20)
    assert budget.tokens == pytest.approx(40, abs=1)
    running(budget, base_ms=20.0, token_ms=0.5, steps=20)
    assert budget.tokens == pytest.approx(160, abs=2)


def test_one_step_that_was_held_up_does_not_stop_the_prompts() -> None:
    budget = PromptBudget(target_gap_ms=100.0, most=MOST)
    running(budget, base_ms=20.0, token_ms=0.5, steps=5)
    before = budget.tokens
    budget.measured(decode_tokens=4, prompt_tokens=before, took_ms=400.0)
    assert before / 3 < budget.tokens < before


def test_prompts_alone_teach_a_price_that_is_taken_with_care() -> None:
    budget = PromptBudget(target_gap_ms=100.0, most=MOST)
    budget.measured(decode_tokens=0, prompt_tokens=500, took_ms=250.0)
    assert budget.tokens == 200 / SMALL_CHUNKS_COST
    # beside streams it turns out dearer than that; prompts alone do not change it any more
    budget.measured(decode_tokens=4, prompt_tokens=100, took_ms=200.0)
    budget.measured(decode_tokens=0, prompt_tokens=500, took_ms=250.0)
    assert budget.tokens == 50
    # what decode tokens cost is not known yet: nothing is taken off for them
    fresh = PromptBudget(target_gap_ms=100.0, most=MOST)
    fresh.measured(decode_tokens=4, prompt_tokens=100, took_ms=50.0)
    assert fresh.tokens == 200


def test_a_mixed_step_shorter_than_decode_alone_still_has_a_price() -> None:
    budget = PromptBudget(target_gap_ms=100.0, most=10**9)
    budget.measured(decode_tokens=4, prompt_tokens=0, took_ms=50.0)
    budget.measured(decode_tokens=4, prompt_tokens=100, took_ms=40.0)
    assert budget.tokens == pytest.approx((100 - 50) / (4.0 / 100), abs=1)
    instant = PromptBudget(target_gap_ms=100.0, most=10**9)
    instant.measured(decode_tokens=0, prompt_tokens=100, took_ms=0.0)
    assert instant.tokens <= 10**9
