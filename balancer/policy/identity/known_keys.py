"""All keys that are in force: those of the configuration, then those of the store. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

from balancer.access import Credential
from balancer.policy.identity.key_text import is_mistyped
from balancer.policy.identity.keyring import MAX_KEY_CHARS, Denied, KeyRing
from balancer.policy.identity.principal import Principal


class KnownKeys:
    """Rings are replaced whole."""

    def __init__(self, secret: bytes) -> None:
        """`secret`: as `KeyRing` has it."""
        self._secret = secret
        self._configured = self._stored = KeyRing((), secret)
        self._used_s: dict[str, float] = {}
        self.has_had_stored = False
        """Whether there has been a stored key, also one that has ended."""

    def configure(self, credentials: Iterable[Credential]) -> None:
        """From now on these are the keys of the configuration."""
        self._configured = KeyRing(credentials, self._secret)

    def store(self, ring: KeyRing, *, has_keys: bool) -> None:
        """From now on these are the keys of the store, which `has_keys`, if only ended ones."""
        self._stored = ring
        self.has_had_stored |= has_keys

    def find(self, key: str, *, address: str, unix_s: float) -> Principal | Denied:
        """Whom a key stands for that was sent from an address at a time."""
        found = Denied("unknown")
        for ring in (self._configured, self._stored):
            sought = ring.find(key, address=address, unix_s=unix_s)
            if isinstance(sought, Principal):
                self._used_s[sought.id] = unix_s
                return sought
            if sought.fault != "unknown":
                found = sought
        if found.fault == "unknown" and is_mistyped(key[:MAX_KEY_CHARS]):
            return Denied("mistyped")
        return found

    def used_s(self, key_id: str) -> float | None:
        """When a key was used last, if that was since `take_used`."""
        return self._used_s.get(key_id)

    def take_used(self) -> dict[str, float]:
        """When keys were used since this was called last, in unix seconds by their ids."""
        used_s, self._used_s = self._used_s, {}
        return used_s

    def has(self, principal: Principal) -> bool:
        """Whether a key stands for exactly this one."""
        return self._configured.has(principal) or self._stored.has(principal)

    def may_come_from(self, principal: Principal, address: str) -> bool:
        """Whether its key may be used from there; what is no key's may be."""
        return all(
            ring.may_come_from(principal, address) for ring in (self._configured, self._stored)
        )

    def ends_s(self, principal: Principal) -> float:
        """When its key ends, in unix seconds."""
        for ring in (self._configured, self._stored):
            if ring.has(principal):
                return ring.ends_s(principal)
        return inf
