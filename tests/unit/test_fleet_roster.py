"""Who is connected, what they serve and how many of their slots are free."""

from __future__ import annotations

import asyncio
from unittest.mock import ANY

import pytest
from msgspec import structs

from balancer.fleet.agent import Agent
from balancer.fleet.known_models import MAX_REMEMBERED, KnownModels
from balancer.fleet.roster import Roster
from balancer.observability.metrics import Metrics
from balancer.policy.ejection import FAILURES_IN_A_ROW, FIRST_EJECTION_S, SLOW_START_S
from balancer.services.liveness import Liveness
from balancer.settings import LiveSettings, Settings
from protocol.agent_status import Issue
from protocol.generation import SamplerState, StepDelta, TokenLogprob
from protocol.jsonrpc import ErrorObject
from protocol.to_agent import Committed, GenerateTokens
from protocol.to_balancer import (
    RESERVED_AGENT_NAMES,
    Finished,
    Heartbeat,
    IssueCleared,
    IssueRaised,
)
from tests.support.memory_agent import MemoryAgent
from tests.support.virtual_time import VirtualTimeLoop, in_virtual_time

SETTINGS = Settings(heartbeat_interval_s=5.0, heartbeat_misses=3, model_memory_s=600.0)
PARAMS = GenerateTokens(model="demo", prompt="hi")


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Deaf:
    """A handler that cares for nothing."""

    def on_committed(self, committed: Committed) -> None: ...

    def on_tokens(
        self,
        token_ids: tuple[int, ...],
        delta: StepDelta,
        logprobs: tuple[TokenLogprob, ...],
    ) -> None: ...

    def on_prefill(self, done: int) -> None: ...

    def on_sampler_state(self, state: SamplerState) -> None: ...

    def on_garbled(self) -> None: ...

    def on_refused(self, error: ErrorObject) -> None: ...

    def on_finished(self, finished: Finished) -> None: ...

    def on_failed(self, error: ErrorObject) -> None: ...

    def on_link_lost(self) -> None: ...


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def roster(clock: Clock, metrics: Metrics) -> Roster:
    return Roster(settings=LiveSettings(SETTINGS), metrics=metrics, now=clock)


def only(roster: Roster) -> Agent:
    (agent,) = roster.agents()
    return agent


def test_a_registered_agent_is_welcomed_and_listed(roster: Roster) -> None:
    agent = MemoryAgent(roster, slots=4).register()
    assert agent.welcome
    assert agent.welcome.heartbeat_interval_ms == 5000
    (row,) = roster.snapshot()
    assert (row.name, row.state, row.slots.total, row.slots.free) == ("one", "ready", 4, 4)
    assert [model.name for model in roster.served_models()] == ["demo"]


def test_the_welcome_is_sent_before_waiting_calls_are(roster: Roster) -> None:
    roster.listen(lambda agent: (agent.link.call(PARAMS, Deaf()), None)[1])
    agent = MemoryAgent(roster).register()
    assert [type(message).__name__ for message in agent.received] == ["Response", "Request"]


def test_a_second_agent_of_the_name_is_refused_with_the_remedy_and_the_first_is_unharmed(
    roster: Roster,
) -> None:
    first = MemoryAgent(roster, epoch="e1").register()
    second = MemoryAgent(roster, epoch="e2").register()
    assert second.refusal
    assert "--name" in second.refusal.message
    assert second.refusal.data == {"reason": "name_taken"}
    assert second.closed_reason
    assert first.closed_reason is None
    assert only(roster).epoch == "e1"


@pytest.mark.parametrize("name", sorted(RESERVED_AGENT_NAMES))
def test_a_name_that_no_path_leads_to_is_refused_with_the_remedy(roster: Roster, name: str) -> None:
    agent = MemoryAgent(roster, name).register()
    assert agent.refusal
    assert f"{name!r}" in agent.refusal.message
    assert "--name" in agent.refusal.message
    assert agent.refusal.data == {"reason": "name_reserved"}
    assert not roster.has_agents


def test_an_agent_that_missed_a_heartbeat_loses_its_name_to_another(
    roster: Roster, clock: Clock
) -> None:
    first = MemoryAgent(roster, epoch="e1").register()
    clock.now_s += 7.6
    second = MemoryAgent(roster, epoch="e2").register()
    assert (first.closed_reason is not None, second.welcome is not None) == (True, True)
    assert only(roster).epoch == "e2"


def test_a_heartbeat_that_is_a_moment_late_does_not_give_the_name_away(
    roster: Roster, clock: Clock
) -> None:
    first = MemoryAgent(roster, epoch="e1").register()
    clock.now_s += 5.1
    second = MemoryAgent(roster, epoch="e2").register()
    assert (first.closed_reason, second.welcome) == (None, None)
    assert only(roster).epoch == "e1"


