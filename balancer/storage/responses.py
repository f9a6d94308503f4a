"""Stored responses: what is kept of each, and the contract of whoever keeps them.

What was not used for longest goes first. Going on with a response uses everything that it
continues, so that a conversation that goes on keeps its beginning.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

DAY_S = 86_400.0
MAX_AGE_S = 30 * DAY_S
"""Unused for so long, a response goes: as long as OpenAI keeps them."""
MOST_LINKS = 2000
"""Responses that one conversation may have."""


class StoredResponse(Struct, frozen=True, kw_only=True):
    """One response. `previous_id` is the one that it continues, of the same tenant."""

    id: str
    tenant: str
    previous_id: str | None = None
    input_items: bytes
    """What its own request brought: a list, as JSON."""
    body: bytes
    """The answer, as JSON."""

    @property
    def size_bytes(self) -> int:
        """What counts towards the bound."""
        return len(self.input_items) + len(self.body)


class Conversation(Struct, frozen=True, kw_only=True):
    """A response with what it continues, oldest first; only the later part, where there is a
    reason."""

    responses: tuple[StoredResponse, ...]
    missing_id: str | None = None
    """The first one, seen from the end, that this tenant does not have (any more)."""
    is_too_long: bool = False
    """It has more bytes than were asked for, or more than `MOST_LINKS` responses."""


class Bounds(Struct, frozen=True, kw_only=True):
    """How much is kept."""

    max_responses: int
    max_bytes: int
    max_age_s: float = MAX_AGE_S

    def can_hold(self, response: StoredResponse) -> bool:
        """Whether it fits if all others go."""
        return self.max_responses > 0 and response.size_bytes <= self.max_bytes

    def must_go(self, *, count: int, total_bytes: int, idle_s: float) -> bool:
        """Whether the one that was not used for longest, `idle_s` seconds, has to go."""
        is_crowded = count > self.max_responses or total_bytes > self.max_bytes
        return is_crowded or idle_s > self.max_age_s


class ResponseStore(Protocol):
    """Keeps responses, each for its tenant alone. Every method may raise `StoreFailed`, and
    cancelling is safe: what was begun is then done or not done as a whole."""

    async def put(self, response: StoredResponse) -> bool:
        """Keep it, in place of one with the same id; False where it is larger than the bound."""

    async def get(self, response_id: str, tenant: str) -> StoredResponse | None:
        """One of the tenant's; this is no use of it."""

    async def conversation(self, response_id: str, tenant: str, *, max_bytes: int) -> Conversation:
        """One of the tenant's and what it continues; all of them count as used now."""

    async def delete(self, response_id: str, tenant: str) -> bool:
        """Forget one of the tenant's; False where there is none."""

    def resize(self, bounds: Bounds) -> None:
        """Keep so much, from its next use on."""

    async def close(self) -> None:
        """Nothing is asked after it."""


def followed(
    find: Callable[[str], StoredResponse | None], response_id: str, *, max_bytes: int
) -> Conversation:
    """The conversation that ends with a response; `find` knows one tenant's."""
    found: list[StoredResponse] = []
    size_bytes, wanted = 0, response_id
    while True:
        one = find(wanted)
        if one is None:
            return Conversation(responses=tuple(reversed(found)), missing_id=wanted)
        size_bytes += one.size_bytes
        if size_bytes > max_bytes or len(found) == MOST_LINKS:
            return Conversation(responses=tuple(reversed(found)), is_too_long=True)
        found.append(one)
        if one.previous_id is None:
            return Conversation(responses=tuple(reversed(found)))
        wanted = one.previous_id
