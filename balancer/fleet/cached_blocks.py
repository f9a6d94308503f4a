"""Which prefix blocks one agent holds, as it reports them with `cache_changed`.

    known --gap--> unknown --(asked for a snapshot)--> a message that starts over --> known

A guess to route by, never a promise: an agent that was believed wrongly computes what it lacks.
"""

from __future__ import annotations

from collections import Counter

from protocol.prefix_chain import HASH_BYTES, MAX_CACHED_BLOCKS, unpacked
from protocol.to_balancer import CacheChanged

MOST_COMING = 512
"""Blocks of one running call that are looked at; what it shares with others is at the front."""


class CachedBlocks:
    """At most `MAX_CACHED_BLOCKS`; what an agent reports beyond them is ignored."""

    def __init__(self) -> None:
        self._blocks: set[bytes] = set()
        self._coming: Counter[bytes] = Counter()
        """Of calls that run: they will be cached soon."""
        self._cache_seq = 0
        self.is_known = True
        """False: messages were missed, and nothing counts until one starts over."""

    def __len__(self) -> int:
        return len(self._blocks)

    def take(self, changed: CacheChanged) -> None:
        """Take a report; one that was overtaken changes nothing."""
        if changed.cache_seq <= self._cache_seq:
            return
        is_next = changed.cache_seq == self._cache_seq + 1
        self._cache_seq = changed.cache_seq
        if changed.starts_over:
            self._blocks.clear()
            self.is_known = True
        elif not (self.is_known and is_next):
            self._forget()
            return
        self._blocks.difference_update(unpacked(changed.lost))
        for block in unpacked(changed.gained):
            if len(self._blocks) >= MAX_CACHED_BLOCKS:
                break
            self._blocks.add(block)

    def compare(self, cache_seq: int) -> None:
        """A status names the last report that was sent before it."""
        if cache_seq > self._cache_seq:
            self._cache_seq = cache_seq
            self._forget()

    def expect(self, chain: bytes) -> None:
        """A call with this chain runs, so its blocks are computed there."""
        self._coming.update(_first_blocks(chain))

    def expect_no_more(self, chain: bytes) -> None:
        """The call is over: what it left has been reported."""
        coming = self._coming
        for block in _first_blocks(chain):
            coming[block] -= 1
            if coming[block] <= 0:
                del coming[block]

    def matched_blocks(self, chain: bytes) -> int:
        """How many of a packed chain's blocks, from its first on, the agent holds, or will soon.

        A dozen look-ups for the longest chain: whoever holds a block holds those before it. Where
        that is not so for a moment, the answer is a block that is held with one after it that is
        not, or an end of the chain.
        """
        held, missing = 0, len(chain) // HASH_BYTES + 1
        while missing - held > 1:
            middle = (held + missing) // 2
            block = chain[(middle - 1) * HASH_BYTES : middle * HASH_BYTES]
            if block in self._blocks or block in self._coming:
                held = middle
            else:
                missing = middle
        return held

    def _forget(self) -> None:
        self._blocks.clear()
        self.is_known = False


def _first_blocks(chain: bytes) -> list[bytes]:
    most = min(len(chain), MOST_COMING * HASH_BYTES)
    return [chain[at : at + HASH_BYTES] for at in range(0, most, HASH_BYTES)]