def test_the_same_agent_replaces_its_old_link(roster: Roster) -> None:
    first = MemoryAgent(roster).register()
    again = MemoryAgent(roster).register()
    assert first.closed_reason == "the agent connected again"
    first.link.closed("the socket closed")
    assert only(roster).link is again.link


@pytest.mark.parametrize(("least", "most", "welcome"), [(1, 1, True), (1, 9, True), (2, 9, False)])
def test_an_agent_of_another_protocol_version_works_or_is_told_which_it_needs(
    roster: Roster, least: int, most: int, welcome: bool
) -> None:
    agent = MemoryAgent(roster).register(protocol_min=least, protocol_max=most)
    assert (agent.welcome is not None) == welcome
    if not welcome:
        assert agent.refusal
        assert "upgrade the older" in agent.refusal.message


def test_a_stale_status_changes_nothing(roster: Roster) -> None:
    agent = MemoryAgent(roster, slots=4).register()
    older = agent.status(slots_total=9)
    agent.heartbeat()
    version = roster.version
    agent.heartbeat(older)
    assert (only(roster).slots_total, roster.version) == (4, version)


def test_a_status_never_overwrites_the_balancers_own_reservations(roster: Roster) -> None:
    agent = MemoryAgent(roster, slots=4).register()
    for _ in range(3):
        agent.link.call(PARAMS, Deaf())
    agent.heartbeat()  # knows of none of the calls yet
    assert only(roster).slots_free == 1
    agent.answer()
    agent.heartbeat()
    assert only(roster).slots_free == 1


def test_calls_of_an_earlier_link_hold_slots_until_a_status_says_otherwise(roster: Roster) -> None:
    agent = MemoryAgent(roster, slots=4).register()
    agent.heartbeat(agent.status(running=(7001, 7002), paused=(7002,)))
    assert (only(roster).slots_used, only(roster).slots_free) == (2, 2)
    agent.heartbeat()
    assert only(roster).slots_free == 4


def test_fewer_slots_than_claims_is_no_room_and_no_error(roster: Roster) -> None:
    agent = MemoryAgent(roster, slots=4).register()
    for _ in range(3):
        agent.link.call(PARAMS, Deaf())
    agent.heartbeat(agent.status(slots_total=0))
    assert only(roster).slots_free == 0


def test_a_refusal_closes_an_agent_until_its_capacity_grows(roster: Roster) -> None:
    agent = MemoryAgent(roster, slots=4).register()
    roster.note_refusal(only(roster))
    agent.heartbeat()
    assert only(roster).slots_free == 0
    agent.capacity_version += 1
    agent.heartbeat()
    assert only(roster).slots_free == 4


def test_room_is_announced_when_a_call_ends_and_when_slots_grow(roster: Roster) -> None:
    rooms: list[int] = []
    agent = MemoryAgent(roster, slots=1).register()
    roster.listen(lambda one: rooms.append(one.slots_free))
    number = agent.link.call(PARAMS, Deaf())
    agent.answer()
    agent.heartbeat()
    assert rooms == []
    agent.finish(number)
    agent.heartbeat(agent.status(slots_total=3))
    assert rooms == [1, 3]


def test_a_draining_agent_announces_no_room(roster: Roster) -> None:
    rooms: list[int] = []
    MemoryAgent(roster).register()
    roster.listen(lambda one: rooms.append(one.slots_free))
    assert roster.set_draining("one", draining=True)
    assert rooms == []
    assert roster.snapshot()[0].state == "draining"
    assert roster.set_draining("one", draining=False)
    assert rooms == [4]
    assert not roster.set_draining("nobody", draining=True)


def test_goodbye_means_nothing_new(roster: Roster) -> None:
    MemoryAgent(roster).register().goodbye()
    assert only(roster).is_draining


def test_an_agent_is_found_under_every_name_of_its_model(roster: Roster) -> None:
    agent = MemoryAgent(roster, model="demo", aliases=("small", "gpt-x")).register()
    assert [one.name for one in roster.candidates("gpt-x")] == ["one"]
    agent.model = None
    agent.heartbeat(agent.status(slots_total=0))
    assert list(roster.candidates("gpt-x")) == []
    assert roster.snapshot()[0].state == "not_ready"


def test_a_model_is_remembered_for_a_while_after_its_last_agent_left(
    roster: Roster, clock: Clock
) -> None:
    assert not roster.had_agents
    agent = MemoryAgent(roster, aliases=("small",)).register()
    assert roster.is_remembered("small")
    agent.die()
    clock.now_s += 599
    assert roster.is_remembered("small")
    clock.now_s += 2
    assert not roster.is_remembered("small")
    assert (roster.has_agents, roster.had_agents) == (False, True)


