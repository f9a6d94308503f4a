"""Who has signed in with a browser: a key went in, and a cookie stands for it for a while. Pure.

Whoever draws the tokens hands them in. What is kept of a cookie is its digest.
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Callable

from msgspec import Struct

from balancer.access import digest_of
from balancer.policy.identity.principal import Principal

MOST_SESSIONS = 1000
LONGEST_S = 12 * 3600.0
IDLE_S = 3600.0
"""Unused for so long, a session ends."""


class Session(Struct, kw_only=True):
    """One browser that signed in."""

    principal: Principal
    csrf_token: str
    """What its page sends with every change; a page of another origin cannot know it."""
    ends_s: float
    used_s: float

    def is_over(self, unix_s: float) -> bool:
        """Whether it stands for nobody any more."""
        return unix_s >= self.ends_s or unix_s - self.used_s >= IDLE_S

    def knows(self, token: str) -> bool:
        """Whether a change comes from its own page."""
        return hmac.compare_digest(self.csrf_token.encode(), token.encode("utf-8", "replace"))


class Sessions:
    """All of them; past the bound the one that was not used for longest goes."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def open(
        self, cookie: str, csrf_token: str, principal: Principal, *, unix_s: float, ends_s: float
    ) -> Session:
        """Somebody signed in; the session ends with its key, at `ends_s`, or before."""
        session = Session(
            principal=principal,
            csrf_token=csrf_token,
            ends_s=min(unix_s + LONGEST_S, ends_s),
            used_s=unix_s,
        )
        self._sessions[digest_of(cookie)] = session
        if len(self._sessions) > MOST_SESSIONS:
            self._sessions.popitem(last=False)
        return session

    def find(self, cookie: str, *, unix_s: float) -> Session | None:
        """Whom a cookie stands for."""
        digest = digest_of(cookie)
        session = self._sessions.get(digest)
        if session is None:
            return None
        if session.is_over(unix_s):
            del self._sessions[digest]
            return None
        session.used_s = unix_s
        self._sessions.move_to_end(digest)
        return session

    def close(self, cookie: str) -> None:
        """Somebody signed out."""
        self._sessions.pop(digest_of(cookie), None)

    def shorten(self, ends_s: Callable[[Principal], float]) -> None:
        """No session outlives its key, which may have got an end since somebody signed in."""
        for session in self._sessions.values():
            session.ends_s = min(session.ends_s, ends_s(session.principal))

    def keep(self, is_in_force: Callable[[Principal], bool]) -> None:
        """Other keys are in force: sessions of those that are not, or changed, end."""
        self._sessions = OrderedDict(
            (digest, session)
            for digest, session in self._sessions.items()
            if is_in_force(session.principal)
        )
