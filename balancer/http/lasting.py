"""Connections that go on after their request was let in: they end with what let them in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import structlog
from msgspec import Struct

from balancer.policy.identity.known_keys import KnownKeys
from balancer.policy.identity.principal import Principal
from balancer.policy.identity.sessions import Sessions

log = structlog.get_logger(__name__)

_DOOR_CLOSED = "nobody had to sign in before, and now all have to"
_REVOKED = "what it signed in with was revoked, replaced or changed"
_EXPIRED = "what it signed in with has expired"
_SIGNED_OUT = "its session is over"
_ELSEWHERE = "what it signed in with may not be used from its address any more"


class Ticket(Struct, frozen=True, kw_only=True):
    """What let a connection in."""

    principal: Principal
    address: str
    """Of the client."""
    cookie: str | None
    """Of the session that stood for it; None: it signed in itself, or did not have to."""
    ends_s: float
    """When that is over, in unix seconds, as far as that was known; a key may get an end later."""


class _Connection(Struct, frozen=True, eq=False):
    ticket: Ticket
    close: Callable[[str], None]


class LastingConnections:
    """All of them; as many as there are sockets."""

    def __init__(
        self,
        *,
        keys: KnownKeys,
        sessions: Sessions,
        is_open: Callable[[], bool],
        wall_clock: Callable[[], float],
    ) -> None:
        """`is_open`: whether nobody has to sign in."""
        self._keys = keys
        self._sessions = sessions
        self._is_open = is_open
        self._wall_clock = wall_clock
        self._connections: dict[_Connection, None] = {}

    def __len__(self) -> int:
        return len(self._connections)

    @contextmanager
    def held(self, ticket: Ticket, close: Callable[[str], None]) -> Iterator[Callable[[], None]]:
        """While this is open, `close(reason)` is called once the ticket is good no more; what it
        hands out looks at once."""
        connection = _Connection(ticket, close)
        self._connections[connection] = None
        try:
            self._end_if_over(connection)  # it may be so since it was let in
            yield partial(self._end_if_over, connection)
        finally:
            self._connections.pop(connection, None)

    def keep(self, may_go_on: Callable[[Principal], bool]) -> None:
        """Close those of anybody else."""
        for connection in tuple(self._connections):
            if not may_go_on(connection.ticket.principal):
                self._end(connection, _REVOKED)

    def end_what_is_over(self) -> None:
        """Close those whose tickets are not good any more."""
        for connection in tuple(self._connections):
            self._end_if_over(connection)

    def _end_if_over(self, connection: _Connection) -> None:
        if (reason := self._objection(connection.ticket)) is not None:
            self._end(connection, reason)

    def _objection(self, ticket: Ticket) -> str | None:
        principal, unix_s = ticket.principal, self._wall_clock()
        if not principal.id:
            return None if self._is_open() else _DOOR_CLOSED
        if not self._keys.may_come_from(principal, ticket.address):
            return _ELSEWHERE
        if ticket.cookie is not None:
            session = self._sessions.find(ticket.cookie, unix_s=unix_s)
            return None if session is not None else _SIGNED_OUT
        if principal.key_number is not None and not self._keys.has(principal):
            return _REVOKED
        ends_s = min(ticket.ends_s, self._keys.ends_s(principal))
        return _EXPIRED if unix_s >= ends_s else None

    def _end(self, connection: _Connection, reason: str) -> None:
        if connection not in self._connections:  # closing another one has closed it
            return
        del self._connections[connection]
        key = connection.ticket.principal.id or None
        log.info("connection ended with its credentials", key=key, reason=reason)
        connection.close(reason)