def test_the_memory_of_models_is_bounded() -> None:
    known = KnownModels()
    known.note_left((f"m{index}" for index in range(MAX_REMEMBERED + 5)), now=0.0)
    assert not known.remembers("m4", now=1.0, memory_s=10)
    assert known.remembers("m5", now=1.0, memory_s=10)


def test_silent_agents_and_strangers_are_dropped_and_busy_ones_are_not(
    roster: Roster, clock: Clock
) -> None:
    liveness = Liveness(roster)
    silent = MemoryAgent(roster, "silent").register()
    busy = MemoryAgent(roster, "busy").register()
    stranger = MemoryAgent(roster, "stranger")
    for _ in range(4):
        clock.now_s += 4.0
        busy.heartbeat()
        liveness.check()
    assert silent.closed_reason == "no heartbeat for too long"
    assert stranger.closed_reason == "no `register` for too long"
    assert busy.closed_reason is None
    assert [row.name for row in roster.snapshot()] == ["busy"]


def test_agents_are_judged_by_what_they_were_told_when_they_came(
    metrics: Metrics, clock: Clock
) -> None:
    live = LiveSettings(SETTINGS)
    roster = Roster(settings=live, metrics=metrics, now=clock)
    old = MemoryAgent(roster, "old").register()
    live.replace(structs.replace(SETTINGS, heartbeat_interval_s=1.0, heartbeat_misses=2))
    new = MemoryAgent(roster, "new").register()
    stranger = MemoryAgent(roster, "stranger")
    assert new.welcome
    assert (new.welcome.heartbeat_interval_ms, new.welcome.heartbeat_misses) == (1000, 2)
    assert roster.shortest_interval_s == 1.0
    clock.now_s += 2.1
    assert roster.silent_links() == [new.link, stranger.link]
    clock.now_s += 13.0
    assert roster.silent_links() == [old.link, new.link, stranger.link]


def test_a_name_is_given_away_by_what_its_agent_was_told(metrics: Metrics, clock: Clock) -> None:
    live = LiveSettings(SETTINGS)
    roster = Roster(settings=live, metrics=metrics, now=clock)
    MemoryAgent(roster).register()
    live.replace(structs.replace(SETTINGS, heartbeat_interval_s=0.5))
    clock.now_s += 5.0
    assert MemoryAgent(roster, epoch="e2").register().refusal


@in_virtual_time
async def test_a_longer_interval_delays_nobody_who_comes_later() -> None:
    live = LiveSettings(structs.replace(SETTINGS, heartbeat_interval_s=300.0))
    roster = Roster(settings=live, metrics=Metrics(), now=asyncio.get_running_loop().time)
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(Liveness(roster).run())
        await asyncio.sleep(10)
        live.replace(structs.replace(SETTINGS, heartbeat_interval_s=0.5))
        agent = MemoryAgent(roster).register()
        await asyncio.sleep(3.0)
        watching.cancel()
    assert agent.closed_reason == "no heartbeat for too long"


def test_a_call_without_an_answer_raises_an_issue_that_clears_by_itself(
    roster: Roster, clock: Clock
) -> None:
    agent = MemoryAgent(roster).register()
    agent.link.call(PARAMS, Deaf())
    clock.now_s += 1.9
    roster.notice_slow_confirmations()
    assert roster.snapshot()[0].issues == ()
    clock.now_s += 0.2
    roster.notice_slow_confirmations()
    assert [issue.code for issue in roster.snapshot()[0].issues] == ["slow_confirmation"]
    agent.answer()
    roster.notice_slow_confirmations()
    assert roster.snapshot()[0].issues == ()


def test_issues_are_kept_until_cleared_and_bounded(roster: Roster) -> None:
    agent = MemoryAgent(roster).register()
    for index in range(70):
        issue = Issue(code=f"code-{index}", message="look at it")
        agent.raise_issue(IssueRaised(issue=issue))
    assert len(roster.snapshot()[0].issues) == 64
    agent.raise_issue(IssueCleared(code="code-3"))
    assert "code-3" not in {issue.code for issue in roster.snapshot()[0].issues}


def test_slots_are_published_by_agent_and_leave_with_it(roster: Roster, metrics: Metrics) -> None:
    agent = MemoryAgent(roster, slots=3).register()
    agent.link.call(PARAMS, Deaf())
    text = metrics.text().decode()
    assert 'paddler_agent_slots_total_count{agent="one"} 3.0' in text
    assert 'paddler_agent_slots_used_count{agent="one"} 1.0' in text
    agent.die()
    assert 'agent="one"' not in metrics.text().decode()
    assert lost(metrics) == 1.0


