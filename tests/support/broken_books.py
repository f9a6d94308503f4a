"""Defects for the state machine of `reservations.py` to find: each breaks one promise of the
balancer's books, by putting something wrong in place of one method."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from msgspec import structs

from balancer.dispatch.dispatcher import Dispatcher
from balancer.dispatch.relay import Relay
from balancer.dispatch.so_far import SoFar
from balancer.dispatch.starts import Starts
from balancer.dispatch.waiting_room import WaitingRoom
from balancer.fleet.agent import Agent
from balancer.fleet.agent_link import AgentLink
from balancer.fleet.call_handler import DROPPED, CallHandler
from balancer.fleet.link_calls import LinkCalls
from balancer.fleet.roster import Roster
from protocol.agent_status import AgentStatus
from protocol.jsonrpc import CallId
from protocol.to_balancer import Heartbeat

Defect = Callable[[pytest.MonkeyPatch], None]


def _nothing(*_given: Any, **_named: Any) -> None:
    """Stands in for a method that is left out."""


# --- claims equal the agents' truth ---


def a_claim_is_not_debited(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Agent, "slots_used", property(lambda _agent: 0))
    patch.setattr(Agent, "recount", lambda agent: setattr(agent, "slots_free", agent.slots_total))


def a_change_of_claims_is_not_counted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(AgentLink, "watch_claims", _nothing)


def an_older_status_overwrites_a_newer(patch: pytest.MonkeyPatch) -> None:
    take_status = Agent.take_status

    def take_any(agent: Agent, status: AgentStatus, *, now: float) -> bool:
        agent.status = structs.replace(agent.status, seq=-1)
        return take_status(agent, status, now=now)

    patch.setattr(Agent, "take_status", take_any)


def a_cancel_frees_the_slot_at_once(patch: pytest.MonkeyPatch) -> None:
    cancel = LinkCalls.cancel

    def cancel_and_end(calls: LinkCalls, call_id: int) -> None:
        cancel(calls, call_id)
        if call_id in calls:
            calls.end(call_id, _nothing)

    patch.setattr(LinkCalls, "cancel", cancel_and_end)


def an_end_frees_no_slot(patch: pytest.MonkeyPatch) -> None:
    end = LinkCalls.end

    def end_and_keep(
        calls: LinkCalls, call_id: CallId, tell: Callable[[CallHandler], None]
    ) -> None:
        is_known = call_id in calls
        end(calls, call_id, tell)
        if is_known:
            calls._handlers[call_id] = DROPPED

    patch.setattr(LinkCalls, "end", end_and_keep)


def a_confirmed_cancel_frees_no_slot(patch: pytest.MonkeyPatch) -> None:
    end = LinkCalls.end

    def end_unless_cancelled(
        calls: LinkCalls, call_id: CallId, tell: Callable[[CallHandler], None]
    ) -> None:
        if call_id not in calls._cancelled:
            end(calls, call_id, tell)

    patch.setattr(LinkCalls, "end", end_unless_cancelled)


def a_second_end_frees_another_calls_slot(patch: pytest.MonkeyPatch) -> None:
    end = LinkCalls.end

    def end_one(calls: LinkCalls, call_id: CallId, tell: Callable[[CallHandler], None]) -> None:
        if call_id not in calls and len(calls):
            calls._handlers.popitem()
        end(calls, call_id, tell)

    patch.setattr(LinkCalls, "end", end_one)


# --- no request is lost, or counted twice ---


def a_refusal_loses_the_request(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Dispatcher, "on_refused_for_capacity", _nothing)


def a_dead_agent_keeps_its_requests(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LinkCalls, "tell_lost", _nothing)


def a_cancel_is_never_sent(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(AgentLink, "cancel", _nothing)


def who_starts_goes_on_waiting(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(WaitingRoom, "leave", _nothing)


# --- nobody waits while there is room ---


def a_freed_slot_wakes_nobody(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Roster, "on_call_ended", _nothing)


def a_new_agent_wakes_nobody(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Roster, "on_registered", _nothing)


def news_of_more_slots_wakes_nobody(patch: pytest.MonkeyPatch) -> None:
    def take_silently(roster: Roster, link: AgentLink, heartbeat: Heartbeat) -> None:
        agent = roster.agent(link.agent_name)
        assert agent is not None
        agent.take_heartbeat(heartbeat, now=link.last_received_s)

    patch.setattr(Roster, "on_heartbeat", take_silently)


# --- no waiter starves ---


def the_youngest_starts_first(patch: pytest.MonkeyPatch) -> None:
    in_order = WaitingRoom.in_order

    def in_reverse(room: WaitingRoom[Relay], queues: Iterable[str]) -> Iterator[Relay]:
        return reversed(tuple(in_order(room, queues)))

    patch.setattr(WaitingRoom, "in_order", in_reverse)


def who_was_refused_goes_to_the_end(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(WaitingRoom, "_restore_order", _nothing)


def a_wait_never_ends(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Starts, "_expire", _nothing)


# --- what clients saw is whole ---


def the_next_agent_begins_anew(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SoFar, "resume", _nothing)


def an_unreadable_step_is_passed_over(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Relay, "on_garbled", _nothing)


def the_last_agent_is_still_heard(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LinkCalls, "abandon", LinkCalls.cancel)


DEFECTS: tuple[Defect, ...] = (
    a_claim_is_not_debited,
    a_change_of_claims_is_not_counted,
    an_older_status_overwrites_a_newer,
    a_cancel_frees_the_slot_at_once,
    an_end_frees_no_slot,
    a_confirmed_cancel_frees_no_slot,
    a_second_end_frees_another_calls_slot,
    a_refusal_loses_the_request,
    a_dead_agent_keeps_its_requests,
    a_cancel_is_never_sent,
    who_starts_goes_on_waiting,
    a_freed_slot_wakes_nobody,
    a_new_agent_wakes_nobody,
    news_of_more_slots_wakes_nobody,
    the_youngest_starts_first,
    who_was_refused_goes_to_the_end,
    a_wait_never_ends,
    the_next_agent_begins_anew,
    an_unreadable_step_is_passed_over,
    the_last_agent_is_still_heard,
)
