"""The composition root: builds the agent's parts, owns its tasks, starts and stops it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import platform
import re
import secrets
import stat
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO

import structlog

from agent.balancer_link import BalancerLink
from agent.cached_prefixes import CachedPrefixes
from agent.chat.template import TemplateRenderer
from agent.commands.answers import relay_answer
from agent.commands.calls import Calls
from agent.commands.desk import Desk
from agent.commands.moves import Moves
from agent.commands.queries import Queries
from agent.commands.served import served
from agent.commands.steps import abandon_calls, relay_death, relay_step
from agent.commands.table import execute
from agent.engine.engine import Engine, EngineDeath, EngineDoor
from agent.engine.frames import EngineFacts, EngineOptions, Step
from agent.engine.query_frames import QueryAnswer
from agent.errors import ConfigError, TemplateBusy, TemplateRefused
from agent.heartbeat import Heartbeats, read_hardware
from agent.host_use import HostReader
from agent.keep_warm import KeepWarm, read_warm_prompt
from agent.service_state import ServiceState
from agent.settings import Settings
from protocol.codec import encode_notification
from protocol.jsonrpc import Notification, Request
from protocol.service_manager import ServiceManager
from protocol.to_balancer import (
    OLDEST_PROTOCOL_VERSION,
    PROTOCOL_VERSION,
    Goodbye,
    Register,
    Welcome,
)

log = structlog.get_logger()

ENGINE_ISSUE = "engine_died"
LOAD_ISSUE = "model_load_failed"
TEMPLATE_ISSUE = "chat_template"
WARM_ISSUE = "keep_warm"
FLUSH_TIMEOUT_S = 1.0
MAX_ORDINAL = 1000


class App:
    """One agent. Listens to the engine and to the balancer, and passes on what each says."""

    def __init__(
        self,
        settings: Settings,
        engine: EngineDoor,
        *,
        name: str,
        manager: ServiceManager | None = None,
    ) -> None:
        self._settings = settings
        self._name = name
        self._epoch = secrets.token_hex(8)
        self._hardware = read_hardware()
        self._link = BalancerLink(settings.balancer, self, token=settings.token)
        self._calls = Calls(self._on_calls_changed)
        self._queries = Queries(self._on_queries_changed)
        self._moves = Moves(self._link, self._note_idle)
        self._cached = CachedPrefixes(self._on_cache_changed)
        self._heartbeats = Heartbeats(self._calls, self._link.send, self._cached, HostReader())
        self._service = ServiceState(
            manager or ServiceManager(),
            engine,
            is_registered=lambda: self._link.is_up,
            trouble=lambda: self._link.trouble,
            work=self._heartbeats.in_words,
        )
        self._tasks = asyncio.TaskGroup()
        self._desk = Desk(
            engine=engine,
            renderer=TemplateRenderer(),
            calls=self._calls,
            send=self._link.send,
            spawn=self._tasks.create_task,
            status=self._heartbeats.status,
            queries=self._queries,
            moves=self._moves,
            send_data=self._link.send_data,
            cached=self._cached,
        )
        warm = {str(file): read_warm_prompt(file) for file in settings.keep_warm}
        self._keep_warm = KeepWarm(
            warm, self._desk, on_cold=self._on_cold_prompts, on_freed=self._on_slot_freed
        )
        self._stopping = asyncio.Event()
        self._aborting = asyncio.Event()
        self._idle = asyncio.Event()

    async def run(self) -> None:
        """Serve until `stop`. Raises an exception group with `RegistrationRefused` in it if the
        balancer does not take this agent at its first try, or with `ModelRejected` if its model
        cannot be served. Nothing is left behind."""
        try:
            async with self._tasks as tasks:
                lasting = [
                    tasks.create_task(self._desk.engine.run(self)),
                    tasks.create_task(self._link.run()),
                    tasks.create_task(self._service.run()),
                ]
                await self._stopping.wait()
                await self._drained()
                for task in lasting:
                    task.cancel()
        finally:
            self._heartbeats.stop()
            self._moves.close()
            await self._desk.renderer.close()
            await self._desk.grammars.close()
            await self._desk.media.close()

    def stop(self) -> None:
        """Take nothing new, let calls end within the drain timeout, then leave. A second call
        does not wait for them."""
        if self._stopping.is_set():
            self._aborting.set()
        self._stopping.set()

    async def _drained(self) -> None:
        self._desk.draining = True
        self._service.stopping()
        log.info("stopping", calls=len(self._calls), timeout_s=self._settings.drain_timeout_s)
        self._link.send(encode_notification(Goodbye(reason="the agent was told to stop")))
        async with asyncio.TaskGroup() as waiting:
            calls_over = waiting.create_task(self._calls_over())
            aborted = waiting.create_task(self._aborting.wait())
            await asyncio.wait(
                (calls_over, aborted),
                timeout=self._settings.drain_timeout_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            calls_over.cancel()
            aborted.cancel()
        try:
            async with asyncio.timeout(FLUSH_TIMEOUT_S):
                await self._link.flushed()
        except TimeoutError:
            log.warning("the balancer did not take the last messages")

    async def _calls_over(self) -> None:
        while len(self._calls) or len(self._queries) or len(self._moves):
            self._idle.clear()
            await self._idle.wait()

    # --- the balancer's side ---

    def registration(self) -> Register:
        """The agent as it is now."""
        return Register(
            name=self._name,
            epoch=self._epoch,
            protocol_min=OLDEST_PROTOCOL_VERSION,
            protocol_max=PROTOCOL_VERSION,
            version=_version_of("paddler-py"),
            llama_cpp_version=_version_of("llama-cpp-python"),
            labels=self._settings.labels,
            hardware=self._hardware,
            model=self._heartbeats.model,
            resume_key=self._heartbeats.resume_key,
            kv_key=self._heartbeats.kv_key,
            status=self._heartbeats.status(),
        )

    def on_welcome(self, welcome: Welcome) -> None:
        """Registered: heartbeats begin."""
        log.info("registered with the balancer", name=self._name)
        self._heartbeats.start(max(welcome.heartbeat_interval_ms, 1) / 1000)
        self._heartbeats.changed(freed=False)  # the model may have come since `registration`

    def on_message(self, message: Request | Notification) -> None:
        """The balancer asks for something."""
        execute(self._desk, message)

    def on_lost(self) -> None:
        """The link broke, and with it its calls."""
        self._heartbeats.stop()
        abandon_calls(self._desk)

    # --- the engine's side ---

    def on_load_progress(self, fraction: float) -> None:
        """The model is on its way."""
        log.info("loading model", percent=int(100 * fraction))
        self._heartbeats.engine_loading(fraction)

    def on_ready(self, facts: EngineFacts) -> None:
        """A model is loaded: announce it and have its template compiled."""
        self._desk.served = model = served(facts, self._settings)
        log.info(
            "model ready",
            model=model.model.name,
            slots=model.slots,
            tool_format=model.output_format.tool_calls or "none",
            reasoning_format=model.output_format.reasoning or "none",
        )
        self._heartbeats.engine_ready(
            model.model,
            model.resume_key,
            slots=model.slots,
            kv_cells=model.kv_cells,
            queries=model.queries,
            kv_key=model.kv_key,
        )
        for issue in (ENGINE_ISSUE, LOAD_ISSUE):
            self._heartbeats.clear_issue(issue)
        if model.template:
            self._desk.spawn(self._check_template(model.template))
        self._keep_warm.begin()

    def on_step(self, step: Step) -> None:
        """News of the calls."""
        self._heartbeats.engine_stepped(
            step.number, has_work=step.has_work, kv_cells_used=step.kv_cells_used
        )
        self._keep_warm.on_step(step)
        relay_step(self._desk, step)

    def on_answer(self, answer: QueryAnswer) -> None:
        """A query is over."""
        relay_answer(self._desk, answer)

    def on_died(self, death: EngineDeath) -> None:
        """Its calls are lost; slots come back with the next engine."""
        self._heartbeats.engine_gone()
        issue = ENGINE_ISSUE if death.phase == "serving" else LOAD_ISSUE
        self._heartbeats.raise_issue(issue, death.message)
        relay_death(self._desk, death)

    async def _check_template(self, template: str) -> None:
        try:
            await self._desk.renderer.prepare(template)
        except TemplateRefused as refusal:
            self._heartbeats.raise_issue(
                TEMPLATE_ISSUE, f"{refusal} Chats will be refused; start with --chat-template FILE."
            )
        except (TemplateBusy, OSError) as error:
            log.warning("chat template not checked", reason=str(error))
        else:
            self._heartbeats.clear_issue(TEMPLATE_ISSUE)

    def _on_calls_changed(self, freed: bool) -> None:
        self._heartbeats.changed(freed)
        self._note_idle()

    def _on_queries_changed(self) -> None:
        self._heartbeats.queries_running = len(self._queries)
        self._note_idle()

    def _note_idle(self) -> None:
        if not (len(self._calls) or len(self._queries) or len(self._moves)):
            self._idle.set()

    def _on_slot_freed(self) -> None:
        self._heartbeats.changed(freed=True)

    def _on_cold_prompts(self, problem: str) -> None:
        if problem:
            self._heartbeats.raise_issue(WARM_ISSUE, problem, severity="warning")
        else:
            self._heartbeats.clear_issue(WARM_ISSUE)

    def _on_cache_changed(self) -> None:
        self._heartbeats.cache_changed()


async def run_agent(settings: Settings, *, on_start: list[App] | None = None) -> None:
    """Build an agent with a real engine and run it; the app is appended to `on_start` first."""
    name, lock = (settings.name, None) if settings.name else claim_name(settings)
    try:
        manager = ServiceManager.of(os.environ)
        app = App(settings, Engine(engine_options(settings)), name=name, manager=manager)
        if on_start is not None:
            on_start.append(app)
        await app.run()
    finally:
        if lock is not None:
            lock.close()


def engine_options(settings: Settings) -> EngineOptions:
    """The engine's part of the settings."""
    return EngineOptions(
        model_path=str(settings.model_path),
        slots=settings.slots,
        context_tokens=settings.context_tokens,
        threads=settings.threads,
        gpu_layers=settings.gpu_layers,
        batch_tokens=settings.batch_tokens,
        micro_batch_tokens=settings.micro_batch_tokens,
        cache_type=settings.cache_type,
        flash_attention=settings.flash_attention,
        unified_kv=settings.unified_kv,
        prefix_cache=settings.prefix_cache,
        host_cache_bytes=settings.host_cache_mib * (1 << 20 if settings.host_cache_mib > 0 else 1),
        target_gap_ms=settings.target_gap_ms,
        speculation="off" if settings.backend_sampling == "on" else settings.speculation,
        backend_sampling=settings.backend_sampling,
        draft_model_path=str(settings.draft_model or ""),
        adapters=tuple((name, str(file)) for name, file in settings.lora),
        mmproj_path=str(settings.mmproj) if settings.mmproj else "",
        fit=settings.fit,
    )