def lost(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("paddler_agents_lost_total")


def test_only_an_agent_that_goes_unannounced_is_lost(roster: Roster, metrics: Metrics) -> None:
    stopped = MemoryAgent(roster, "stopped").register()
    stopped.goodbye()
    stopped.die()
    MemoryAgent(roster, "removed").register()
    roster.remove("removed")
    assert lost(metrics) == 0.0
    again = MemoryAgent(roster, "stopped").register()
    again.die()
    assert lost(metrics) == 1.0


def test_a_snapshot_is_a_value_and_ages_are_durations(roster: Roster, clock: Clock) -> None:
    agent = MemoryAgent(roster).register()
    clock.now_s += 2.0
    agent.heartbeat()
    clock.now_s += 1.5
    (row,) = roster.snapshot()
    assert (row.connected_for_s, row.last_heard_s_ago) == (3.5, 1.5)
    agent.die()
    assert roster.snapshot() == []
    assert row.hardware == ANY


@in_virtual_time
async def test_liveness_checks_again_and_again_until_it_is_cancelled() -> None:
    roster = Roster(
        settings=LiveSettings(SETTINGS), metrics=Metrics(), now=asyncio.get_running_loop().time
    )
    agent = MemoryAgent(roster).register()
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(Liveness(roster).run())
        await asyncio.sleep(14.9)
        reasons = [agent.closed_reason]
        await asyncio.sleep(1.2)
        reasons.append(agent.closed_reason)
        watching.cancel()
    assert reasons == [None, "no heartbeat for too long"]


@in_virtual_time
async def test_agents_are_not_dropped_because_the_balancer_itself_stood_still() -> None:
    """SIGSTOP, a frozen container: the heartbeats are there, nobody has read them yet."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    roster = Roster(settings=LiveSettings(SETTINGS), metrics=Metrics(), now=loop.time)
    agent, silent = MemoryAgent(roster).register(), MemoryAgent(roster, "silent").register()
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(Liveness(roster).run())
        await asyncio.sleep(0.5)
        loop.stand_still(60.0)
        await asyncio.sleep(0.6)
        agent.heartbeat()
        assert (agent.closed_reason, silent.closed_reason) == (None, None)
        await asyncio.sleep(2.0)
        assert agent.closed_reason is None
        assert silent.closed_reason
        watching.cancel()


def test_an_agent_that_was_replaced_changes_nothing_any_more(roster: Roster) -> None:
    old = MemoryAgent(roster).register()
    new = MemoryAgent(roster, slots=2).register()
    roster.on_issue_raised(old.link, Issue(code="late", message="late"))
    roster.on_issue_cleared(old.link, "late")
    roster.on_goodbye(old.link, "late")
    roster.on_call_ended(old.link)
    roster.on_heartbeat(old.link, Heartbeat(status=old.status(slots_total=9)))
    assert (only(roster).slots_total, only(roster).issues, only(roster).is_draining) == (
        2,
        {},
        False,
    )
    assert only(roster).link is new.link


# --- slots that come back with time ---


@pytest.mark.parametrize("look", ["candidates", "agents", "agent", "snapshot"])
def test_whoever_looks_sees_an_ejected_agent_s_slots_come_back_with_time(
    roster: Roster, clock: Clock, look: str
) -> None:
    MemoryAgent(roster, slots=8).register()

    def free() -> int:
        if look == "snapshot":
            return roster.snapshot()[0].slots.free
        if look == "agent":
            found = roster.agent("one")
            assert found is not None
            return found.slots_free
        return next(
            iter(roster.agents() if look == "agents" else roster.candidates("demo"))
        ).slots_free

    for _ in range(FAILURES_IN_A_ROW):
        roster.note_failure(only(roster), engine_died=False)
    assert free() == 0
    clock.now_s += FIRST_EJECTION_S
    assert free() == 1
    roster.note_success(only(roster))
    clock.now_s += SLOW_START_S / 2
    assert free() == 4
    clock.now_s += SLOW_START_S / 2
    assert free() == 8


def test_who_waits_hears_of_a_recovery_though_somebody_looked_before(
    roster: Roster, clock: Clock
) -> None:
    MemoryAgent(roster, slots=8).register()
    for _ in range(FAILURES_IN_A_ROW):
        roster.note_failure(only(roster), engine_died=False)
    clock.now_s += FIRST_EJECTION_S
    roster.take_back_ejected()
    roster.note_success(only(roster))
    clock.now_s += SLOW_START_S
    rooms: list[int] = []
    roster.listen(lambda agent: rooms.append(agent.slots_free))
    assert roster.snapshot()[0].slots.free == 8
    roster.take_back_ejected()
    roster.take_back_ejected()
    assert rooms == [8]
