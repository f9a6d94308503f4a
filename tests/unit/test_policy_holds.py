"""How long a call should hold its slot, from what calls took before."""

from __future__ import annotations

import pytest

from balancer.policy.holds import (
    ANY_LENGTH,
    MOST_MODELS,
    UNMEASURED_HOLD_S,
    Demand,
    Held,
    Holds,
    length_class,
)


def one(max_tokens: int | None = None, body_bytes: int = 512) -> Demand:
    return Demand.of_one(length_class(max_tokens), body_bytes)


def note(
    holds: Holds,
    *,
    max_tokens: int | None = None,
    tokens: int = 100,
    rest_s: float = 2.0,
    prompt_s: float = 1.0,
    model: str = "demo",
    calls: float = 1.0,
) -> None:
    held = Held(
        length=length_class(max_tokens),
        body_bytes=512,
        prompt_s=prompt_s,
        tokens=tokens,
        rest_s=rest_s,
        share=1 / calls,
    )
    holds.note(model, held)


def seconds(holds: Holds, demand: Demand, *, model: str = "demo", calls: float = 1.0) -> float:
    return holds.seconds(model, demand, calls=calls)


@pytest.mark.parametrize(
    ("max_tokens", "expected"),
    [(None, ANY_LENGTH), (1, 1), (2, 2), (3, 4), (16, 16), (17, 32), (10**30, 1 << 31)],
)
def test_limits_are_rounded_up_to_powers_of_two(max_tokens: int | None, expected: int) -> None:
    assert length_class(max_tokens) == expected


def test_before_anything_is_measured_each_request_is_taken_to_need_the_same() -> None:
    demand = one()
    demand.add(length_class(7), 10_000)
    assert seconds(Holds(), demand) == 2 * UNMEASURED_HOLD_S
    assert not Holds().is_measured("demo")


def test_what_one_call_took_is_expected_of_the_next() -> None:
    holds = Holds()
    note(holds)
    assert seconds(holds, one()) == pytest.approx(3.0)
    assert holds.is_measured("demo")


def test_a_longer_prompt_takes_longer_and_a_longer_answer_too() -> None:
    holds = Holds()
    note(holds)
    assert seconds(holds, one(body_bytes=1536)) == pytest.approx(1.0 * 2 + 2.0)
    assert seconds(holds, one(10)) == pytest.approx(1.0 + 16 * 0.02)


def test_requests_that_allow_as_much_are_expected_to_get_as_much() -> None:
    holds = Holds()
    for _ in range(50):
        note(holds, max_tokens=1000, tokens=900, rest_s=18.0)
        note(holds, max_tokens=1000, tokens=300, rest_s=6.0)
        note(holds, max_tokens=8, tokens=8, rest_s=0.16)
    assert seconds(holds, one(1024)) == pytest.approx(1.0 + 12.0, rel=0.05)
    assert seconds(holds, one(7)) == pytest.approx(1.16)


def test_newer_calls_count_more() -> None:
    holds = Holds()
    for tokens in (1000, 10):
        for _ in range(200):
            note(holds, tokens=tokens, rest_s=tokens / 100)
    assert seconds(holds, one()) < 2.0


def test_a_call_without_tokens_was_all_prompt() -> None:
    holds = Holds()
    note(holds, tokens=0, rest_s=0.0, prompt_s=10.0)
    assert seconds(holds, one()) == pytest.approx(10.0)


def test_several_take_as_long_as_one_after_the_other() -> None:
    holds, demand = Holds(), one(64)
    note(holds, max_tokens=64, tokens=50)
    demand.add(64, 512)
    demand.add(ANY_LENGTH, 512)
    assert demand.count == 3
    assert seconds(holds, demand) == pytest.approx(9.0)
    demand.remove(64, 512)
    demand.remove(64, 512)
    assert seconds(holds, demand) == seconds(holds, one())


def test_a_model_that_was_never_measured_is_taken_to_be_as_all_are() -> None:
    holds = Holds()
    note(holds, model="a")
    assert seconds(holds, one(), model="b") == seconds(holds, one(), model="a")
    assert not holds.is_measured("b")


def test_the_latest_models_are_remembered_up_to_a_bound() -> None:
    holds = Holds()
    for number in range(MOST_MODELS + 1):
        note(holds, model=str(number))
    assert (holds.is_measured("0"), holds.is_measured("1")) == (False, True)


def test_how_much_slower_calls_are_together_is_known_before_all_slots_are_taken() -> None:
    holds = Holds()
    for calls in (1.0, 2.0, 3.0):
        note(holds, calls=calls, prompt_s=0.5 + 0.5 * calls, rest_s=2.0)
    assert seconds(holds, one(), calls=8.0) == pytest.approx(4.5 + 2.0)


def test_twice_as_many_together_are_never_taken_to_be_more_than_twice_as_slow() -> None:
    holds = Holds()
    note(holds, calls=1.0, prompt_s=1.0, rest_s=0.0)
    note(holds, calls=2.0, prompt_s=9.0, rest_s=0.0)
    assert seconds(holds, one(), calls=3.0) == pytest.approx(3 * (1.0 + 4.5) / 2, rel=0.02)


def test_more_calls_together_are_never_taken_to_be_faster() -> None:
    holds = Holds()
    note(holds, calls=1.0, prompt_s=3.0, rest_s=0.0)
    note(holds, calls=2.0, prompt_s=1.0, rest_s=0.0)
    assert seconds(holds, one(), calls=8.0) == pytest.approx((3.0 + 0.5) / 1.5, rel=0.02)
