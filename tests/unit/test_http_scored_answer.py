"""Text completions with the log probabilities of their prompts."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from balancer.dispatch.sink import Outcome
from balancer.errors import UpstreamFailed
from balancer.http.openai.prompts import Prompt
from balancer.http.openai.scored_answer import ScoredAnswer, scored_body
from balancer.http.shape import AnswerHead
from protocol.generation import Timings, TokenLogprob, TopLogprob, Usage

HEAD = AnswerHead(id="cmpl-1", created=1, model="demo", request_id="req_1")
EURO = "€".encode().decode("latin-1")
"""Three bytes, as the link has them."""


def outcome(prompt_tokens: int, completion_tokens: int) -> Outcome:
    return Outcome(
        finish_reason="stop",
        stop_sequence=None,
        usage=Usage(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens),
        timings=Timings(),
        agent="one",
        attempts=1,
        queue_ms=0.0,
        ttft_ms=1.0,
        total_ms=2.0,
    )


def token(piece: str, logprob: float = -1.0, *, best: str | None = None) -> TokenLogprob:
    top = () if best is None else (TopLogprob(9, best, -0.25),)
    return TokenLogprob(1, piece, logprob, top)


PROMPT = (token("a", 0.0), token(" cat", -2.0, best=" dog"))
ANSWER = (token(" sat", -0.5, best=" sat"),)


def choice(
    prompt: Prompt,
    of_prompt: tuple[TokenLogprob, ...],
    of_answer: tuple[TokenLogprob, ...] = ANSWER,
    *,
    is_prompt_only: bool = False,
    told_before: tuple[TokenLogprob, ...] = (),
) -> Any:
    answer = ScoredAnswer(prompts=("", prompt), is_prompt_only=is_prompt_only)
    answer.take("", told_before)
    answer.take(" sat", of_prompt + of_answer)
    return answer.choice(1, outcome(len(of_prompt), len(of_answer)))


def test_the_prompt_s_tokens_come_first_and_of_them_the_first_has_nothing() -> None:
    assert choice("a cat", PROMPT) == {
        "text": "a cat sat",
        "index": 1,
        "logprobs": {
            "tokens": ["a", " cat", " sat"],
            "token_logprobs": [None, -2.0, -0.5],
            "top_logprobs": [None, {" dog": -0.25}, {" sat": -0.25}],
            "text_offset": [0, 1, 5],
        },
        "finish_reason": "stop",
    }


def test_a_prompt_of_token_ids_is_echoed_as_their_text() -> None:
    assert choice((5, 6), PROMPT)["text"] == "a cat sat"
    parts = tuple(token(byte) for byte in EURO)
    shown = choice((5, 6, 7), parts)
    assert shown["text"] == "€ sat"
    assert shown["logprobs"]["text_offset"] == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("pieces", "offsets"),
    [
        (("<s>", "a", " cat"), [0, 0, 1, 5]),  # a token for the start
        ((" a", " cat"), [0, 1, 5]),  # a space before the first word
    ],
)
def test_places_are_those_in_the_text_that_was_sent(
    pieces: tuple[str, ...], offsets: list[int]
) -> None:
    shown = choice("a cat", tuple(map(token, pieces)))
    assert (shown["text"], shown["logprobs"]["text_offset"]) == ("a cat sat", offsets)


def test_of_a_prompt_alone_no_answer_is_shown_or_counted() -> None:
    shown = choice("a cat", PROMPT, is_prompt_only=True)
    assert (shown["text"], shown["finish_reason"]) == ("a cat", "length")
    assert shown["logprobs"]["tokens"] == ["a", " cat"]
    raw = msgspec.Raw(msgspec.json.encode(shown))
    for is_prompt_only, counted in ((True, 0), (False, 1)):
        body = json.loads(scored_body(HEAD, [raw], outcome(2, 1), is_prompt_only=is_prompt_only))
        assert body["usage"]["completion_tokens"] == counted
        assert body["usage"]["total_tokens"] == 2 + counted


def test_what_a_lost_agent_had_told_is_not_told_twice() -> None:
    assert choice("a cat", PROMPT, told_before=PROMPT[:1]) == choice("a cat", PROMPT)


def test_an_agent_that_tells_too_few_is_to_blame() -> None:
    with pytest.raises(UpstreamFailed, match="older"):
        ScoredAnswer(prompts=("a cat",), is_prompt_only=False).choice(0, outcome(2, 1))
