"""Which prefix blocks one agent holds, as it reports them with `cache_changed`.

    known --gap--> unknown --(asked for a snapshot)--> a message that starts over --> known

A guess to route by, never a promise: an agent that was believed wrongly computes what it lacks.
"""

from __future__ import annotations

from collections.abc import Iterable

from balancer.fleet.prefix_index import PrefixIndex
from protocol.prefix_chain import HASH_BYTES, MAX_CACHED_BLOCKS, unpacked
from protocol.to_balancer import CacheChanged

MOST_COMING = 512
"""Blocks of one running call that are looked at; what it shares with others is at the front."""


class CachedBlocks:
    """At most `MAX_CACHED_BLOCKS`, and `MOST_COMING` of each running call; what an agent reports
    beyond them is ignored. The index is told of every change."""

    def __init__(self, index: PrefixIndex, name: str) -> None:
        self._index = index
        self._name = name
        self._bit = index.enter(name)
        self._blocks: set[bytes] = set()
        self._coming: dict[bytes, int] = {}
        """How many calls that run will have them cached soon."""
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
            self._lose_all()
            self.is_known = True
        elif not (self.is_known and is_next):
            self._forget()
            return
        lost = self._blocks.intersection(unpacked(changed.lost))
        self._blocks -= lost
        self._take_out(lost)
        gained = []
        for block in unpacked(changed.gained):
            if len(self._blocks) >= MAX_CACHED_BLOCKS:
                break
            self._blocks.add(block)
            gained.append(block)
        self._index.add(gained, self._bit)

    def compare(self, cache_seq: int) -> None:
        """A status names the last report that was sent before it."""
        if cache_seq > self._cache_seq:
            self._cache_seq = cache_seq
            self._forget()

    def expect(self, chain: bytes) -> int:
        """A call with this chain runs, so those of its blocks are computed there that are not held:
        all but the first so many, which is what `expect_no_more` is told."""
        held = self._held_blocks(chain)
        coming, new = self._coming, []
        for block in _first_blocks(chain, but=held):
            calls = coming.get(block, 0)
            coming[block] = calls + 1
            if not calls:
                new.append(block)
        self._index.add(new, self._bit)
        return held

    def expect_no_more(self, chain: bytes, *, held: int) -> None:
        """The call is over: what it left has been reported."""
        coming, over = self._coming, []
        for block in _first_blocks(chain, but=held):
            calls = coming.pop(block, 0) - 1
            if calls > 0:
                coming[block] = calls
            else:
                over.append(block)
        self._take_out(over)

    def leave(self) -> None:
        """The agent is gone. Its calls may end after it; nobody looks at what they leave."""
        coming, self._coming = self._coming, {}
        self._forget()
        self._take_out(coming)
        self._index.leave(self._bit)
        self._index = PrefixIndex()
        self._bit = self._index.enter(self._name)

    def matched_blocks(self, chain: bytes) -> int:
        """How many of a packed chain's blocks, from its first on, the agent holds, or will soon; as
        the index says."""
        return self._index.matched_blocks(chain).get(self._name, 0)

    def _held_blocks(self, chain: bytes) -> int:
        """How many of the chain's blocks are held, from the first on: by halving, as whoever holds
        a block holds those before it."""
        blocks = self._blocks
        if chain[:HASH_BYTES] not in blocks:
            return 0
        held, most = 1, len(chain) // HASH_BYTES
        while held < most:
            middle = (held + most + 1) // 2
            if chain[(middle - 1) * HASH_BYTES : middle * HASH_BYTES] in blocks:
                held = middle
            else:
                most = middle - 1
        return held

    def _forget(self) -> None:
        self._lose_all()
        self.is_known = False

    def _lose_all(self) -> None:
        lost, self._blocks = self._blocks, set()
        self._take_out(lost)

    def _take_out(self, blocks: Iterable[bytes]) -> None:
        """Of blocks that counted, those that do not count for another reason."""
        held, coming = self._blocks, self._coming
        gone = [block for block in blocks if block not in held and block not in coming]
        self._index.discard(gone, self._bit)


def _first_blocks(chain: bytes, *, but: int) -> list[bytes]:
    most = min(len(chain), MOST_COMING * HASH_BYTES)
    return [chain[at : at + HASH_BYTES] for at in range(but * HASH_BYTES, most, HASH_BYTES)]
