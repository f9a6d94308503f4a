"""Whose cached tokens a request may use: everybody's, or its tenant's alone. Pure."""

from __future__ import annotations

from hashlib import blake2b

from balancer.access import CacheIsolation

SHARED = ""
"""The scope of all whom nothing parts."""
_SCOPE_BYTES = 16


def is_isolated(mode: CacheIsolation, *, is_open: bool) -> bool:
    """Whether tenants are kept apart. `is_open`: nobody has to sign in.

    Where they do, `auto` does not count them: a lone tenant shares with itself either way, and one
    that comes later finds nothing of those who were there before it.
    """
    return mode == "tenant" or (mode == "auto" and not is_open)


def scope_of(tenant: str, secret: bytes) -> str:
    """A tenant's scope: 32 characters that say nothing to whoever has not the `secret` (16 to 64
    bytes), and are the same as long as that is."""
    data = tenant.encode("utf-8", "surrogatepass")
    digest = blake2b(data, key=secret, digest_size=_SCOPE_BYTES, person=b"paddler scope 1")
    return digest.hexdigest()
