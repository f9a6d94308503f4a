"""Where a new call's first tokens come from, and which cached ones give way to it. Pure.

A *holder* has cached tokens: a sequence of the KV cache, in use by a call or idle, or an entry in
host memory (numbers from `FIRST_ENTRY` on). A new call takes an idle sequence. It keeps what that
has in common with the call, or gets it from another holder: an idle sequence, a running one, an
entry in host memory, or a running one that is still computing it, for which it waits.

Which sequence is taken is a sum in tokens: what need not be prefilled, less what copying costs,
less what is lost with the sequence's old content, that is, the tokens that nobody else holds times
the chance that they are asked for again (from `benefit.Ledger`).

A memory of kind *whole* (recurrent models) cannot be cut: only holders whose whole content begins
the call are of use. There the cache learns: where a call parts from what another one had, its
prefill stops, and the state at that point is kept as an entry; so does that of another call whose
prefix it waits for, where the two part. Where layers see a sliding *window*
an entry has only that window at its end, so it is of use as a whole only, too; a sequence may have
lost what is before its window, so it is asked for the fewest tokens that it can be cut to.

An image among the tokens is kept as a whole or not at all (`media_ids`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from agent.engine.benefit import Idle, Ledger
from agent.engine.media_ids import before_media
from agent.engine.prefix_tree import PrefixTree
from protocol.invariants import present

Ints = NDArray[np.int32]
MemoryKind = Literal["ranged", "whole"]

FIRST_ENTRY = 1 << 20
WARM_SCOPE = "\0warm"
"""Of prompts that are kept warm: the operator's, and nothing that a request brought."""
LEAST_WAIT_TOKENS = 32
"""A prefix shorter than this is computed rather than waited for."""
LEAST_SAVED_TOKENS = 64
"""Less is not worth an entry in host memory."""
COPIED_TOKEN = 0.02
RESTORED_TOKEN = 0.05
"""What copying or restoring a token costs in tokens prefilled (measured 0.001 to 0.02)."""
COPY = 4.0
"""What any copy costs, in tokens prefilled."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a call goes. `cached` tokens are there at once: kept in place or, if `source` names
    a holder, copied from it. `wait_for` is a sequence to copy `wait_tokens` from once it has them.
    """

    sequence: int
    cached: int
    source: int | None = None
    wait_for: int | None = None
    wait_tokens: int = 0
    saves: bool = False
    """The old content is worth an entry in host memory."""
    stops: tuple[int, ...] = ()
    """Where the prefill has to stop for a state that is kept."""


@dataclass(frozen=True, slots=True)
class _Source:
    holder: int
    tokens: int
    gain: float


def _nothing(_: int) -> int:
    return 0


