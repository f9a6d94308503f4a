"""The prompts of text completions: how many there may be, and what is made of each."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec import structs

from balancer.errors import InvalidRequest
from balancer.http.body import decode_json
from balancer.http.openai.prompts import (
    MAX_PROMPT_TOKENS,
    MAX_SCORED,
    best_of,
    check_echo,
    echoed_prompts,
    prompts_of,
    suffix_of,
)
from balancer.http.openai.schema import EXPECTED, MAX_CHOICES, CompletionRequest
from balancer.http.openai.translate import completion_request
from protocol.generation import GenerationRequest

_DECODER = msgspec.json.Decoder(CompletionRequest)


def body(**fields: Any) -> CompletionRequest:
    data = msgspec.json.encode({"prompt": "Once", **fields})
    return decode_json(data, _DECODER, max_depth=64, expected=EXPECTED)


def translate(**fields: Any) -> None:
    """Everything that can be refused."""
    given = body(**fields)
    prompts = prompts_of(given)
    check_echo(given, prompts)
    completion_request(given, prompts, drawn_seed=1)


def refusal_of(**fields: Any) -> InvalidRequest:
    """Why no completions can be made."""
    with pytest.raises(InvalidRequest) as refused:
        translate(**fields)
    return refused.value


@pytest.mark.parametrize(
    ("given", "prompts"),
    [
        ("Once", ("Once",)),
        (["Once"], ("Once",)),
        (["a", "b", ""], ("a", "b", "")),
        ([1, 2], ((1, 2),)),
        ([[1, 2]], ((1, 2),)),
        ([[1, 2], [3]], ((1, 2), (3,))),
        (["a", [3]], ("a", (3,))),
    ],
)
def test_a_request_has_one_prompt_or_a_list_of_them(given: Any, prompts: tuple[Any, ...]) -> None:
    assert prompts_of(body(prompt=given)) == prompts


@pytest.mark.parametrize(
    ("more", "most"), [({}, 128), ({"n": 3}, 42), ({"n": 2, "best_of": 64}, 2), ({"n": 128}, 1)]
)
def test_prompts_times_choices_are_bounded(more: dict[str, int], most: int) -> None:
    assert len(prompts_of(body(prompt=["a"] * most, **more))) == most
    error = refusal_of(prompt=["a"] * (most + 1), **more)
    assert (error.code, error.param) == ("invalid_value", "prompt")
    assert f"at most {most} prompts" in error.message
    assert str(MAX_CHOICES) in error.message


@pytest.mark.parametrize("prompt", [[1] * (MAX_PROMPT_TOKENS + 1), [[1] * (2**19 + 1)] * 2])
def test_the_token_ids_of_all_prompts_together_are_bounded(prompt: Any) -> None:
    error = refusal_of(prompt=prompt)
    assert (error.code, error.param) == ("invalid_value", "prompt")


@pytest.mark.parametrize(
    ("prompt", "param"),
    [
        ([], "prompt"),
        ([None], "prompt"),
        ([1, "a"], "prompt"),
        ([True], "prompt"),
        ([2**31], "prompt"),
        (["a", 1], "prompt[1]"),
        ([[1], []], "prompt[1]"),
        ([[1], [1.5]], "prompt[1]"),
        ([[1], [-1]], "prompt[1]"),
        ([[1], [[1]]], "prompt[1]"),
    ],
)
def test_what_is_no_prompt_is_named(prompt: Any, param: str) -> None:
    error = refusal_of(prompt=prompt)
    assert (error.code, error.param) == ("invalid_type", param)


@pytest.mark.parametrize(
    ("given", "made", "top_logprobs"),
    [
        ({}, 0, None),
        ({"best_of": 1}, 1, None),
        ({"n": 2, "best_of": 2, "stream": True}, 2, None),
        ({"n": 2, "best_of": 5}, 5, 0),
        ({"best_of": 5, "logprobs": 3}, 5, 3),
    ],
)
def test_to_find_the_best_answers_their_log_probabilities_are_asked_for(
    given: dict[str, Any], made: int, top_logprobs: int | None
) -> None:
    asked = body(**given)
    assert best_of(asked) == made
    request = completion_request(asked, prompts_of(asked), drawn_seed=1)
    assert request.top_logprobs == top_logprobs


def test_fewer_answers_cannot_be_made_than_are_shown() -> None:
    error = refusal_of(n=3, best_of=2)
    assert (error.code, error.param) == ("invalid_value", "best_of")
    assert "at least `n`, which is 3" in error.message


def test_the_best_answer_is_not_known_while_it_is_streamed() -> None:
    error = refusal_of(best_of=2, stream=True)
    assert (error.code, error.param) == ("unsupported_parameter", "best_of")


def test_a_prompt_is_echoed_before_each_of_its_choices() -> None:
    asked = body(prompt=["a", "b"], n=2, echo=True)
    assert echoed_prompts(asked, prompts_of(asked)) == ("a", "a", "b", "b")
    for unasked in (body(), body(echo=False, logprobs=1)):
        assert echoed_prompts(unasked, ("Once",)) == ()


SCORED: dict[str, Any] = {"echo": True, "logprobs": 1}


@pytest.mark.parametrize(
    ("given", "code", "param"),
    [
        ({"echo": True, "prompt": [[1], [2]]}, "unsupported_parameter", "echo"),
        ({**SCORED, "stream": True}, "unsupported_parameter", "stream"),
        ({**SCORED, "suffix": "end"}, "unsupported_parameter", "suffix"),
        ({**SCORED, "n": 2, "best_of": 3}, "unsupported_parameter", "best_of"),
        ({**SCORED, "prompt": "é" * (MAX_SCORED // 4 + 1)}, "invalid_value", "prompt"),
        ({**SCORED, "prompt": [[1] * (MAX_SCORED // 8)] * 5}, "invalid_value", "prompt"),
        ({**SCORED, "prompt": [1] * (MAX_SCORED // 4 + 1), "n": 2}, "invalid_value", "prompt"),
        ({"max_tokens": 0}, "invalid_value", "max_tokens"),
        ({"max_tokens": 0, "echo": True}, "invalid_value", "max_tokens"),
        ({"max_tokens": 0, "logprobs": 1}, "invalid_value", "max_tokens"),
    ],
)
def test_what_cannot_be_echoed_is_refused_by_name(
    given: dict[str, Any], code: str, param: str
) -> None:
    error = refusal_of(**given)
    assert (error.code, error.param) == (code, param)


@pytest.mark.parametrize(
    ("given", "changes"),
    [
        (SCORED, {"top_logprobs": 1, "prompt_logprobs": True}),
        (
            {**SCORED, "max_tokens": 3},
            {"top_logprobs": 1, "prompt_logprobs": True, "max_tokens": 3},
        ),
        (
            {**SCORED, "max_tokens": 0},
            {"top_logprobs": 1, "prompt_logprobs": True, "max_tokens": 1},
        ),
        ({"echo": True}, {}),
        ({"logprobs": 1}, {"top_logprobs": 1}),
    ],
)
def test_a_prompt_is_scored_where_it_is_echoed_with_log_probabilities(
    given: dict[str, Any], changes: dict[str, Any]
) -> None:
    def canonical(**fields: Any) -> GenerationRequest:
        asked = body(**fields)
        check_echo(asked, prompts_of(asked))
        return completion_request(asked, prompts_of(asked), drawn_seed=1)

    assert canonical(**given) == structs.replace(canonical(), **changes)


def test_a_suffix_goes_with_text() -> None:
    assert suffix_of(body(suffix="end"), ("Once",)) == "end"
    asked = body(suffix="end")
    assert completion_request(asked, ("Once",), drawn_seed=1).suffix == "end"
    assert suffix_of(body(suffix=""), ("Once",)) is None
    error = refusal_of(suffix="end", prompt=[1, 2])
    assert (error.code, error.param) == ("unsupported_parameter", "suffix")
