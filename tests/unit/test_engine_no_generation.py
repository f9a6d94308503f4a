"""What a model that only makes embeddings says to calls that would have it generate."""

from __future__ import annotations

from agent.engine.frames import ContinueCall, Submit
from agent.engine.no_generation import NoGeneration
from protocol.refusals import RefusalCode


def test_a_call_is_refused_with_the_next_step() -> None:
    serving = NoGeneration()
    serving.submit(Submit(call=1, prompt="hello"))
    step = serving.turn()
    assert step is not None
    assert [(one.call, one.code) for one in step.refused] == [(1, RefusalCode.UNSUPPORTED)]
    assert serving.turn() is None


def test_a_call_that_is_continued_after_its_refusal_is_no_silence() -> None:
    serving = NoGeneration()
    serving.go_on(ContinueCall(call=1))
    assert serving.turn() is not None
    assert serving.turn() is None
