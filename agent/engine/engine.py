"""The agent's side of the engine process: spawn it, talk to it, restart it, end it.

The process is exec'd, never forked, and must be spawned from the main thread: the kernel ends it
when the thread that spawned it ends (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from contextlib import suppress
from typing import Protocol

import structlog

from agent.engine.death import EngineDeath, Phase, explain
from agent.engine.engine_link import EngineLink
from agent.engine.frames import (
    CancelCall,
    ContinueCall,
    EngineFacts,
    EngineOptions,
    Event,
    Loaded,
    LoadFailed,
    LoadProgress,
    PauseCall,
    Ready,
    Shutdown,
    Start,
    Step,
    Submit,
)
from agent.engine.last_words import LastWords
from agent.engine.query_frames import MoveCall, QueryAnswer, QueryCall
from agent.engine.standing import LOAD_PATIENCE_S, Standing
from agent.engine.watchdog import Watchdog
from agent.errors import ModelRejected
from agent.killable.environment import for_children

__all__ = ["CallCommand", "Engine", "EngineDeath", "EngineDoor", "EngineListener"]

log = structlog.get_logger()

FIRST_BACKOFF_S = 0.2
LONGEST_BACKOFF_S = 5.0
LONGEST_LOAD_BACKOFF_S = 30.0
"""Where not even the load succeeds: only the machine or a person can change that."""
SERVED_LONG_ENOUGH_S = 10.0
SHUTDOWN_GRACE_S = 2.0
WATCH_INTERVAL_S = 1.0
STOOD_STILL = (
    "The engine stood still over its work and was ended; a driver or the machine hangs, or one "
    "micro-batch takes longer than all before (a smaller --micro-batch then helps)."
)

CallCommand = Submit | CancelCall | PauseCall | ContinueCall | QueryCall | MoveCall


class EngineListener(Protocol):
    """Who hears from the engine. Called synchronously on the event loop; must not raise."""

    def on_load_progress(self, fraction: float) -> None:
        """So much of the model is loaded; a few times a second at most."""

    def on_ready(self, facts: EngineFacts) -> None:
        """The model is loaded; calls may be sent."""

    def on_step(self, step: Step) -> None:
        """One decode step's news of all calls."""

    def on_answer(self, answer: QueryAnswer) -> None:
        """A query is answered or refused."""

    def on_died(self, death: EngineDeath) -> None:
        """All running calls are lost; a restart follows by itself, unless the first start failed
        for good."""


class EngineDoor(Protocol):
    """What the agent knows of its engine."""

    @property
    def facts(self) -> EngineFacts | None:
        """The model's facts while it is ready, else None."""

    @property
    def standing(self) -> Standing:
        """Whether it does what is due."""

    async def run(self, listener: EngineListener) -> None:
        """Keep an engine alive until cancelled; then end it within a bound.

        Raises `ModelRejected` if the model could never be served, and trying again cannot help.
        """

    def send(self, command: CallCommand) -> None:
        """Hand over a command; dropped while no engine is ready."""


class Engine:
    """One engine process at a time, restarted when it dies.

    A process that dies soon is restarted after 0.2 s, doubling to 5 s, and to 30 s where it was not
    even ready; one that served for 10 s starts the count anew. A load that failed for good is not
    repeated, unless the model was served before: its file may be about to be replaced.
    """

    def __init__(self, options: EngineOptions) -> None:
        self._options = options
        self._life: _Life | None = None

    @property
    def facts(self) -> EngineFacts | None:
        """The model's facts while it is ready, else None."""
        return self._life.facts if self._life else None

    @property
    def standing(self) -> Standing:
        """Whether it does what is due."""
        return self._life.standing() if self._life else Standing()

    @property
    def pid(self) -> int | None:
        """The engine's process id, if one runs."""
        return self._life.pid if self._life else None

    def send(self, command: CallCommand) -> None:
        """Hand over a command; dropped while no engine is ready."""
        if self._life and self._life.facts:
            if isinstance(command, Submit | ContinueCall):
                self._life.watchdog.asked(self._life.clock())
            self._life.link.send(command)

    async def run(self, listener: EngineListener) -> None:
        """Spawn, supervise and restart until cancelled; the process is gone when this returns.

        Raises `ModelRejected` if the first load failed for good.
        """
        backoff_s = FIRST_BACKOFF_S
        was_ready = False
        while True:
            death, served_s = await self._live_once(listener)
            was_ready = was_ready or served_s > 0
            if served_s > SERVED_LONG_ENOUGH_S:
                backoff_s = FIRST_BACKOFF_S
            longest_s = LONGEST_BACKOFF_S if served_s > 0 else LONGEST_LOAD_BACKOFF_S
            backoff_s = min(backoff_s, longest_s)
            gives_up = death.final and not was_ready
            _log_death(death, next_try_s=None if gives_up else backoff_s)
            listener.on_died(death)
            if gives_up:
                raise ModelRejected(death.message)
            await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, longest_s)

    async def _live_once(self, listener: EngineListener) -> tuple[EngineDeath, float]:
        """How the process ended, and for how many seconds it could serve."""
        life = self._life = _Life(listener)
        try:
            death = await life.run(self._options)
        except OSError as error:
            message = f"The engine process could not be started: {error}."
            return explain(error.errno or 1, "loading", 0, load_failure=message), 0.0
        else:
            return death, life.served_s()
        finally:
            self._life = None


