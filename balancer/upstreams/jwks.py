"""Fetches the keys that an issuer publishes (a JSON Web Key Set, RFC 7517, section 5).

A set is taken whole or not at all. What has a key in it that nobody may publish is no set of
somebody who can be trusted now.
"""

from __future__ import annotations

from typing import Any

from balancer.errors import ProviderFailed
from balancer.policy.identity.strict_json import strict_object
from balancer.settings import KIB
from balancer.signing_keys import SigningKey, key_of_jwk
from balancer.upstreams.provider import ProviderClient

TIMEOUT_S = 5.0
MAX_SET_BYTES = 256 * KIB
MAX_KEYS = 64


class KeySource:
    """Where sets are fetched from."""

    def __init__(self, client: ProviderClient, *, timeout_s: float = TIMEOUT_S) -> None:
        self._client = client
        self._timeout_s = timeout_s

    async def fetch(self, url: str) -> tuple[SigningKey, ...]:
        """The keys for signatures that can be checked here, one at least. Raises
        `ProviderFailed`. Cancelling is safe."""
        data = await self._client.get(url, timeout_s=self._timeout_s, most_bytes=MAX_SET_BYTES)
        try:
            return keys_of_set(data)
        except ValueError as error:
            raise ProviderFailed(f"what it publishes is no set of keys: {error}") from error


def keys_of_set(data: bytes) -> tuple[SigningKey, ...]:
    """Those of a set that are for signatures. Raises ValueError."""
    try:
        listed = strict_object(data).get("keys")
    except ValueError as error:
        raise ValueError("it is not JSON, or not strictly so") from error
    if not isinstance(listed, list):
        raise ValueError("it has no list of keys")
    if len(listed) > MAX_KEYS:
        raise ValueError(f"it has more than {MAX_KEYS} keys")
    found = [key for one in listed if (key := _key_of(one)) is not None]
    if not found:
        raise ValueError("it has no key for RS256, ES256 or EdDSA")
    if len({(key.algorithm, key.id) for key in found}) != len(found):
        raise ValueError("two of its keys have the same name")
    return tuple(found)


def _key_of(members: Any) -> SigningKey | None:
    if not isinstance(members, dict):
        raise ValueError("one of its keys is no object")
    return key_of_jwk(members)
