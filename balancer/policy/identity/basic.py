"""Names and passwords, as `Authorization: Basic` has them (RFC 7617). Pure; comparing a password
with its hash is made to take long, and is done elsewhere."""

from __future__ import annotations

import hmac
from base64 import b64decode
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from math import inf

from msgspec import Struct

from balancer.access import PasswordHolder
from balancer.policy.identity.keyring import Denied, is_within, principal_of
from balancer.policy.identity.principal import Principal

MAX_GIVEN_CHARS = 2048
"""Of name and password together, as they are sent."""


class Attempt(Struct, frozen=True, kw_only=True):
    """A password to be compared with a hash. `found`: who it is if they fit, and what else where
    nobody has that name and the work is done all the same."""

    password: str
    password_hash: str
    found: Principal | Denied


class _Held(Struct, frozen=True):
    holder: PasswordHolder
    principal: Principal
    networks: tuple[IPv4Network | IPv6Network, ...]


class PasswordRing:
    """Everybody who may sign in so."""

    def __init__(self, holders: Sequence[PasswordHolder], secret: bytes) -> None:
        """`secret`: random bytes of this process."""
        self._secret = secret
        self._holders = holders
        self._held = {
            one.name: _Held(
                one,
                principal_of(one.credential, "basic"),
                tuple(map(ip_network, one.credential.networks)),
            )
            for one in holders
        }
        self._by_id = {held.principal.id: held for held in self._held.values()}

    def attempt(self, given: str) -> Attempt | Denied:
        """What to compare. A name that nobody has is compared with a hash of somebody else, always
        the same, so that it takes as long and tells nothing."""
        name, password = _name_and_password(given)
        if name is None:
            return Denied("form", kind="password")
        held = self._held.get(name)
        if held is None:
            number = int.from_bytes(hmac.digest(self._secret, name.encode(), "sha256"))
            holder = self._holders[number % len(self._holders)]
            found: Principal | Denied = Denied("unknown", kind="password")
        else:
            holder, found = held.holder, held.principal
        return Attempt(password=password, password_hash=holder.password_hash.reveal(), found=found)

    def check(
        self, found: Principal | Denied, *, address: str, unix_s: float
    ) -> Principal | Denied:
        """Whether somebody whose password was right may come in from an address at a time."""
        if isinstance(found, Denied):
            return found
        held = self._by_id[found.id]
        expires_s = held.holder.credential.expires_s
        if expires_s is not None and unix_s >= expires_s:
            return Denied("expired", found.id, kind="password")
        if held.networks and not is_within(address, held.networks):
            return Denied("address", found.id, kind="password")
        return found

    def ends_s(self, principal: Principal) -> float:
        """When somebody may not sign in any more, in unix seconds."""
        held = self._by_id.get(principal.id)
        if held is None or held.principal != principal:
            return inf
        return held.holder.credential.expires_s or inf


def _name_and_password(given: str) -> tuple[str | None, str]:
    if len(given) > MAX_GIVEN_CHARS:
        return None, ""
    try:
        name, colon, password = b64decode(given, validate=True).decode().partition(":")
    except ValueError:
        return None, ""
    return (name, password) if colon else (None, "")
