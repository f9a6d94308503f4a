"""The one owner of connected agents: who they are, what they serve, how many slots they have.

Everyone else gets snapshots, or read-only views for routing. `version` grows with every change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import count
from typing import Literal

import structlog

from balancer.errors import LinkRefused
from balancer.fleet.agent import Agent
from balancer.fleet.agent_link import AgentLink
from balancer.fleet.known_models import KnownModels
from balancer.fleet.latest import Latest
from balancer.fleet.link_queries import Streams
from balancer.fleet.prefix_index import PrefixIndex
from balancer.fleet.snapshot import AgentSnapshot, snapshot_of
from balancer.observability.metrics import AgentSlots, Metrics
from balancer.policy.ejection import Health
from balancer.settings import Settings
from protocol.agent_status import AgentStatus, Issue
from protocol.generation import AdapterScale
from protocol.models import ServedModel
from protocol.to_balancer import (
    OLDEST_PROTOCOL_VERSION,
    PROTOCOL_VERSION,
    RESERVED_AGENT_NAMES,
    CacheChanged,
    Heartbeat,
    Register,
    Welcome,
)
from protocol.transfer_messages import AbortTransfer, Credit

log = structlog.get_logger(__name__)

CapacityListener = Callable[[Agent], None]
HEARTBEATS_TO_LOSE_A_NAME = 1.5
"""Quiet for this many intervals, an agent has missed a heartbeat. Each one comes a little late: at
just one interval a stranger that keeps trying would get the name of an agent that is well."""
CONFIRMATION_S = 2.0
SLOW_CONFIRMATION = "slow_confirmation"
MAX_ISSUES = 64
MAX_UNWELL = 1024
MAX_REMOVED = 1024
EJECTED = "ejected"


def _ignore_transfer(_message: Credit | AbortTransfer) -> None:
    """For links whose messages all fit a text frame."""


class Roster:
    """Agents by name. Implements the links' `LinkOwner`."""

    def __init__(self, *, settings: Settings, metrics: Metrics, now: Callable[[], float]) -> None:
        self._settings = settings
        self._metrics = metrics
        self._now = now
        self._call_ids = count(1)
        self._links: dict[AgentLink, None] = {}
        self._agents: dict[str, Agent] = {}
        self._serving: dict[str, list[Agent]] = {}
        self._index = PrefixIndex()
        self._ailing: dict[Agent, None] = {}
        """Those whose free slots change with time alone: they are counted before anybody looks."""
        self._recovered: dict[Agent, None] = {}
        """Those of them that are well again, and nobody who waits was told."""
        self._unwell: Latest[Health] = Latest(MAX_UNWELL)
        """Of agents that left in disgrace: coming back changes nothing."""
        self._removed: Latest[Literal[True]] = Latest(MAX_REMOVED)
        self._drained: Latest[Literal[True]] = Latest(MAX_REMOVED)
        """Coming back does not end a drain either."""
        self._listeners: list[CapacityListener] = []
        self._watchers: list[CapacityListener] = []
        self.known_models = KnownModels(memory_s=settings.model_memory_s)
        self.version = 0
        metrics.watch_slots(self._slots_by_agent)

    # --- for whoever holds a socket ---

    def open_link(
        self,
        *,
        send: Callable[[bytes], None],
        close: Callable[[str], None],
        on_transfer: Callable[[Credit | AbortTransfer], None] = _ignore_transfer,
        streams: Streams | None = None,
    ) -> AgentLink:
        """A link for a fresh socket; `AgentLink` says what the callbacks must do. The socket feeds
        `link.receive(frame)` and ends with `link.closed(reason)`."""
        link = AgentLink(
            send=send,
            close=close,
            owner=self,
            call_ids=self._call_ids,
            metrics=self._metrics,
            now=self._now,
            on_transfer=on_transfer,
            streams=streams,
        )
        self._links[link] = None
        return link

    # --- for dispatch ---

    def listen(self, listener: CapacityListener) -> None:
        """Have `listener(agent)` called whenever the agent may have more room than before."""
        self._listeners.append(listener)

    def watch(self, listener: CapacityListener) -> None:
        """Have `listener(agent)` called whenever anything about the agent changed: also of those
        that have no slot."""
        self._watchers.append(listener)

    def candidates(self, model: str) -> Sequence[Agent]:
        """Agents that serve the model, full or not, in the order of their coming."""
        self._recount_ailing()
        return self._serving.get(model, ())

    def matched_blocks(self, chain: bytes) -> dict[str, int]:
        """How many blocks of a packed prefix chain each agent has cached, from the first on, by
        name; who has none is left out. A guess."""
        return self._index.matched_blocks(chain)

    def adapters_of(self, model: str) -> tuple[AdapterScale, ...]:
        """What is in force under a model's name; nothing where nobody serves it."""
        serving = self._serving.get(model)
        return serving[0].adapters_for(model) if serving else ()

    def served_models(self) -> list[ServedModel]:
        """The models served now, by name."""
        by_name = {agent.model.name: agent.model for agent in self._agents.values() if agent.model}
        return [by_name[name] for name in sorted(by_name)]

    def is_remembered(self, model: str) -> bool:
        """Whether the name is served, or was until lately."""
        return model in self._serving or self.known_models.remembers(model, now=self._now())

    @property
    def has_agents(self) -> bool:
        """Whether any agent is registered now."""
        return bool(self._agents)

    @property
    def had_agents(self) -> bool:
        """Whether an agent with a model ever came."""
        return self.known_models.knows_any or bool(self._serving)

    def note_refusal(self, agent: Agent) -> None:
        """The agent refused for want of capacity: pass it over until that grows."""
        agent.note_refusal(now=self._now())
        self.version += 1

    def note_failure(self, agent: Agent, *, engine_died: bool) -> None:
        """A call failed there, and no client is to blame."""
        now = self._now()
        failed = agent.health.engine_died if engine_died else agent.health.failed
        if failed(now):
            self._on_ejected(agent)

    def note_lost(self, agent: Agent) -> None:
        """A call ended with the agent's link. All calls of a link are one failure, which the next
        link of that name takes over: dying of every call is failing, too."""
        if agent.was_lost or agent.is_leaving:
            return
        agent.was_lost = True
        if agent.health.failed(self._now()):
            self._on_ejected(agent)
        self._unwell.note(agent.name, agent.health)

    def note_success(self, agent: Agent) -> None:
        """A call got its first token there."""
        was_well = agent.health.is_well
        agent.health.succeeded(self._now())
        if not was_well:
            self._changed(agent)

    # --- for the management API and the services ---

    def agents(self) -> Iterable[Agent]:
        """Every registered agent."""
        self._recount_ailing()
        return self._agents.values()

    def agent(self, name: str) -> Agent | None:
        """The registered agent of this name."""
        agent = self._agents.get(name)
        if agent is not None and agent in self._ailing:
            self._recount(agent)
        return agent

    def snapshot(self) -> list[AgentSnapshot]:
        """Every registered agent, by name."""
        self._recount_ailing()
        now = self._now()
        return [snapshot_of(self._agents[name], now=now) for name in sorted(self._agents)]

    def set_draining(self, name: str, *, draining: bool) -> bool:
        """Give an agent no new calls, or give it calls again; False if there is no such agent."""
        agent = self._agents.get(name)
        if agent is None:
            return False
        agent.is_draining = draining
        if draining:
            self._drained.note(name, True)
        else:
            self._drained.take(name)
        self._changed(agent)
        return True

    def remove(self, name: str) -> bool:
        """End an agent's link and keep its name out until `let_in`; False if there is none."""
        agent = self._agents.get(name)
        if agent is None:
            return False
        self._removed.note(name, True)
        agent.is_leaving = True
        agent.link.close("removed by an operator")
        return True

    def let_in(self, name: str) -> bool:
        """Let an agent that was removed come back; False if it was not."""
        return self._removed.take(name) is not None

    def silent_links(self) -> list[AgentLink]:
        """Links that were not heard of for as many heartbeats as may be missed, and those whose
        agent never introduced itself within that time."""
        settings = self._settings
        longest_s = settings.heartbeat_interval_s * settings.heartbeat_misses
        now = self._now()
        return [
            link
            for link in self._links
            if now - (link.last_received_s if link.is_registered else link.opened_s) > longest_s
        ]

    def take_back_ejected(self) -> None:
        """Let agents whose time is over, or whose share grew, be used."""
        self._recount_ailing()
        recovered, self._recovered = self._recovered, {}
        for agent in self._agents.values():
            if not agent.health.is_well or agent in recovered or EJECTED in agent.noticed:
                if not agent.is_ejected:
                    agent.noticed.pop(EJECTED, None)
                self._changed(agent)

    def notice_slow_confirmations(self) -> None:
        """Raise an issue on agents that leave a call or a cancel unanswered, clear it after."""
        now = self._now()
        for agent in self._agents.values():
            since = agent.link.oldest_unconfirmed_s()
            longest_s = CONFIRMATION_S + 2 * agent.link.longest_step_s
            if since is None or now - since <= longest_s:
                agent.noticed.pop(SLOW_CONFIRMATION, None)
            elif SLOW_CONFIRMATION not in agent.noticed:
                agent.noticed[SLOW_CONFIRMATION] = Issue(
                    code=SLOW_CONFIRMATION,
                    message=f"no answer to a call for {longest_s:.1f} s; is the host overloaded?",
                    severity="warning",
                )
                log.warning("agent slow to confirm", agent=agent.name, waited_s=longest_s)

    # --- LinkOwner ---

    def on_register(self, link: AgentLink, register: Register) -> Welcome:
        """Take the agent in. Raises `LinkRefused` with the remedy."""
        version = _common_version(register)
        if register.name in RESERVED_AGENT_NAMES:
            raise LinkRefused(
                f"no agent may be called {register.name!r}, as /agents/{register.name} is no "
                "agent's path; start this one with --name and another name",
                reason="name_reserved",
            )
        if register.name in self._removed:
            raise LinkRefused(
                f"the agent {register.name!r} was removed by an operator; "
                f"POST /agents/{register.name}/undrain lets it in again",
                reason="removed",
            )
        self._make_room_for(register)
        health = self._unwell.take(register.name) or Health()
        agent = Agent(link, register, now=self._now, health=health, index=self._index)
        agent.is_draining = agent.name in self._drained
        self._agents[agent.name] = agent
        self._watch_health(agent)
        self._metrics.agents_connected.set(len(self._agents))
        self._index_models()
        settings = self._settings
        return Welcome(
            protocol_version=version,
            heartbeat_interval_ms=round(settings.heartbeat_interval_s * 1000),
            heartbeat_misses=settings.heartbeat_misses,
        )

    def on_registered(self, link: AgentLink) -> None:
        """Waiting requests may use the newcomer from now on."""
        agent = self._agents[link.agent_name]
        log.info(
            "agent registered",
            agent=agent.name,
            model=agent.model.name if agent.model else None,
            slots=agent.slots_total,
            version=agent.register.version,
        )
        self._changed(agent)
        self._ask_what_is_cached(agent)

    def on_heartbeat(self, link: AgentLink, heartbeat: Heartbeat) -> None:
        """Take the status if it is newer than the last one."""
        agent = self._agent_of(link)
        if agent is None:
            return
        names_before = agent.names
        if not agent.take_heartbeat(heartbeat, now=self._now()):
            return
        if agent.names != names_before:
            self._index_models()
        self._on_newer_status(agent)

    def on_snapshot(self, link: AgentLink, status: AgentStatus) -> None:
        """The status that the agent was asked for; what it caches came before."""
        agent = self._agent_of(link)
        if agent is not None and agent.take_status(status, now=self._now()):
            self._on_newer_status(agent)

    def on_cache_changed(self, link: AgentLink, changed: CacheChanged) -> None:
        """Keep what the agent's cache holds, or ask for all of it where a report was missed."""
        agent = self._agent_of(link)
        if agent is not None:
            agent.cached.take(changed)
            self._ask_what_is_cached(agent)

    def on_issue_raised(self, link: AgentLink, issue: Issue) -> None:
        """Keep the issue until it is cleared or a status comes without it."""
        agent = self._agent_of(link)
        if agent is None or (issue.code not in agent.issues and len(agent.issues) >= MAX_ISSUES):
            return
        agent.issues[issue.code] = issue
        log.warning("agent has an issue", agent=agent.name, code=issue.code, issue=issue.message)

    def on_issue_cleared(self, link: AgentLink, code: str) -> None:
        """Forget the issue."""
        agent = self._agent_of(link)
        if agent is not None and agent.issues.pop(code, None) is not None:
            log.info("issue of agent cleared", agent=agent.name, code=code)

    def on_goodbye(self, link: AgentLink, reason: str) -> None:
        """The agent leaves when its calls have ended: nothing new for it."""
        agent = self._agent_of(link)
        if agent is not None:
            log.info("agent says goodbye", agent=agent.name, reason=reason)
            agent.is_draining = agent.is_leaving = True
            self.version += 1

    def on_committed(self, link: AgentLink) -> None:
        """The agent had the room that it said it had."""
        agent = self._agent_of(link)
        if agent is not None:
            agent.note_commit()

    def on_call_ended(self, link: AgentLink) -> None:
        """A slot is free again."""
        agent = self._agent_of(link)
        if agent is not None:
            self._changed(agent)

    def on_query_ended(self, link: AgentLink) -> None:
        """There is room for another."""
        agent = self._agent_of(link)
        if agent is not None:
            for watcher in self._watchers:
                watcher(agent)

    def on_unusable(self, link: AgentLink) -> None:
        """Leave it out for a while: connecting again would change nothing."""
        agent = self._agent_of(link)
        if agent is not None:
            agent.health.eject(self._now())
            self._on_ejected(agent)

    def on_closed(self, link: AgentLink, reason: str) -> None:
        """Forget the agent, remember its model's names for a while."""
        self._links.pop(link, None)
        agent = self._agent_of(link)
        if agent is None:
            return
        del self._agents[agent.name]
        self._ailing.pop(agent, None)
        self._recovered.pop(agent, None)
        agent.cached.leave()
        if not agent.health.is_well or agent.health.has_failed:
            self._unwell.note(agent.name, agent.health)
        self._metrics.agents_connected.set(len(self._agents))
        if not agent.is_leaving:
            self._metrics.agent_lost()
        self._index_models()
        self.version += 1
        log.warning("agent gone", agent=agent.name, reason=reason)

    # --- inside ---

    def _watch_health(self, agent: Agent) -> None:
        """It changed, or may have: count the agent's slots, also later if it is not well."""
        if not agent.health.is_well and self._agents.get(agent.name) is agent:
            self._ailing[agent] = None
        agent.recount()

    def _recount_ailing(self) -> None:
        for agent in tuple(self._ailing):
            self._recount(agent)

    def _recount(self, agent: Agent) -> None:
        """One that is not well. Who looks may be in the middle of a choice, so those who wait are
        told that it recovered at the next `take_back_ejected`."""
        agent.recount()
        if agent.health.is_well:
            del self._ailing[agent]
            self._recovered[agent] = None

    def _on_ejected(self, agent: Agent) -> None:
        self._watch_health(agent)
        until_s = agent.health.ejected_until(self._now()) or self._now()
        left_s = until_s - self._now()
        agent.noticed[EJECTED] = Issue(
            code=EJECTED,
            message=f"its calls failed, so it gets none for {left_s:.0f} s; see its log",
            severity="warning",
        )
        self._metrics.agents_ejected.inc()
        self.version += 1
        log.warning("agent ejected", agent=agent.name, for_s=round(left_s, 1))

    def _agent_of(self, link: AgentLink) -> Agent | None:
        agent = self._agents.get(link.agent_name)
        return agent if agent is not None and agent.link is link else None

    def _on_newer_status(self, agent: Agent) -> None:
        agent.link.compare(agent.held)
        self._changed(agent)
        self._ask_what_is_cached(agent)

    def _ask_what_is_cached(self, agent: Agent) -> None:
        if agent.begin_snapshot(now=self._now()):
            agent.link.ask_snapshot()

    def _make_room_for(self, register: Register) -> None:
        """One name, one agent: its own earlier link goes, a stranger's stays while it is alive."""
        present = self._agents.get(register.name)
        if present is None:
            return
        quiet_s = self._now() - present.link.last_received_s
        if present.epoch == register.epoch:
            present.link.close("the agent connected again")
        elif quiet_s > HEARTBEATS_TO_LOSE_A_NAME * self._settings.heartbeat_interval_s:
            present.link.close("missed a heartbeat, and another agent took the name")
        else:
            raise LinkRefused(
                f"another agent is connected under the name {register.name!r}; start this one with "
                "--name and a name of its own",
                reason="name_taken",
            )

    def _index_models(self) -> None:
        """Rebuild the table of who serves what; names that nobody serves any more are dated."""
        before = self._serving
        serving: dict[str, list[Agent]] = {}
        for agent in self._agents.values():
            for name in agent.names:
                serving.setdefault(name, []).append(agent)
        self._serving = serving
        self.known_models.note_left(before.keys() - serving.keys(), now=self._now())

    def _changed(self, agent: Agent) -> None:
        self.version += 1
        agent.recount()
        if agent.slots_free and not agent.is_draining:
            for listener in self._listeners:
                listener(agent)
        for watcher in self._watchers:
            watcher(agent)

    def _slots_by_agent(self) -> list[AgentSlots]:
        return [AgentSlots(a.name, a.slots_total, a.slots_used) for a in self._agents.values()]


def _common_version(register: Register) -> int:
    version = min(register.protocol_max, PROTOCOL_VERSION)
    if version < max(register.protocol_min, OLDEST_PROTOCOL_VERSION):
        raise LinkRefused(
            f"this balancer speaks versions {OLDEST_PROTOCOL_VERSION} to {PROTOCOL_VERSION} of the "
            f"agent link, the agent {register.protocol_min} to {register.protocol_max}; "
            "upgrade the older of the two",
            reason="protocol_version",
        )
    return version
