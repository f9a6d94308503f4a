"""Stored responses: what is kept of each, and the contract of whoever keeps them.

Where room is short, it is whoever has most that loses what it did not use for longest: nobody's
responses make room for another tenant's. Going on with a response uses everything that it
continues, so that a conversation that goes on keeps its beginning.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

from msgspec import Struct

Shortage = Literal["count", "size_bytes"]

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


class Held(Struct):
    """How much is kept, of a tenant or of all."""

    count: int = 0
    size_bytes: int = 0

    def add(self, count: int, size_bytes: int) -> None:
        """So much more, or less."""
        self.count += count
        self.size_bytes += size_bytes

    def of(self, what: Shortage) -> int:
        """How much of it."""
        return self.count if what == "count" else self.size_bytes


class Account:
    """What all have, and each tenant."""

    def __init__(self) -> None:
        self.all = Held()
        self._of: dict[str, Held] = {}

    def add(self, tenant: str, size_bytes: int, *, count: int = 1) -> None:
        """So many more of a tenant's."""
        self.all.add(count, size_bytes)
        self._of.setdefault(tenant, Held()).add(count, size_bytes)

    def take_out(self, tenant: str, size_bytes: int) -> None:
        """One less."""
        self.add(tenant, -size_bytes, count=-1)
        if not self._of[tenant].count:
            del self._of[tenant]

    def greediest(self, what: Shortage) -> str:
        """The tenant that has most of it; there is one."""
        return max(self._of, key=lambda tenant: self._of[tenant].of(what))


class Bounds(Struct, frozen=True, kw_only=True):
    """How much is kept."""

    max_responses: int
    max_bytes: int
    max_age_s: float = MAX_AGE_S

    def can_hold(self, response: StoredResponse) -> bool:
        """Whether it fits if all others go."""
        return self.max_responses > 0 and response.size_bytes <= self.max_bytes

    def shortage(self, held: Held) -> Shortage | None:
        """Of what there is too much; None: all may stay."""
        if held.count > self.max_responses:
            return "count"
        return "size_bytes" if held.size_bytes > self.max_bytes else None


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
