"""Credentials that were looked at lately, so that they need not be again. Pure.

They are known by a digest under a secret of this process. Past the bound those that were not used
for longest are forgotten.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Collection
from math import inf

from msgspec import Struct

from balancer.policy.identity.keyring import Denied
from balancer.policy.identity.principal import Principal

MOST_KNOWN = 10_000

Found = Principal | Denied


class _Entry(Struct, frozen=True):
    found: Found
    since_s: float
    until_s: float
    ends_s: float
    signed_by: bytes


class KnownCredentials:
    """What was found of each."""

    def __init__(self, secret: bytes, most: int = MOST_KNOWN) -> None:
        """`secret`: random bytes of this process."""
        self._secret = secret
        self._most = most
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def tag_of(self, kind: str, credentials: str) -> bytes:
        """By which credentials of a kind are known here; they may be any bytes of a header."""
        data = f"{kind} {credentials}".encode("utf-8", "surrogatepass")
        return hmac.digest(self._secret, data, hashlib.sha256)

    def find(self, tag: bytes, *, unix_s: float) -> Found | None:
        """What was found of it; None: it has to be looked at."""
        entry = self._entries.get(tag)
        if entry is None:
            return None
        if (
            not entry.since_s <= unix_s < entry.until_s
        ):  # a clock that was set back prolongs nothing
            del self._entries[tag]
            return None
        self._entries.move_to_end(tag)
        return entry.found

    def keep(
        self,
        tag: bytes,
        found: Found,
        *,
        since_s: float = 0.0,
        until_s: float,
        ends_s: float = inf,
        signed_by: bytes = b"",
    ) -> None:
        """Know it from now, `since_s`, until then. `ends_s`: when it ends itself; `signed_by`: its
        key's digest."""
        self._entries[tag] = _Entry(found, since_s, until_s, ends_s, signed_by)
        self._entries.move_to_end(tag)
        if len(self._entries) > self._most:
            self._entries.popitem(last=False)

    def ends_s(self, principal: Principal) -> float:
        """When the last of what stands for it ends, in unix seconds."""
        return max(
            (entry.ends_s for entry in self._entries.values() if entry.found == principal),
            default=inf,
        )

    def drop_signed(self, keys: Collection[bytes]) -> frozenset[str]:
        """Forget what these keys have signed; the ids of whom something else that is known stands
        for, and nothing of that did."""
        gone = {tag: one.found.id for tag, one in self._entries.items() if one.signed_by in keys}
        for tag in gone:
            del self._entries[tag]
        return frozenset(one.found.id for one in self._entries.values()) - set(gone.values())
