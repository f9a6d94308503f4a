"""How an engine process ended, told so that a person knows what to do next. Pure."""

from __future__ import annotations

import signal
from typing import Literal

from msgspec import Struct

Phase = Literal["loading", "starting_decode", "serving"]

BUILD_REMEDY = (
    "The llama.cpp build probably uses instructions that this machine cannot run. Build it for "
    "this machine: `make clean-llama`, then start again. Where that does not help, leave "
    'instruction sets out: CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_AVX512=OFF -DGGML_AVX_VNNI=OFF" '
    "(AMX is never built in by itself)."
)
MEMORY_REMEDY = (
    "If nobody killed it, the machine ran out of memory (see `dmesg`): use a smaller model, "
    "fewer --slots, a smaller --context or --cache-type q8_0."
)
FIT_REMEDY = (
    "With --fit off the model is loaded without a look at the memory there is: leave it out, and "
    "the agent says what fits, or set a smaller --context or fewer --slots."
)
REDUCING_REMEDY = (
    "Backend sampling was wanted, whose graphs may not fit the GPU: try --backend-sampling off."
)
_MEMORY_WORDS = ("alloc", "cannot make a context")
"""In what llama.cpp and we say where memory is missing."""
_BAD_INSTRUCTIONS = frozenset({"SIGILL", "SIGSEGV", "SIGBUS", "SIGFPE"})


class EngineDeath(Struct, frozen=True, kw_only=True):
    """The end of an engine process that nobody asked for.

    `signal` is a name as "SIGKILL", "" if the process exited by itself, then with `exit_code`.
    `step` is the last decode step it told of. `message` has the remedy in it. `final`: the next one
    would end likewise.
    """

    signal: str
    exit_code: int | None
    phase: Phase
    step: int
    message: str
    final: bool = False


def explain(
    return_code: int,
    phase: Phase,
    step: int,
    *,
    load_failure: str = "",
    final: bool = False,
    last_words: str = "",
    is_fitted: bool = True,
    may_reduce_rows: bool = False,
) -> EngineDeath:
    """The death behind a process's return code (negative: a signal's number).

    `load_failure` is what the engine itself said, and `final` how it meant that; `last_words` the
    last line of its error output. `is_fitted`: the model was seen to fit the memory.
    `may_reduce_rows`: backend sampling is wanted where there is a GPU, or anywhere.
    """
    name = _signal_name(-return_code) if return_code < 0 else ""
    message = load_failure or _message(name, return_code, phase, step, last_words)
    if phase != "serving" and not (is_fitted or final) and _is_for_memory(name, message):
        message = f"{message} {FIT_REMEDY}"
    if (name, phase) == ("SIGABRT", "starting_decode") and may_reduce_rows:
        message = f"{message} {REDUCING_REMEDY}"
    return EngineDeath(
        signal=name,
        exit_code=None if name else return_code,
        phase=phase,
        step=step,
        message=message,
        final=final,
    )


def _message(name: str, return_code: int, phase: Phase, step: int, last_words: str) -> str:
    how = f"was ended by {name}" if name else f"exited with code {return_code}"
    where = {
        "loading": "while it loaded the model",
        "starting_decode": "in its start-up decode",
        "serving": f"while it served, at step {step}",
    }[phase]
    parts = [f"The engine process {how} {where}."]
    if last_words:
        parts.append(f"It last said: {last_words}")
    if name in _BAD_INSTRUCTIONS and phase != "serving":
        parts.append(BUILD_REMEDY)
    if name == "SIGKILL":
        parts.append(MEMORY_REMEDY)
    return " ".join(parts)


def _is_for_memory(name: str, message: str) -> bool:
    return name == "SIGKILL" or any(words in message for words in _MEMORY_WORDS)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