class PrefixCache:
    """Who holds what. The sequences are 0 to `sequences` - 1, all idle and empty at first.

    With a `window`, `fewest` says to how few tokens a sequence can be cut now. Where `shares_cells`
    a copy moves only what it is for, else all that the other one has.
    """

    def __init__(
        self,
        *,
        sequences: int,
        kind: MemoryKind = "ranged",
        window: int = 0,
        fewest: Callable[[int], int] = _nothing,
        shares_cells: bool = False,
        host_bytes: int = 0,
        sharing: bool,
    ) -> None:
        self.tree = PrefixTree()
        self.kind = kind
        self._window = window
        self._fewest = fewest
        self._shares_cells = shares_cells
        self._sharing = sharing
        self._host_bytes = host_bytes
        self._entries: dict[int, int] = {}
        self._next_entry = FIRST_ENTRY
        self._ready: dict[int, int] = {}
        self._idle = set(range(sequences))
        self._ledger = Ledger()
        self._tick = 0
        self._pinned: set[int] = set()
        for sequence in self._idle:
            self.tree.put(sequence, "", _NO_TOKENS)

    @property
    def idle(self) -> frozenset[int]:
        """The sequences that no call has."""
        return frozenset(self._idle)

    @property
    def is_running(self) -> bool:
        """Whether any call has a sequence."""
        return bool(self._ready)

    @property
    def running(self) -> Iterable[int]:
        """The sequences that calls have."""
        return self._ready.keys()

    @property
    def has_host(self) -> bool:
        """Whether states may be saved in host memory."""
        return self._host_bytes > 0

    @property
    def host_bytes_used(self) -> int:
        """Size of all entries in host memory."""
        return sum(self._entries.values())

    def place(
        self, scope: str, tokens: Ints, prefilling: frozenset[int], *, with_warm: bool = False
    ) -> Placement | None:
        """Where a call with these tokens best goes; None: no sequence is idle. Changes nothing.

        `with_warm`: it may begin with a prompt that is kept warm. `prefilling` are the running
        sequences that are being given tokens now. At least the last token is left to prefill: its
        output is the next one.
        """
        if not self._idle:
            return None
        matches = self._matches(scope, tokens[:-1], with_warm=with_warm) if self._sharing else {}
        best = self._best(matches)
        target, own = self._target(matches, best)
        in_place = own >= best.gain
        cached = before_media(tokens, own if in_place else best.tokens)
        wait_for, wait_tokens = self._worth_waiting_for(matches, prefilling, cached)
        return Placement(
            target,
            cached,
            source=None if in_place or cached == 0 else best.holder,
            wait_for=wait_for,
            wait_tokens=before_media(tokens, wait_tokens),
            saves=self._is_worth_saving(target, cached if in_place else 0),
            stops=self._stops(matches, cached, tokens),
        )

    def source_for(
        self, sequence: int, tokens: Ints, *, with_warm: bool = False
    ) -> tuple[int, int] | None:
        """Another holder with the most of a running sequence's tokens, and how many; None: none.

        At least the last token is left to prefill.
        """
        scope = self.tree.scope(sequence)
        matches = self._matches(scope, tokens[:-1], with_warm=with_warm)
        matches.pop(sequence, None)
        best = self._best(matches)
        cached = before_media(tokens, best.tokens)
        return (best.holder, cached) if min(cached, best.gain) > self._ready[sequence] else None

    def begin(self, placement: Placement, scope: str, tokens: Ints, ready: int) -> None:
        """A call is placed: its sequence holds `ready` of `tokens`, and will hold the others."""
        sequence = placement.sequence
        self._tick += 1
        # an entry that could not be restored is gone
        if placement.source is not None and placement.source in self.tree:
            self._ledger.touch(placement.source, self._tick)
        self._ledger.touch(sequence, self._tick)
        self.tree.remove(sequence)
        self.tree.put(sequence, scope, tokens)
        self._idle.discard(sequence)
        self._ready[sequence] = ready

    def progressed(self, sequence: int, ready: int) -> None:
        """A running sequence holds so many tokens now."""
        self._ready[sequence] = ready

    def all_progressed(self, sequences: Iterable[int]) -> None:
        """Running sequences hold one token more each."""
        for sequence in sequences:
            self._ready[sequence] += 1

    def length(self, holder: int) -> int:
        """How many tokens a holder has in the cache."""
        return self._ready.get(holder, self.tree.length(holder))

    def end(self, sequence: int, tokens: Ints) -> None:
        """A call is over; its sequence is idle and holds exactly these tokens."""
        self._ready.pop(sequence, None)
        self._idle.add(sequence)
        scope = self.tree.scope(sequence) if len(tokens) and self._sharing else ""
        self.tree.remove(sequence)
        self.tree.put(sequence, scope, tokens if self._sharing else _NO_TOKENS)

    def withdraw(self, sequence: int) -> None:
        """What a running sequence holds is nobody else's prefix any more."""
        scope = self.tree.scope(sequence)
        self.tree.remove(sequence)
        self.tree.put(sequence, scope, _NO_TOKENS)

    def drop(self, sequence: int) -> None:
        """An idle sequence holds nothing any more."""
        self._ledger.evicted(self._as_idle(sequence))
        self.end(sequence, _NO_TOKENS)

    def to_evict(self) -> int | None:
        """The idle sequence whose content is worth least by its cells; None: all are empty."""
        held = [one for one in self._idle if self.tree.length(one)]
        worst = self._ledger.first_to_go(self._as_idle(one) for one in held)
        return worst.holder if worst is not None else None

    def entry_of(self, sequence: int) -> int | None:
        """The entry in host memory that has most of an idle sequence's content; None: there is
        none that would spare a call most of it."""
        content = self.tree.tokens(sequence)
        matches = self.tree.matches(self.tree.scope(sequence), content)
        entries = {one: common for one, common in matches.items() if one in self._entries}
        best = self._best(entries)
        spares_most = best.tokens > max(len(content) - LEAST_SAVED_TOKENS, 0)
        return best.holder if spares_most else None

    def pin(self, entry: int) -> None:
        """Let an entry in host memory go only when nothing else can."""
        self._pinned.add(entry)

    def enter(
        self, scope: str, tokens: Ints, size_bytes: int, *, spare: int | None = None
    ) -> tuple[int | None, list[int]]:
        """A new entry for saved tokens, and the entries that give way; None: there is no room.

        The entry `spare` never gives way.
        """
        fixed = self._entries.get(spare, 0) if spare is not None else 0
        if fixed + size_bytes > self._host_bytes:
            return None, []
        gone: list[int] = []
        while self.host_bytes_used + size_bytes > self._host_bytes:
            others = (self._as_idle(one) for one in self._entries if one != spare)
            worst = present(self._ledger.first_to_go(others))
            self._ledger.evicted(worst)
            self._leave(worst.holder)
            gone.append(worst.holder)
        entry, self._next_entry = self._next_entry, self._next_entry + 1
        self._entries[entry] = size_bytes
        self.tree.put(entry, scope, tokens)
        self._ledger.touch(entry, self._tick)
        return entry, gone

    def discard(self, entry: int) -> None:
        """An entry in host memory is of no use."""
        self._ledger.forget(entry)
        self._leave(entry)

    def _matches(self, scope: str, tokens: Ints, *, with_warm: bool) -> dict[int, int]:
        found = self.tree.matches(scope, tokens)
        return found | self.tree.matches(WARM_SCOPE, tokens) if with_warm else found

    def _leave(self, entry: int) -> None:
        del self._entries[entry]
        self._pinned.discard(entry)
        self.tree.remove(entry)

    def _best(self, matches: dict[int, int]) -> _Source:
        """The holder that saves most."""
        sources = (self._source(holder, common) for holder, common in matches.items())
        return max(sources, key=lambda source: (source.gain, -source.holder), default=_NOTHING)

    def _source(self, holder: int, common: int) -> _Source:
        """What a holder offers now."""
        tokens = min(common, self._ready.get(holder, common))
        if not self._gives(holder, tokens):
            return _NOTHING
        is_entry = holder >= FIRST_ENTRY
        moved = tokens if self._shares_cells and not is_entry else self.length(holder)
        each = RESTORED_TOKEN if is_entry else COPIED_TOKEN
        return _Source(holder, tokens, tokens - each * moved - COPY)

    def _target(self, matches: dict[int, int], best: _Source) -> tuple[int, int]:
        """The sequence to take, and how many tokens of its own it can keep."""

        def net(sequence: int) -> float:
            own = self._own(sequence, matches)
            if own >= best.gain:
                return own - self._loss(sequence, own)
            return best.gain - self._loss(sequence, 0)

        target = max(self._idle, key=lambda sequence: (net(sequence), -sequence))
        return target, self._own(target, matches)

    def _own(self, sequence: int, matches: dict[int, int]) -> int:
        """How many tokens an idle sequence could keep for a call."""
        common = matches.get(sequence, 0)
        return common if self._gives(sequence, common) else 0

    def _gives(self, holder: int, tokens: int) -> bool:
        """Whether a holder's first tokens can be had."""
        length = self.length(holder)
        if tokens == length:
            return True
        if self.kind == "whole":
            return False
        if holder >= FIRST_ENTRY:
            return not self._window or length <= self._window
        return not self._window or tokens >= self._fewest(holder)

    def _loss(self, sequence: int, kept: int) -> float:
        """What is lost with a sequence's content but for the first tokens, in tokens prefilled."""
        lost = min(self.tree.unique(sequence), self.tree.length(sequence) - kept)
        if not lost:
            return 0.0
        again = lost * self._chance(sequence)
        return again * RESTORED_TOKEN if self._host_bytes and lost >= LEAST_SAVED_TOKENS else again

    def _chance(self, holder: int) -> float:
        """How likely what a holder has is asked for again: half when new, less as others go."""
        return min(max(self._ledger.freshness(holder) / 2, 0.05), 1.0)

    def _as_idle(self, holder: int) -> Idle:
        """For the ledger. Its measure is the same for both tiers: the share that nobody else has
        of the room that is won (a sequence's own cells; all bytes of an entry)."""
        unique = self.tree.unique(holder)
        size = self._entries.get(holder, unique)
        cost = unique if holder < FIRST_ENTRY else unique * size / max(self.tree.length(holder), 1)
        return Idle(holder=holder, cells=size, recompute_cost=cost, pinned=holder in self._pinned)

    def _is_worth_saving(self, sequence: int, kept: int) -> bool:
        lost = min(self.tree.unique(sequence), self.tree.length(sequence) - kept)
        return self._host_bytes > 0 and lost >= LEAST_SAVED_TOKENS

    def _worth_waiting_for(
        self, matches: dict[int, int], prefilling: frozenset[int], cached: int
    ) -> tuple[int | None, int]:
        whole = self.kind == "whole"
        if whole and not self._host_bytes:
            return None, 0
        coming = [
            (matches[one], -one)
            for one in prefilling
            if one in matches and not (whole and self._ready[one] > matches[one])
        ]
        tokens, negative = max(coming, default=(0, 0))
        return (-negative, tokens) if tokens - cached >= LEAST_WAIT_TOKENS else (None, 0)

    def _stops(self, matches: dict[int, int], cached: int, tokens: Ints) -> tuple[int, ...]:
        """Where the call parts from what others had, and, if that is worth it, before its last
        token."""
        if self.kind != "whole" or not self._host_bytes:
            return ()
        parting = max(matches.values(), default=0)
        partings = (parting,) if parting - cached >= LEAST_WAIT_TOKENS else ()
        end = (len(tokens) - 1,) if len(tokens) > LEAST_SAVED_TOKENS else ()
        return tuple(before_media(tokens, stop) for stop in (*partings, *end))


_NO_TOKENS: Ints = np.empty(0, dtype=np.int32)
_NOTHING = _Source(-1, 0, 0.0)
