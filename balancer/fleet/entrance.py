"""Which agents may come in, and under which names."""

from __future__ import annotations

from typing import Literal

from balancer.errors import LinkRefused
from balancer.fleet.agent import Agent
from balancer.fleet.latest import Latest
from balancer.policy.identity.badge import Badge
from protocol.to_balancer import (
    OLDEST_PROTOCOL_VERSION,
    PROTOCOL_VERSION,
    RESERVED_AGENT_NAMES,
    Register,
)

HEARTBEATS_TO_LOSE_A_NAME = 1.5
"""Quiet for this many intervals, an agent has missed a heartbeat. Each one comes a little late: at
just one interval a stranger that keeps trying would get the name of an agent that is well."""
MAX_REMOVED = 1024


class Entrance:
    """Remembers what operators said of names; the latest 1024 of each kind."""

    def __init__(self) -> None:
        self._removed: Latest[Literal[True]] = Latest(MAX_REMOVED)
        self._drained: Latest[Literal[True]] = Latest(MAX_REMOVED)
        """Coming back does not end a drain either."""

    def keep_out(self, name: str) -> None:
        """Until it is let in."""
        self._removed.note(name, True)

    def let_in(self, name: str) -> bool:
        """Let it come back; False if it was not kept out."""
        return self._removed.take(name) is not None

    def note_draining(self, name: str, *, draining: bool) -> None:
        """Under this name an agent gets nothing new, or it does again."""
        if draining:
            self._drained.note(name, True)
        else:
            self._drained.take(name)

    def is_drained(self, name: str) -> bool:
        """Whether an agent of this name gets nothing new."""
        return name in self._drained

    def admit(self, register: Register, present: Agent | None, *, badge: Badge, now: float) -> int:
        """The version to speak with it. `badge` is what it came with, `present` whoever has its
        name: its own earlier link goes, a stranger's stays while it is alive. Raises
        `LinkRefused` with the remedy."""
        version = _common_version(register)
        name = register.name
        if name in RESERVED_AGENT_NAMES:
            raise LinkRefused(
                f"no agent may be called {name!r}, as /agents/{name} is no agent's path; "
                "start this one with --name and another name",
                reason="name_reserved",
            )
        objection = badge.objection(name, register.labels)
        if objection is not None:
            raise LinkRefused(objection, reason="not_entitled")
        if name in self._removed:
            raise LinkRefused(
                f"the agent {name!r} was removed by an operator; "
                f"POST /agents/{name}/undrain lets it in again",
                reason="removed",
            )
        if present is not None:
            self._make_room_for(register, present, badge=badge, now=now)
        return version

    def _make_room_for(
        self, register: Register, present: Agent, *, badge: Badge, now: float
    ) -> None:
        """One name, one agent. Who comes with other credentials gets it from nobody who is still
        connected, whatever it knows of that agent."""
        if not badge.is_same(present.link.badge):
            raise LinkRefused(
                f"an agent that joined with other credentials is connected under the name "
                f"{register.name!r}; start this one with --name and a name of its own, or try "
                "again when the other one is gone",
                reason="name_taken",
            )
        quiet_s = now - present.link.last_received_s
        if present.epoch == register.epoch:
            present.link.close("the agent connected again")
        elif quiet_s > HEARTBEATS_TO_LOSE_A_NAME * present.link.heartbeat_interval_s:
            present.link.close("missed a heartbeat, and another agent took the name")
        else:
            raise LinkRefused(
                f"another agent is connected under the name {register.name!r}; start this one with "
                "--name and a name of its own",
                reason="name_taken",
            )


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
