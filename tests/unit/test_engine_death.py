"""What the agent says about an engine that died."""

from __future__ import annotations

import signal

import pytest

from agent.engine.death import FIT_REMEDY, REDUCING_REMEDY, EngineDeath, Phase, explain


@pytest.mark.parametrize("phase", ["loading", "starting_decode"])
@pytest.mark.parametrize("number", [signal.SIGILL, signal.SIGSEGV])
def test_a_bad_instruction_before_serving_says_which_build_to_make(
    phase: Phase, number: signal.Signals
) -> None:
    death = explain(-number, phase, 0)
    assert death.signal == number.name
    assert death.exit_code is None
    assert "make clean-llama" in death.message
    assert "CMAKE_ARGS" in death.message


def test_a_crash_while_serving_names_signal_and_step_and_no_build() -> None:
    death = explain(-signal.SIGSEGV, "serving", 17)
    assert "SIGSEGV" in death.message
    assert "step 17" in death.message
    assert "make clean-llama" not in death.message


def test_a_kill_points_at_memory() -> None:
    assert "memory" in explain(-signal.SIGKILL, "serving", 3).message


def test_an_assertion_brings_its_last_words() -> None:
    death = explain(-signal.SIGABRT, "serving", 3, last_words="GGML_ASSERT(a == b) failed")
    assert "GGML_ASSERT(a == b) failed" in death.message


def test_what_the_engine_said_itself_is_all_there_is_to_say() -> None:
    death = explain(3, "loading", 0, load_failure="no such file")
    assert death == EngineDeath(
        signal="", exit_code=3, phase="loading", step=0, message="no such file"
    )


def test_signals_without_a_name_have_their_number() -> None:
    assert explain(-99, "serving", 0).signal == "signal 99"


@pytest.mark.parametrize("return_code", [3, -signal.SIGKILL])
def test_a_load_that_fails_without_a_look_at_the_memory_says_that_a_look_helps(
    return_code: int,
) -> None:
    said = "llama.cpp cannot make a context of 9 tokens." if return_code > 0 else ""
    blind = explain(return_code, "loading", 0, load_failure=said, is_fitted=False).message
    seeing = explain(return_code, "loading", 0, load_failure=said).message
    assert blind == f"{seeing} {FIT_REMEDY}"
    assert "--fit off" in FIT_REMEDY


def test_a_load_that_ends_for_want_of_a_buffer_says_that_a_look_helps() -> None:
    words = "ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 9"
    death = explain(-signal.SIGABRT, "loading", 0, last_words=words, is_fitted=False)
    assert death.message.endswith(FIT_REMEDY)


def test_a_load_that_fails_for_another_reason_says_nothing_of_memory() -> None:
    said = "The file is of an architecture that this llama.cpp does not know."
    death = explain(3, "loading", 0, load_failure=said, is_fitted=False)
    assert death.message == said
    assert FIT_REMEDY not in explain(-signal.SIGILL, "loading", 0, is_fitted=False).message


def test_an_abort_in_the_first_decode_points_at_backend_sampling_where_it_was_wanted() -> None:
    wanted = explain(-signal.SIGABRT, "starting_decode", 0, may_reduce_rows=True)
    assert wanted.message.endswith(REDUCING_REMEDY)
    for death in (
        explain(-signal.SIGABRT, "starting_decode", 0),
        explain(-signal.SIGABRT, "loading", 0, may_reduce_rows=True),
        explain(-signal.SIGILL, "starting_decode", 0, may_reduce_rows=True),
    ):
        assert REDUCING_REMEDY not in death.message


def test_a_damaged_file_or_a_crash_while_serving_is_not_for_want_of_a_look() -> None:
    final = explain(3, "loading", 0, load_failure="Damaged.", final=True, is_fitted=False)
    assert final.message == "Damaged."
    assert "--fit" not in explain(-signal.SIGKILL, "serving", 3, is_fitted=False).message
