"""Calls whose prompts are tokenised beside the loop, so that running streams do not wait for it.

Such a call has been promised its slot. When its tokens are there it is admitted or refused, as one
whose prompt is short is at once; so a short call may overtake a long one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from agent.engine.frames import Submit
from agent.engine.llama.arrays import Ints
from agent.engine.llama.vocabulary import Vocabulary
from agent.engine.prompts import prompt_ids
from agent.engine.text_thread import LONG_TEXT_CHARS, TextJob, TextThread


class Admit(Protocol):
    """Takes a call whose tokens are there. `ids` returns them or raises `PromptRefused`."""

    def __call__(self, submit: Submit, ids: Callable[[], Ints], *, paused: bool) -> None: ...


@dataclass(slots=True, eq=False)
class _Waiting:
    job: TextJob[Ints]
    paused: bool = False


class LongPrompts:
    """The calls that wait for their tokens, no more of them than slots; none without a thread."""

    def __init__(
        self, texts: TextThread | None, vocabulary: Vocabulary, context: int, admit: Admit
    ) -> None:
        self._texts = texts
        self._vocabulary = vocabulary
        self._context = context
        self._admit = admit
        self._waiting: dict[int, _Waiting] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, call: int) -> bool:
        return call in self._waiting

    def takes(self, submit: Submit) -> bool:
        """Whether the prompt is for the thread. Text with media is not: the projector reads it."""
        if self._texts is None or submit.media or not isinstance(submit.prompt, str):
            return False
        return len(submit.prompt) + len(submit.suffix or "") > LONG_TEXT_CHARS

    def take(self, submit: Submit) -> None:
        """Have the prompt tokenised; a call that was promised a slot."""
        assert self._texts is not None
        work = partial(prompt_ids, submit, self._vocabulary, self._context)
        job = self._texts.do(work, partial(self._tokenized, submit), first=True)
        self._waiting[submit.call] = _Waiting(job)

    def forget(self, call: int) -> bool:
        """Drop a call that waits; False: it does not."""
        waiting = self._waiting.pop(call, None)
        if waiting is None or self._texts is None:
            return False
        self._texts.forget(waiting.job)
        return True

    def pause(self, call: int, *, paused: bool) -> None:
        """Have a call begin paused, or not. Unknown calls have no effect."""
        if call in self._waiting:
            self._waiting[call].paused = paused

    def _tokenized(self, submit: Submit, job: TextJob[Ints]) -> None:
        waiting = self._waiting.pop(submit.call)
        self._admit(submit, job.result, paused=waiting.paused)
