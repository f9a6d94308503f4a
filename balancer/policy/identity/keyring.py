"""Which credential a key is. Pure; whoever holds a ring makes it anew when its keys change.

A key is looked up by its digest under a secret, so that neither the table's order
nor the time that a look-up takes tells anything about keys that exist.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from math import inf
from typing import Literal

from msgspec import Struct, structs

from balancer.access import Credential, SignIn, digest_of, keyed_digest_of
from balancer.policy.identity.principal import Principal

MAX_KEY_CHARS = 4096
"""Longer ones are nobody's, and are not hashed."""
_NUMBER_BYTES = 8

Fault = Literal[
    "unknown",
    "mistyped",
    "expired",
    "address",
    "too long",
    "form",
    "header",
    "algorithm",
    "issuer",
    "key",
    "signature",
    "audience",
    "early",
    "claim",
    "role",
    "inactive",
]


class Denied(Struct, frozen=True):
    """Why credentials open nothing."""

    fault: Fault
    id: str = ""
    """Of the credential, if there is one: for the log, never for the caller."""
    kind: Literal["key", "token", "password"] = "key"
    claim: str = ""
    """Of a token: which is missing or wrong."""


class _Held(Struct, frozen=True, gc=False):
    credential: Credential
    principal: Principal
    networks: tuple[IPv4Network | IPv6Network, ...]


class KeyRing:
    """All keys that are in force."""

    def __init__(
        self, credentials: Iterable[Credential], secret: bytes, *, pepper: bytes = b""
    ) -> None:
        """`secret`: random bytes, kept as long as anything is that belongs to tenants; `pepper`:
        what the digests were made with, if with anything."""
        self._secret = secret
        self._pepper = pepper
        held = [
            _Held(one, self._principal_of(one), tuple(map(_network, one.networks)))
            for one in credentials
        ]
        self._held = {self._tag(one.credential.digest): one for one in held}
        self._by_number = {(one.principal.id, one.principal.key_number): one for one in held}

    def find(self, key: str, *, address: str, unix_s: float) -> Principal | Denied:
        """Whom a key stands for that was sent from an address at a time."""
        if not self._held:  # what holds nothing has nothing to tell
            return Denied("unknown")
        held = self._held.get(self._tag(self._digest(key[:MAX_KEY_CHARS])))
        if held is None or len(key) > MAX_KEY_CHARS:
            return Denied("unknown")
        credential = held.credential
        if credential.expires_s is not None and unix_s >= credential.expires_s:
            return Denied("expired", credential.id)
        if held.networks and not is_within(address, held.networks):
            return Denied("address", credential.id)
        return held.principal

    def has(self, principal: Principal) -> bool:
        """Whether a key stands for exactly this one."""
        held = self._held_for(principal)
        return held is not None and held.principal == principal

    def may_come_from(self, principal: Principal, address: str) -> bool:
        """Whether its key may be used from there, if it is one of these."""
        held = self._held_for(principal)
        return held is None or not held.networks or is_within(address, held.networks)

    def ends_s(self, principal: Principal) -> float:
        """When its key ends, in unix seconds."""
        held = self._held_for(principal)
        if held is None or held.credential.expires_s is None:
            return inf
        return held.credential.expires_s

    def _principal_of(self, one: Credential) -> Principal:
        """Another key in its place, or under its name, is somebody else: what this one let in ends
        with it, and of what has no name of its own nobody inherits anything."""
        number = one.number or int.from_bytes(self._tag(b"number" + one.digest)[:_NUMBER_BYTES])
        found = structs.replace(principal_of(one), key_number=number)
        if one.is_named or one.tenant:
            return found
        return structs.replace(found, tenant=f"key:{self._tag(b'tenant' + one.digest).hex()}")

    def _held_for(self, principal: Principal) -> _Held | None:
        if principal.key_number is None:
            return None
        return self._by_number.get((principal.id, principal.key_number))

    def _digest(self, key: str) -> bytes:
        return keyed_digest_of(key, self._pepper) if self._pepper else digest_of(key)

    def _tag(self, digest: bytes) -> bytes:
        return hmac.digest(self._secret, digest, hashlib.sha256)


@lru_cache(1024)
def _network(given: str) -> IPv4Network | IPv6Network:
    return ip_network(given)


def principal_of(credential: Credential, signed_in_by: SignIn = "key") -> Principal:
    """Whom it stands for."""
    return Principal(
        tenant=credential.tenant or f"key:{credential.id}",
        role=credential.role,
        id=credential.id,
        tier=credential.tier,
        models=credential.models,
        classes=credential.classes,
        agents=credential.agents,
        labels=credential.labels,
        allowance=credential.allowance,
        signed_in_by=signed_in_by,
    )


def is_within(address: str, networks: tuple[IPv4Network | IPv6Network, ...]) -> bool:
    """Whether an address is of one of these networks."""
    try:
        found: IPv4Address | IPv6Address = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return any((mapped or found) in network for network in networks)
