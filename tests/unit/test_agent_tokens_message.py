"""A step's tokens as one message, or as several that fit their frames and say the same."""

from __future__ import annotations

import pytest

from agent.chat.output import joined
from agent.commands.tokens_message import encode_tokens
from protocol.codec import BALANCER_RECEIVES, MAX_TEXT_FRAME_BYTES
from protocol.generation import (
    ContentDelta,
    ReasoningDelta,
    StepDelta,
    TokenLogprob,
    ToolCallDelta,
)
from protocol.jsonrpc import CallId, Notification
from protocol.to_balancer import PrefillProgress, Tokens


def sent(tokens: Tokens) -> list[Tokens]:
    messages = list(encode_tokens(tokens))
    assert all(len(message) <= MAX_TEXT_FRAME_BYTES for message in messages)
    decoded = [message for data in messages for message in BALANCER_RECEIVES.decode(data)]
    params = [message.params for message in decoded if isinstance(message, Notification)]
    return [tokens for tokens in params if isinstance(tokens, Tokens)]


def put_together(parts: list[Tokens], call: CallId) -> tuple[StepDelta, list[int]]:
    delta: StepDelta = ""
    ids: list[int] = []
    for part in parts:
        for index, owner in enumerate(part.calls):
            if owner == call:
                delta = joined(delta, part.deltas[index])
                ids += part.token_ids[index]
    return delta, ids


def test_an_ordinary_step_is_one_message() -> None:
    tokens = Tokens(calls=(1, 2), token_ids=((5,), (6,)), deltas=("a", "b"))
    assert sent(tokens) == [tokens]


@pytest.mark.parametrize("character", ["a", "\n", "\0", "😀"])
def test_one_call_s_huge_text_is_cut(character: str) -> None:
    text = character * 300_000
    parts = sent(Tokens(calls=("x",), token_ids=((5,),), deltas=(text,)))
    assert len(parts) > 1
    assert put_together(parts, "x") == (text, [5])


def test_huge_typed_deltas_are_cut_within_their_kinds() -> None:
    delta = (
        ReasoningDelta("r" * 200_000),
        ContentDelta("c" * 200_000),
        ToolCallDelta(index=0, id="call_1", name="f"),
        ToolCallDelta(index=0, arguments="a" * 200_000),
    )
    parts = sent(Tokens(calls=(1,), token_ids=((5, 6),), deltas=(delta,)))
    assert put_together(parts, 1) == (delta, [5, 6])


def test_the_many_log_probabilities_of_a_scored_prompt_are_cut_and_its_token_comes_last() -> None:
    entries = tuple(TokenLogprob(one, "\0" * 100, -1.0) for one in range(2000))
    tokens = Tokens(
        calls=(1,),
        token_ids=((5,),),
        deltas=("a",),
        logprobs=(entries,),
        prefill=(PrefillProgress(2, 1, 2),),
        sampler_states=((0.5,),),
    )
    parts = sent(tokens)
    assert len(parts) > 2
    assert put_together(parts, 1) == ("a", [5])
    told = [entry for part in parts for one in part.logprobs for entry in one]
    assert tuple(told) == entries
    with_token = next(part for part in parts if part.token_ids == ((5,),))
    assert with_token.logprobs[0][-1] == entries[-1]
    assert with_token.sampler_states == ((0.5,),)
    assert [part.prefill for part in parts if part.prefill] == [tokens.prefill]


def test_many_calls_large_together_are_halved() -> None:
    calls = tuple(range(64))
    tokens = Tokens(
        calls=calls,
        token_ids=tuple((call,) for call in calls),
        deltas=("x" * 10_000,) * 63 + ("y" * 400_000,),
        prefill=(PrefillProgress(99, 1, 2),),
        sampler_states=tuple((call / 2,) for call in calls),
    )
    parts = sent(tokens)
    pairs = [pair for part in parts for pair in zip(part.calls, part.sampler_states, strict=False)]
    assert dict(pairs) == {call: (call / 2,) for call in calls}
    for call in calls:
        text = "x" * 10_000 if call < 63 else "y" * 400_000
        assert put_together(parts, call) == (text, [call])
    assert sum(len(part.prefill) for part in parts) == 1
