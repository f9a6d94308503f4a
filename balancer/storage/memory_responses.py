"""Responses kept in memory: they end with the balancer."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from msgspec import Struct

from balancer.storage.responses import Account, Bounds, Conversation, StoredResponse, followed


class _Kept(Struct, frozen=True):
    response: StoredResponse
    used_s: float


class MemoryResponses:
    """In the order of their last use. Satisfies `ResponseStore`."""

    def __init__(self, bounds: Bounds, *, now: Callable[[], float]) -> None:
        self._bounds = bounds
        self._now = now
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._account = Account()

    async def put(self, response: StoredResponse) -> bool:
        """Keep it, if it is not larger than the bound."""
        if not self._bounds.can_hold(response):
            return False
        self._drop(response.id)
        self._kept[response.id] = _Kept(response, self._now())
        self._account.add(response.tenant, response.size_bytes)
        self._make_room()
        return True

    async def get(self, response_id: str, tenant: str) -> StoredResponse | None:
        """One of the tenant's."""
        self._make_room()
        return self._find(response_id, tenant)

    async def conversation(self, response_id: str, tenant: str, *, max_bytes: int) -> Conversation:
        """One of the tenant's and what it continues."""
        self._make_room()
        found = followed(
            lambda wanted: self._find(wanted, tenant), response_id, max_bytes=max_bytes
        )
        for one in found.responses:
            self._kept[one.id] = _Kept(one, self._now())
            self._kept.move_to_end(one.id)
        return found

    async def delete(self, response_id: str, tenant: str) -> bool:
        """Forget one of the tenant's."""
        self._make_room()
        if self._find(response_id, tenant) is None:
            return False
        self._drop(response_id)
        return True

    def resize(self, bounds: Bounds) -> None:
        """Keep so much, from its next use on."""
        self._bounds = bounds

    async def close(self) -> None:
        """All is forgotten."""
        self._kept.clear()

    def _find(self, response_id: str, tenant: str) -> StoredResponse | None:
        kept = self._kept.get(response_id)
        return kept.response if kept is not None and kept.response.tenant == tenant else None

    def _drop(self, response_id: str) -> None:
        kept = self._kept.pop(response_id, None)
        if kept is not None:
            self._account.take_out(kept.response.tenant, kept.response.size_bytes)

    def _make_room(self) -> None:
        while self._kept:
            oldest = next(iter(self._kept.values()))
            if self._now() - oldest.used_s > self._bounds.max_age_s:
                self._drop(oldest.response.id)
            elif (what := self._bounds.shortage(self._account.all)) is not None:
                self._drop(self._oldest_of(self._account.greediest(what)))
            else:
                return

    def _oldest_of(self, tenant: str) -> str:
        return next(id for id, one in self._kept.items() if one.response.tenant == tenant)
