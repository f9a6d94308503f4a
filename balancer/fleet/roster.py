"""The one owner of connected agents: who they are, what they serve, how many slots they have.

Everyone else gets snapshots, or read-only views for routing. `version` grows with every change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import count

import structlog

from balancer.fleet.agent import Agent
from balancer.fleet.agent_link import AgentLink, OnIntroduced, ignore_introduction
from balancer.fleet.ailing import EJECTED, Ailing, note_ejected
from balancer.fleet.entrance import Entrance
from balancer.fleet.known_models import KnownModels
from balancer.fleet.link_queries import Streams
from balancer.fleet.prefix_index import PrefixIndex
from balancer.fleet.slow_confirmation import notice_slow_confirmation
from balancer.fleet.snapshot import AgentSnapshot, snapshot_of
from balancer.observability.metrics import Metrics
from balancer.observability.scraped import AgentSlots
from balancer.policy.identity.badge import NO_BADGE, Badge
from balancer.settings import LiveSettings
from protocol.agent_status import AgentStatus, Issue
from protocol.generation import AdapterScale
from protocol.models import ServedModel
from protocol.to_balancer import CacheChanged, Heartbeat, Register, Welcome
from protocol.transfer_messages import AbortTransfer, Credit

log = structlog.get_logger(__name__)

CapacityListener = Callable[[Agent], None]
MAX_ISSUES = 64


def _ignore_transfer(_message: Credit | AbortTransfer) -> None:
    """For links whose messages all fit a text frame."""


class Roster:
    """Agents by name. Implements the links' `LinkOwner`."""

    def __init__(
        self, *, settings: LiveSettings, metrics: Metrics, now: Callable[[], float]
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._now = now
        self._call_ids = count(1)
        self._links: dict[AgentLink, None] = {}
        self._agents: dict[str, Agent] = {}
        self._serving: dict[str, list[Agent]] = {}
        self._index = PrefixIndex()
        self._ailing = Ailing()
        self._entrance = Entrance()
        self._listeners: list[CapacityListener] = []
        self._watchers: list[CapacityListener] = []
        self.known_models = KnownModels()
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
        on_introduced: OnIntroduced = ignore_introduction,
        badge: Badge = NO_BADGE,
    ) -> AgentLink:
        """A link for a fresh socket, whose agent came with `badge`; `AgentLink` says what the
        callbacks must do. The socket feeds `link.receive(frame)`, ends with `link.closed(reason)`.
        """
        link = AgentLink(
            send=send,
            close=close,
            owner=self,
            call_ids=self._call_ids,
            metrics=self._metrics,
            now=self._now,
            on_transfer=on_transfer,
            streams=streams,
            on_introduced=on_introduced,
            badge=badge,
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
        self._ailing.recount_all()
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
        memory_s = self._settings.current.model_memory_s
        return model in self._serving or self.known_models.remembers(
            model, now=self._now(), memory_s=memory_s
        )

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
        self._ailing.remember(agent)

    def note_success(self, agent: Agent) -> None:
        """A call got its first token there."""
        was_well = agent.health.is_well
        agent.health.succeeded(self._now())
        if not was_well:
            self._changed(agent)

    # --- for the management API and the services ---

    def agents(self) -> Iterable[Agent]:
        """Every registered agent."""
        self._ailing.recount_all()
        return self._agents.values()

    @property
    def cached_blocks(self) -> int:
        """Different prefix blocks that some agent has cached, or is about to."""
        return len(self._index)

    def agent(self, name: str) -> Agent | None:
        """The registered agent of this name."""
        agent = self._agents.get(name)
        if agent is not None:
            self._ailing.recount(agent)
        return agent

    def snapshot(self) -> list[AgentSnapshot]:
        """Every registered agent, by name."""
        self._ailing.recount_all()
        now = self._now()
        return [snapshot_of(self._agents[name], now=now) for name in sorted(self._agents)]

    def set_draining(self, name: str, *, draining: bool) -> bool:
        """Give an agent no new calls, or give it calls again; False if there is no such agent."""
        agent = self._agents.get(name)
        if agent is None:
            return False
        agent.is_draining = draining
        self._entrance.note_draining(name, draining=draining)
        self._changed(agent)
        return True

    def remove(self, name: str) -> bool:
        """End an agent's link and keep its name out until `let_in`; False if there is none."""
        agent = self._agents.get(name)
        if agent is None:
            return False
        self._entrance.keep_out(name)
        agent.is_leaving = True
        agent.link.close("removed by an operator")
        return True

    def let_in(self, name: str) -> bool:
        """Let an agent that was removed come back; False if it was not."""
        return self._entrance.let_in(name)

    def silent_links(self) -> list[AgentLink]:
        """Links that were not heard of for as many heartbeats as their agent may miss, by what it
        was told when it came; and those whose agent never introduced itself within such a time."""
        now, settings = self._now(), self._settings.current
        introduction_s = settings.heartbeat_interval_s * settings.heartbeat_misses

        def is_silent(link: AgentLink) -> bool:
            if link.welcome is None:
                return now - link.opened_s > introduction_s
            longest_s = link.heartbeat_interval_s * link.welcome.heartbeat_misses
            return now - link.last_received_s > longest_s

        return [link for link in self._links if is_silent(link)]

    @property
    def shortest_interval_s(self) -> float:
        """Between two heartbeats, of the agent that was told the shortest; or what newcomers are
        told."""
        told = [link.heartbeat_interval_s for link in self._links if link.is_registered]
        return min((*told, self._settings.current.heartbeat_interval_s))

    def take_back_ejected(self) -> None:
        """Let agents whose time is over, or whose share grew, be used."""
        self._ailing.recount_all()
        recovered = self._ailing.take_recovered()
        for agent in self._agents.values():
            if not agent.health.is_well or agent in recovered or EJECTED in agent.noticed:
                if not agent.is_ejected:
                    agent.noticed.pop(EJECTED, None)
                self._changed(agent)

    def notice_slow_confirmations(self) -> None:
        """Raise an issue on agents that leave a call or a cancel unanswered, clear it after."""
        for agent in self._agents.values():
            notice_slow_confirmation(agent, now=self._now())

    # --- LinkOwner ---

    def on_register(self, link: AgentLink, register: Register) -> Welcome:
        """Take the agent in. Raises `LinkRefused` with the remedy."""
        present = self._agents.get(register.name)
        version = self._entrance.admit(register, present, badge=link.badge, now=self._now())
        health = self._ailing.health_of(register.name)
        agent = Agent(link, register, now=self._now, health=health, index=self._index)
        agent.is_draining = self._entrance.is_drained(agent.name)
        self._agents[agent.name] = agent
        self._watch_health(agent)
        self._metrics.agents_connected.set(len(self._agents))
        self._index_models()
        settings = self._settings.current
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
        if agent.take_heartbeat(heartbeat, now=self._now()):
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
        agent.cached.leave()
        self._ailing.forget(agent)
        self._metrics.agents_connected.set(len(self._agents))
        if not agent.is_leaving:
            self._metrics.agent_lost()
        self._index_models()
        self.version += 1
        log.warning("agent gone", agent=agent.name, reason=reason)

    # --- inside ---

    def _watch_health(self, agent: Agent) -> None:
        """It changed, or may have: count the agent's slots, also later if it is not well."""
        if self._agents.get(agent.name) is agent:
            self._ailing.watch(agent)
        agent.recount()

    def _on_ejected(self, agent: Agent) -> None:
        self._watch_health(agent)
        left_s = note_ejected(agent, now=self._now())
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