def claim_name(settings: Settings, folder: Path | None = None) -> tuple[str, IO[str]]:
    """Host, model and the first ordinal that no agent of this host has, and the lock on it.

    The lock ends with the process, so that a restarted agent gets its name back.
    """
    folder = folder or Path(tempfile.gettempdir()) / f"paddler-py-{os.getuid()}"
    _make_own(folder)
    parts = (platform.node()[:60], settings.model_names[0][:60])
    base = ":".join(re.sub(r"[^A-Za-z0-9._-]", "-", part) for part in parts)
    for ordinal in range(MAX_ORDINAL):
        lock = (folder / f"{base}:{ordinal}.lock").open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
        else:
            return f"{base}:{ordinal}", lock
    raise ConfigError(f"{MAX_ORDINAL} agents of this model run here; give this one a --name")


def _make_own(folder: Path) -> None:
    """Others may write to the folder around it, and could have put theirs, or a link, in its place.

    Raises `ConfigError`.
    """
    remedy = "give this agent a --name, then it needs none"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        facts = folder.lstat()
    except OSError as error:
        raise ConfigError(f"no folder for names: {error}; {remedy}") from error
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid():
        raise ConfigError(f"the folder for names, {folder}, is not this user's; {remedy}")


def _version_of(package: str) -> str:
    """The installed version; empty for what runs from a bare checkout or is not there."""
    try:
        return version(package)[:64]
    except PackageNotFoundError:
        return ""
