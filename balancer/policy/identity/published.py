"""The keys that issuers publish, as far as they are known now. Pure; a service fetches them."""

from __future__ import annotations

from collections.abc import Collection
from math import inf

from msgspec import Struct

from balancer.signing_keys import SigningKey


class _KeySet(Struct, frozen=True):
    keys: tuple[SigningKey, ...]
    taken_s: float


class PublishedKeys:
    """By the URLs they are published at. A set is good until another takes its place, or until it
    is too old: that nobody can fetch another takes no key away before."""

    def __init__(self) -> None:
        self._sets: dict[str, _KeySet] = {}

    def take(self, url: str, keys: tuple[SigningKey, ...], *, unix_s: float) -> frozenset[bytes]:
        """These are published there now. The digests of those that are so nowhere any more."""
        before = self._digests()
        self._sets[url] = _KeySet(keys, unix_s)
        return before - self._digests()

    def keys(self, url: str, *, unix_s: float, keep_s: float) -> tuple[SigningKey, ...]:
        """Those that are good; none: nobody knows any."""
        found = self._sets.get(url)
        return () if found is None or unix_s >= found.taken_s + keep_s else found.keys

    def until_s(self, url: str, keep_s: float) -> float:
        """How long those of a URL are good, if nothing new is heard of it."""
        found = self._sets.get(url)
        return inf if found is None else found.taken_s + keep_s

    def keep_those_of(self, urls: Collection[str]) -> None:
        """No others matter any more."""
        self._sets = {url: one for url, one in self._sets.items() if url in urls}

    def _digests(self) -> frozenset[bytes]:
        return frozenset(key.digest for one in self._sets.values() for key in one.keys)
