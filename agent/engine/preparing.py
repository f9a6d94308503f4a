"""Calls whose prompt or grammar takes so long to make ready that running streams would wait for
it: that is done beside the loop.

Such a call has been promised its slot. When it is ready it is admitted or refused, as one that is
quickly made ready is at once; so a call that came later may overtake it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from agent.engine.frames import Submit
from agent.engine.intake import Intake, Prepared
from agent.engine.text_thread import TextJob, TextThread
from protocol.invariants import present


class Admit(Protocol):
    """Takes a call that is ready. `prepared` returns what was made or raises `PromptRefused`."""

    def __call__(
        self, submit: Submit, prepared: Callable[[], Prepared], *, paused: bool
    ) -> None: ...


@dataclass(slots=True, eq=False)
class _Waiting:
    job: TextJob[Prepared]
    paused: bool = False


class Preparing:
    """The calls that are made ready, no more of them than slots; none without a thread."""

    def __init__(self, texts: TextThread | None, intake: Intake, admit: Admit) -> None:
        self._texts = texts
        self._intake = intake
        self._admit = admit
        self._waiting: dict[int, _Waiting] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, call: int) -> bool:
        return call in self._waiting

    def takes(self, submit: Submit) -> bool:
        """Whether the call is for the thread."""
        return self._texts is not None and self._intake.takes_long(submit)

    def take(self, submit: Submit) -> None:
        """Have a call made ready that was promised a slot."""
        texts = present(self._texts)
        work = partial(self._intake.prepared, submit)
        job = texts.do(work, partial(self._ready, submit), first=True)
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

    def _ready(self, submit: Submit, job: TextJob[Prepared]) -> None:
        waiting = self._waiting.pop(submit.call)
        self._admit(submit, job.result, paused=waiting.paused)