class _Life:
    """One engine process from spawn to death."""

    def __init__(self, listener: EngineListener) -> None:
        self._listener = listener
        self._process: asyncio.subprocess.Process | None = None
        self._phase: Phase = "loading"
        self._step = 0
        self._load_failure = ""
        self._is_final = False
        self._reads_weights = False
        self.clock = asyncio.get_running_loop().time
        self.watchdog = Watchdog()
        self._loaded = 0.0
        self._load_heard_at = self.clock()
        self._loaded_at = 0.0
        self._stood_still = False
        self._ready_at: float | None = None
        self._last_words = LastWords()
        self.facts: EngineFacts | None = None
        self.link = EngineLink(self._on_event, self._kill)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def served_s(self) -> float:
        """Seconds since the engine was ready; loading does not count."""
        return 0.0 if self._ready_at is None else self.clock() - self._ready_at

    def standing(self) -> Standing:
        """Whether it does what is due."""
        now = self.clock()
        if self._ready_at is None:
            return Standing(
                phase="loading",
                loaded=self._loaded,
                silent_s=now - self._load_heard_at,
                patience_s=LOAD_PATIENCE_S,
            )
        return Standing(
            phase="serving",
            loaded=1.0,
            silent_s=self.watchdog.silent_s(now),
            patience_s=self.watchdog.patience_s,
        )

    async def run(self, options: EngineOptions) -> EngineDeath:
        """Spawn and wait for the end. Cancelled: end the process within a bound, then re-raise."""
        process = await self._spawn()
        self.link.send(Start(options=options))
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._last_words.read(process.stderr))
                watching = tasks.create_task(self._watch())
                return_code = await self._ended(process)
                watching.cancel()
                await self.link.drained()
        finally:
            self.facts = None
            await self._end(process)
            self.link.close()
        return explain(
            return_code,
            self._phase,
            self._step,
            load_failure=STOOD_STILL if self._stood_still else self._load_failure,
            final=self._is_final,
            last_words=self._last_words.text,
            is_fitted=options.fit != "off",
            may_reduce_rows=options.speculation == "off" and options.backend_sampling != "off",
        )

    async def _watch(self) -> None:
        """End an engine that stands still; its death is then told as any other."""
        while not self.watchdog.stands_still(self.clock()):
            before = self.clock()
            await asyncio.sleep(WATCH_INTERVAL_S)
            if self.clock() - before > 2 * WATCH_INTERVAL_S:
                self.watchdog.forgive(self.clock())  # we stood still ourselves
        self._stood_still = True
        log.error("engine stands still", patience_s=self.watchdog.patience_s, step=self._step)
        self._kill()

    async def _ended(self, process: asyncio.subprocess.Process) -> int:
        """Wait for the process; on cancellation end it first, so that its pipes close."""
        try:
            return await process.wait()
        except asyncio.CancelledError:
            await self._end(process)
            raise

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        """Ask (one that is about to load would not hear it), kill; returns when it is gone.

        SIGTERM is no way to ask: the engine ignores it, as a service manager sends it to every
        process of the agent, whose calls are then still to be finished.
        """
        self.link.send(Shutdown())
        listens = self._phase == "serving" or self._reads_weights
        try:
            async with asyncio.timeout(SHUTDOWN_GRACE_S if listens else 0.0):
                await process.wait()
        except TimeoutError:
            # it may have ended in this very moment
            with suppress(ProcessLookupError):
                process.kill()
        await process.wait()

    async def _spawn(self) -> asyncio.subprocess.Process:
        ours, theirs = socket.socketpair()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "agent.engine.worker"),
                *(str(theirs.fileno()), str(os.getpid())),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=[theirs.fileno()],
                env=_environment(),
            )
            await self.link.open(ours)
        except BaseException:
            ours.close()
            self._kill()
            raise
        finally:
            theirs.close()
        log.info("engine started", pid=self._process.pid)
        return self._process

    def _kill(self) -> None:
        if self._process and self._process.returncode is None:
            self._process.kill()

    def _on_event(self, event: Event) -> None:
        match event:
            case Step():
                self._step = event.number
                is_due = event.has_work or event.preparing
                self.watchdog.heard(self.clock(), has_work=is_due)
                self._listener.on_step(event)
            case LoadProgress():
                self._reads_weights = True
                self._loaded, self._load_heard_at = event.fraction, self.clock()
                self._listener.on_load_progress(event.fraction)
            case Loaded():
                self._reads_weights = False
                self._phase = "starting_decode"
                self._loaded_at = self._load_heard_at = self.clock()
            case Ready():
                self._phase = "serving"
                self._ready_at = self.clock()
                self.watchdog.warmed_up(self._ready_at - self._loaded_at)
                self.facts = event.facts
                self._listener.on_ready(event.facts)
            case LoadFailed():
                self._load_failure, self._is_final = event.message, event.final
            case _:
                self._listener.on_answer(event)


def _log_death(death: EngineDeath, *, next_try_s: float | None) -> None:
    """The facts; the listener says what to do about it, as an issue."""
    log.error(
        "engine died",
        signal=death.signal,
        exit_code=death.exit_code,
        phase=death.phase,
        step=death.step,
        next_try_s=next_try_s,
    )


def _environment() -> dict[str, str]:
    """Without ggml's own debugger call after an abort."""
    return {**for_children(os.environ), "GGML_NO_BACKTRACE": "1"}
