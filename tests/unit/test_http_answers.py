"""A generation's output in OpenAI's shapes, held by golden files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from balancer.dispatch.sink import Outcome
from balancer.http.openai.chat_answer import ChatAnswer, ChatChunks
from balancer.http.openai.completion_answer import CompletionAnswer, CompletionChunks
from balancer.http.openai.ending import whole_body
from balancer.http.shape import AnswerHead
from protocol.generation import (
    ContentDelta,
    ReasoningDelta,
    StepDelta,
    Timings,
    TokenLogprob,
    ToolCallDelta,
    TopLogprob,
    Usage,
)

GOLDEN = Path(__file__).parent / "golden" / "openai"
HEAD = AnswerHead(id="chatcmpl-1", created=1_700_000_000, model="demo", request_id="req_1")
OUTCOME = Outcome(
    finish_reason="stop",
    stop_sequence=None,
    usage=Usage(prompt_tokens=7, completion_tokens=4, cached_tokens=2, reasoning_tokens=1),
    timings=Timings(decode_ms=20.0, draft_steps=3, drafted_tokens=9, accepted_draft_tokens=6),
    agent="one",
    attempts=2,
    queue_ms=5.0,
    ttft_ms=8.0,
    total_ms=30.0,
)
EURO = "\u00e2\u0082\u00ac"
"""The euro sign's three bytes as the link carries them."""
Steps = list[tuple[StepDelta, tuple[TokenLogprob, ...]]]

TEXT: Steps = [('Hel"lo\n', ()), ("", ()), (" wörld €", ())]
PROBABLE: Steps = [
    ("", (TokenLogprob(1, EURO[:2], -0.5),)),
    ("€", (TokenLogprob(2, EURO[2:], -0.25, (TopLogprob(2, EURO[2:], -0.25),)),)),
]
TYPED: Steps = [
    ((ReasoningDelta("hm"), ContentDelta("So:")), ()),
    ((ToolCallDelta(0, "c1", "look", '{"a":'),), ()),
    ((ToolCallDelta(0, arguments="1}"), ToolCallDelta(1, "c2", "see", "{}")), ()),
]
CASES: dict[str, Steps] = {"text": TEXT, "logprobs": PROBABLE, "typed": TYPED}


def _chat_stream(steps: Steps) -> bytes:
    return _streamed(ChatChunks(HEAD, include_usage=True), steps)


def _chat_body(steps: Steps) -> bytes:
    answer = ChatAnswer(with_logprobs=steps is PROBABLE)
    for delta, logprobs in steps:
        answer.take(delta, logprobs)
    return whole_body(HEAD, [answer.choice(0, OUTCOME)], OUTCOME, kind="chat.completion") + b"\n"


def _completion_stream(steps: Steps) -> bytes:
    return _streamed(CompletionChunks(HEAD, include_usage=False), steps)


def _completion_body(steps: Steps) -> bytes:
    answer = CompletionAnswer(with_logprobs=steps is PROBABLE)
    for delta, logprobs in steps:
        answer.take(delta, logprobs)
    return whole_body(HEAD, [answer.choice(0, OUTCOME)], OUTCOME, kind="text_completion") + b"\n"


def _streamed(chunks: ChatChunks | CompletionChunks, steps: Steps) -> bytes:
    pieces = [chunks.opening()]
    pieces += [chunks.tokens(delta, logprobs) for delta, logprobs in steps]
    return b"".join([*pieces, chunks.closing(OUTCOME, OUTCOME)])


SHAPES: dict[str, Callable[[Steps], bytes]] = {
    "chat.sse": _chat_stream,
    "chat.json": _chat_body,
    "completion.sse": _completion_stream,
    "completion.json": _completion_body,
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("shape", SHAPES)
def test_an_answer_has_the_golden_shape(shape: str, case: str) -> None:
    golden = GOLDEN / f"{case}.{shape}"
    assert SHAPES[shape](CASES[case]) == golden.read_bytes()


def test_a_step_without_text_and_logprobs_is_no_event() -> None:
    assert ChatChunks(HEAD, include_usage=False).tokens("", ()) == b""
    assert CompletionChunks(HEAD, include_usage=False).tokens("", ()) == b""
