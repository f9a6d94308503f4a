"""What the agent tells of itself: its host, its status at intervals and when something changed."""

from __future__ import annotations

import asyncio
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import structlog

from agent.cached_prefixes import CachedPrefixes
from agent.engine.loading.cpu import usable_cpus
from agent.host_use import HostReader
from protocol.agent_status import MAX_ISSUES, AgentStatus, Hardware, Issue, Severity
from protocol.codec import encode_notification
from protocol.jsonrpc import CallId
from protocol.models import ServedModel
from protocol.to_balancer import Heartbeat, IssueCleared, IssueRaised

log = structlog.get_logger()


class SlotHolders(Protocol):
    """Who holds slots; the calls know."""

    @property
    def running(self) -> tuple[CallId, ...]: ...

    @property
    def waiting(self) -> tuple[CallId, ...]: ...

    @property
    def paused(self) -> tuple[CallId, ...]: ...


class Heartbeats:
    """Sends statuses while a link is up: at its interval, and once per loop tick after `changed`;
    and what changed in the cache, once per loop tick after `cache_changed`.

    `send` queues an encoded message and drops it while there is no link.
    """

    def __init__(
        self,
        holders: SlotHolders,
        send: Callable[[bytes], None],
        cached: CachedPrefixes | None = None,
        host: HostReader | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._holders = holders
        self._send = send
        self._cached = cached or CachedPrefixes()
        self._host = host
        self._wall_clock = wall_clock
        self._issues: dict[str, Issue] = {}
        self._seq = 0
        self._capacity_version = 0
        self._interval_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._soon: asyncio.Handle | None = None
        self._cache_soon: asyncio.Handle | None = None
        self._engine_steps = 0
        self._has_work = False
        self._kv_cells_used = 0
        self._kv_cells_total = 0
        self._slots_total = 0
        self._queries_total = 0
        self.queries_running = 0
        """Told with the next status."""
        self._load_progress: float | None = None
        self.model: ServedModel | None = None
        self.resume_key = ""
        self.kv_key = ""

    def start(self, interval_s: float) -> None:
        """A link is up: send from now on."""
        self.stop()
        self._interval_s = interval_s
        self._timer = asyncio.get_running_loop().call_later(interval_s, self._beat)
        self.cache_changed()

    def stop(self) -> None:
        """The link is gone."""
        for handle in (self._timer, self._soon, self._cache_soon):
            if handle is not None:
                handle.cancel()
        self._timer = self._soon = self._cache_soon = None

    def status(self) -> AgentStatus:
        """A full status, one further in the sequence."""
        self._seq += 1
        return AgentStatus(
            seq=self._seq,
            capacity_version=self._capacity_version,
            cache_seq=self._cached.cache_seq,
            slots_total=self._slots_total,
            running=self._holders.running,
            waiting=self._holders.waiting,
            paused=self._holders.paused,
            queries_total=self._queries_total,
            queries_running=self.queries_running,
            engine_steps=self._engine_steps,
            has_work=self._has_work,
            kv_cells_used=self._kv_cells_used,
            kv_cells_total=self._kv_cells_total,
            issues=tuple(self._issues.values()),
            load_progress=self._load_progress,
            host=None if self._host is None else self._host.read(),
            clock_s=round(self._wall_clock(), 3),
        )

    def in_words(self) -> str:
        """What the agent serves and what is wrong, in a line for people."""
        words = [issue.message for issue in self._issues.values()]
        if self.model is not None and self._slots_total:
            busy = len(self._holders.running)
            words.insert(0, f"{self.model.name}: {busy} of {self._slots_total} slots busy")
        return "; ".join(words)

    def changed(self, freed: bool) -> None:
        """Who holds slots changed; `freed`: more than before could be accepted."""
        if freed:
            self._capacity_version += 1
        if self._timer is not None and self._soon is None:
            self._soon = asyncio.get_running_loop().call_soon(self._beat)

    def cache_changed(self) -> None:
        """The cache holds other prefixes than the balancer knows of."""
        if self._timer is not None and self._cache_soon is None:
            self._cache_soon = asyncio.get_running_loop().call_soon(self._tell_cache)

    def engine_loading(self, fraction: float) -> None:
        """So much of the model is loaded."""
        self._load_progress = round(min(max(fraction, 0.0), 1.0), 3)
        self.changed(freed=False)

    def engine_ready(
        self,
        model: ServedModel,
        resume_key: str,
        *,
        slots: int,
        kv_cells: int,
        queries: int = 0,
        kv_key: str = "",
    ) -> None:
        """The engine serves this model now."""
        self.model, self.resume_key, self.kv_key = model, resume_key, kv_key
        self._load_progress = None
        self._slots_total, self._kv_cells_total = slots, kv_cells
        self._queries_total = queries
        self._engine_steps = 0
        self.changed(freed=True)

    def engine_stepped(self, number: int, *, has_work: bool, kv_cells_used: int) -> None:
        """Noted; goes out with the next heartbeat."""
        self._engine_steps, self._has_work = number, has_work
        self._kv_cells_used = kv_cells_used

    def engine_gone(self) -> None:
        """No slots until it is back; the model stays known, so that requests for it wait."""
        self._slots_total = self._queries_total = self._kv_cells_used = 0
        self._has_work = False
        self._load_progress = None
        self.changed(freed=False)

    def raise_issue(self, code: str, message: str, *, severity: Severity = "error") -> None:
        """Say what is wrong and what to do; the same code replaces the earlier text."""
        issue = Issue(code=code, message=message[:2000], severity=severity)
        if self._issues.get(code) == issue or len(self._issues) >= MAX_ISSUES:
            return
        self._issues[code] = issue
        log.warning("issue raised", code=code, issue=issue.message)
        self._send(encode_notification(IssueRaised(issue=issue)))
        self.changed(freed=False)

    def clear_issue(self, code: str) -> None:
        """What was wrong is well again."""
        if self._issues.pop(code, None) is not None:
            log.info("issue cleared", code=code)
            self._send(encode_notification(IssueCleared(code=code)))
            self.changed(freed=False)

    def _tell_cache(self) -> None:
        self._cache_soon = None
        for changed in self._cached.take_changes():
            self._send(encode_notification(changed))

    def _beat(self) -> None:
        self.start(self._interval_s)
        beat = Heartbeat(
            status=self.status(),
            model=self.model,
            resume_key=self.resume_key,
            kv_key=self.kv_key,
        )
        self._send(encode_notification(beat))


def read_hardware(proc: Path = Path("/proc")) -> Hardware:
    """The host's name, processor and memory; what cannot be read is left empty."""
    return Hardware(
        hostname=platform.node()[:253],
        cpu=_field(proc / "cpuinfo", "model name")[:200] or platform.machine()[:200],
        cores=len(usable_cpus()),
        memory_bytes=_kibibytes(_field(proc / "meminfo", "MemTotal")) * 1024,
    )


def _field(path: Path, name: str) -> str:
    """The first value of `name: value` in a file of such lines."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return ""
    pairs = (line.partition(":") for line in lines)
    return next((value.strip() for key, _, value in pairs if key.strip() == name), "")


def _kibibytes(text: str) -> int:
    number = text.split()[0] if text else "0"
    return int(number) if number.isdecimal() else 0
