"""Frames between the agent and its engine process."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.engine.frames import (
    MAX_FRAME_BYTES,
    Accepted,
    CallFailed,
    CallProgress,
    CallTokens,
    CancelCall,
    Command,
    ContinueCall,
    Ended,
    EngineOptions,
    Event,
    FrameBuffer,
    Loaded,
    LoadFailed,
    LoadProgress,
    PauseCall,
    Refused,
    Sampling,
    Shutdown,
    Start,
    Step,
    Submit,
    command_decoder,
    encode,
    event_decoder,
)
from protocol.generation import Timings, TokenLogprob, TopLogprob, Usage

COMMANDS: tuple[Command, ...] = (
    Start(options=EngineOptions(model_path="m.gguf", slots=2)),
    Submit(call=1, prompt="text", stop=("a", "b"), resume_ids=(1, 2), resume_emitted_chars=3),
    Submit(
        call=3,
        prompt="text",
        sampling=Sampling(mirostat=2, dry_multiplier=0.5, dry_sequence_breakers=("é", "\n")),
        resume_ids=(1,),
        resume_sampler_state=(9.1,),
    ),
    Submit(call=2, prompt=(1, 2, 3), sampling=Sampling(seed=2**63 - 1, logit_bias=((1, -2.5),))),
    CancelCall(call=1),
    PauseCall(call=1),
    ContinueCall(call=1),
    Shutdown(),
)
STEP = Step(
    number=7,
    accepted=(Accepted(1, 10, 20, ("x", ""), 5),),
    refused=(Refused(2, -32000, "no"),),
    tokens=(
        CallTokens(1, (5,), "é", (TokenLogprob(5, "Ã©", -0.5, (TopLogprob(6, "a", -1.0),)),)),
        CallTokens(6, (5,), "é", sampler_state=(0.1 + 0.2,)),
    ),
    prefill=(CallProgress(3, 1, 2),),
    ended=(
        Ended(4, "stop", Usage(prompt_tokens=1, completion_tokens=2), Timings(decode_ms=1.5), "x"),
    ),
    has_work=True,
    kv_cells_used=12,
    failed=(CallFailed(5, -32006, "why"),),
    waiting=(3,),
)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: type(command).__name__)
def test_every_command_arrives_as_it_was_sent(command: Command) -> None:
    (body,) = FrameBuffer().feed(encode(command))
    assert command_decoder.decode(body) == command


@pytest.mark.parametrize(
    "event", [STEP, LoadProgress(fraction=0.5), Loaded(), LoadFailed(message="no", final=True)]
)
def test_every_event_arrives_as_it_was_sent(event: Event) -> None:
    (body,) = FrameBuffer().feed(encode(event))
    assert event_decoder.decode(body) == event


@given(st.lists(st.integers(0, 400), max_size=20))
def test_frames_survive_any_cut_of_the_stream(cuts: list[int]) -> None:
    data = b"".join(map(encode, COMMANDS))
    borders = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    buffer = FrameBuffer()
    bodies = [body for a, b in pairwise(borders) for body in buffer.feed(data[a:b])]
    assert tuple(map(command_decoder.decode, bodies)) == COMMANDS


def test_a_frame_over_the_limit_is_refused_before_it_is_collected() -> None:
    with pytest.raises(ValueError, match="are allowed"):
        FrameBuffer().feed((MAX_FRAME_BYTES + 1).to_bytes(4, "little"))


@given(st.binary(max_size=200))
def test_garbage_is_one_kind_of_error(data: bytes) -> None:
    try:
        command_decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return
