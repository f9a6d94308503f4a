"""An engine without a model: answers by a script, at a pace that the test sets.

Satisfies `agent.engine.engine.EngineDoor`, so that the real agent runs on it. Pieces are tokens:
piece i of an answer has token id i + 1; the end token has id 0. As the real one it counts the end
token in `usage`, frees a slot with `Ended`, and loses everything when it dies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from msgspec import structs

from agent.engine.death import EngineDeath, Phase
from agent.engine.engine import CallCommand, EngineListener
from agent.engine.frames import (
    Accepted,
    CacheNews,
    CallTokens,
    CancelCall,
    ContinueCall,
    Ended,
    EngineFacts,
    PauseCall,
    Refused,
    Step,
    Submit,
)
from agent.engine.query_frames import QueryAnswer
from agent.engine.standing import Standing
from protocol.generation import FinishReason, Timings, TokenLogprob, Usage
from protocol.refusals import RefusalCode

Pace = Literal["tick", "fast", "held"]
"""One step a loop tick; as many as `STEPS_A_TICK` a tick; only those that `allow` lets go."""
STEPS_A_TICK = 64
END_TOKEN = 0

PLAIN_TEMPLATE = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]"

FACTS = EngineFacts(
    slots=4,
    context_tokens=4096,
    kv_cells=16384,
    trained_context_tokens=4096,
    vocabulary=32000,
    size_bytes=1000,
    parameters=250,
    architecture="llama",
    name="fake",
    description="a fake model",
    chat_template=PLAIN_TEMPLATE,
    bos_token="",
    eos_token="</s>",
    adds_bos=False,
    tokenizer_digest="fake",
    llama_cpp_version="0",
    embedding_calls=16,
    embedding_dimensions=8,
)


@dataclass(slots=True)
class _Running:
    submit: Submit
    pieces: Sequence[str]
    done: int = 0
    paused: bool = False
    cancelled: bool = False
    new: bool = True
    prompt_tokens: int = 0


@dataclass(slots=True)
class _Events:
    """What a test awaits; set by the engine, never cleared by it."""

    ready: asyncio.Event = field(default_factory=asyncio.Event)
    submitted: asyncio.Event = field(default_factory=asyncio.Event)


def words(count: int) -> tuple[str, ...]:
    """A long answer: `w1 w2 w3 …`, one token each."""
    return tuple(f"w{number} " for number in range(1, count + 1))


class FakeEngine:
    """`answer` gives the pieces for a prompt. Set `pace` any time; `allow(n)` lets n more steps
    go while it is `held`. `ignore_submits` leaves calls without an answer."""

    def __init__(
        self,
        answer: Callable[[Submit], Sequence[str]] | Sequence[str] = ("Hel", "lo", "."),
        *,
        facts: EngineFacts = FACTS,
        slots: int = 4,
        pace: Pace = "tick",
        ready: bool = True,
    ) -> None:
        self._answer = answer if callable(answer) else lambda _: answer
        self._loaded_facts = structs.replace(facts, slots=slots)
        self._pace: Pace = pace
        self._allowed = 0
        self._wake = asyncio.Event()
        self._running: dict[int, _Running] = {}
        self._refused: list[Refused] = []
        self._refusals: list[tuple[int, str]] = []
        self._cache_news: list[CacheNews] = []
        self._listener: EngineListener | None = None
        self._death: EngineDeath | None = None
        self._may_load = asyncio.Event()
        if ready:
            self._may_load.set()
        self._step = 0
        self.facts: EngineFacts | None = None
        self.events = _Events()
        self.commands: list[CallCommand] = []
        self.ignore_submits = False
        self.stands: Standing | None = None
        self.most_running = 0

    # --- what a test does ---

    @property
    def submits(self) -> list[Submit]:
        """Every call that came, in order."""
        return [command for command in self.commands if isinstance(command, Submit)]

    @property
    def running(self) -> int:
        """Calls that hold a slot."""
        return len(self._running)

    @property
    def pace(self) -> Pace:
        """How fast steps follow each other."""
        return self._pace

    @pace.setter
    def pace(self, pace: Pace) -> None:
        self._pace = pace
        self._wake.set()

    def allow(self, steps: int) -> None:
        """While `held`: so many steps more."""
        self._allowed += steps
        self._wake.set()

    def refuse_next(self, code: int, message: str = "refused by the script") -> None:
        """The next call that comes is refused."""
        self._refusals.append((code, message))

    def tell_cache(self, *news: CacheNews) -> None:
        """The next step says so of the cache."""
        self._cache_news += news
        self._wake.set()

    def answer(self, answer: QueryAnswer) -> None:
        """Answer a query; they come in `commands`."""
        assert self._listener is not None
        self._listener.on_answer(answer)

    def die(
        self, signal: str = "SIGKILL", *, phase: Phase = "serving", stay_dead: bool = False
    ) -> None:
        """All calls are lost; it comes back at once, unless it is to wait for `revive`."""
        if stay_dead:
            self._may_load.clear()
        self._death = EngineDeath(
            signal=signal, exit_code=None, phase=phase, step=self._step, message=f"died: {signal}"
        )
        self._wake.set()

    def revive(self) -> None:
        """Load the model, for the first time or again."""
        self._may_load.set()

    # --- EngineDoor ---

    @property
    def standing(self) -> Standing:
        """What the test set; else serving while it is ready."""
        return self.stands or Standing(phase="serving" if self.facts else "down")

    async def run(self, listener: EngineListener) -> None:
        """Live and die as told until cancelled."""
        try:
            while True:
                await self._may_load.wait()
                self.facts = self._loaded_facts
                self._listener = listener
                listener.on_ready(self.facts)
                self.events.ready.set()
                death = await self._serve(listener)
                self.facts = None
                self._running.clear()
                self._refused.clear()
                listener.on_died(death)
        finally:
            self.facts = None

    def send(self, command: CallCommand) -> None:
        """Take a command; dropped while not ready."""
        if self.facts is None:
            return
        self.commands.append(command)
        match command:
            case Submit():
                self._submit(command)
            case CancelCall() if command.call in self._running:
                self._running[command.call].cancelled = True
            case PauseCall() if command.call in self._running:
                self._running[command.call].paused = True
            case ContinueCall() if command.call in self._running:
                self._running[command.call].paused = False
            case _:
                pass
        self._wake.set()

    def _submit(self, submit: Submit) -> None:
        self.events.submitted.set()
        if self.ignore_submits:
            return
        if self._refusals:
            self._refused.append(Refused(submit.call, *self._refusals.pop(0)))
        elif len(self._running) >= self._loaded_facts.slots:
            self._refused.append(Refused(submit.call, RefusalCode.NO_FREE_SLOT, "all slots taken"))
        else:
            prompt = submit.prompt
            self._running[submit.call] = _Running(
                submit,
                self._answer(submit),
                done=len(submit.resume_ids),
                prompt_tokens=len(prompt.split()) if isinstance(prompt, str) else len(prompt),
            )
            self.most_running = max(self.most_running, len(self._running))

    async def _serve(self, listener: EngineListener) -> EngineDeath:
        while True:
            await self._wake.wait()
            if self._death is not None:
                death, self._death = self._death, None
                return death
            for _ in range(STEPS_A_TICK if self._pace == "fast" else 1):
                if not self._turn(listener):
                    break
            await asyncio.sleep(0)

    def _turn(self, listener: EngineListener) -> bool:
        """One step; False if there was nothing to do."""
        may_decode = self._pace != "held" or self._allowed > 0
        step = self._step_now(may_decode=may_decode)
        if step is None:
            self._wake.clear()
            return False
        if step.tokens and self._pace == "held":
            self._allowed -= 1
        listener.on_step(step)
        return True

    def _step_now(self, *, may_decode: bool) -> Step | None:
        accepted, tokens, ended = [], [], []
        refused, self._refused = tuple(self._refused), []
        for number, call in list(self._running.items()):
            if call.new:
                call.new = False
                accepted.append(self._accepted(number, call))
            if call.cancelled:
                ended.append(self._ended(number, call, "cancelled"))
            elif may_decode and not call.paused:
                tokens.append(self._decoded(number, call))
                reason = _finish_reason(call, self._cap(call))
                if reason is not None:
                    ended.append(self._ended(number, call, reason))
        cache, self._cache_news = tuple(self._cache_news), []
        if not (accepted or refused or tokens or ended or cache):
            return None
        self._step += bool(tokens)
        return Step(
            number=self._step,
            accepted=tuple(accepted),
            refused=refused,
            tokens=tuple(tokens),
            ended=tuple(ended),
            has_work=any(not call.paused for call in self._running.values()),
            kv_cells_used=sum(call.prompt_tokens + call.done for call in self._running.values()),
            cache=cache,
        )

    def _accepted(self, number: int, call: _Running) -> Accepted:
        texts = tuple(call.pieces[: len(call.submit.resume_ids)])
        return Accepted(number, call.prompt_tokens, self._cap(call), texts)

    def _cap(self, call: _Running) -> int:
        left = self._loaded_facts.context_tokens - call.prompt_tokens
        return left if call.submit.max_tokens is None else min(left, call.submit.max_tokens)

    def _decoded(self, number: int, call: _Running) -> CallTokens:
        at_end = call.done >= len(call.pieces)
        token = END_TOKEN if at_end else call.done + 1
        text = "" if at_end else call.pieces[call.done]
        call.done += 1
        wants = call.submit.sampling.top_logprobs is not None
        logprobs = (TokenLogprob(token, text, -0.5),) if wants else ()
        return CallTokens(number, (token,), text, logprobs)

    def _ended(self, number: int, call: _Running, reason: FinishReason) -> Ended:
        del self._running[number]
        usage = Usage(prompt_tokens=call.prompt_tokens, completion_tokens=call.done)
        return Ended(number, reason, usage, Timings(prefill_ms=1.0, decode_ms=2.0))


def _finish_reason(call: _Running, cap: int) -> FinishReason | None:
    if call.done > len(call.pieces):
        return "stop"
    return "length" if call.done >= cap else None
