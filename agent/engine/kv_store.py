"""The KV cache's sequences and the host memory behind them: the one owner of what they hold.

Decisions are made by prefix_cache.py; here they are carried out with llama.cpp, checked against
its own view, and told as `CacheNews`. In a unified cache cells are counted, too: what a call needs
is made free by dropping idle sequences, worst first.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agent.engine.cells import Cells
from agent.engine.frames import CacheNews
from agent.engine.llama.arrays import Ints
from agent.engine.llama.context import Context
from agent.engine.llama.memory import State
from agent.engine.prefix_cache import FIRST_ENTRY, LEAST_SAVED_TOKENS, Placement, PrefixCache
from agent.engine.stderr_lines import say
from protocol.invariants import present

_NEW_SHARE = 0.25
NO_SEQUENCE = -1
NO_TOKENS: Ints = np.empty(0, dtype=np.int32)
NO_STATE: State = np.empty(0, dtype=np.uint8)


@dataclass(frozen=True, slots=True)
class Claim:
    """A call's sequence, of whose tokens `cached` are there; more come from `wait_for`, if set."""

    sequence: int
    cached: int
    wait_for: int | None
    wait_tokens: int
    stops: tuple[int, ...]
    donor_stops: tuple[int, ...]
    """Where the prefill of `wait_for` has to stop, too."""


class KvStore:
    """`host_bytes` bounds the states saved in host memory; without `sharing` nothing is kept."""

    def __init__(self, context: Context, *, host_bytes: int, sharing: bool) -> None:
        self._memory = context.memory
        self.cache = PrefixCache(
            sequences=context.memory.sequences,
            kind=context.memory.kind,
            window=context.memory.window,
            fewest=context.memory.fewest,
            shares_cells=context.memory.unified,
            host_bytes=host_bytes if sharing else 0,
            sharing=sharing,
        )
        self._sharing = sharing
        self.context_tokens = context.context_tokens
        self.cells = Cells(context.kv_cells) if context.memory.unified else None
        self._states: dict[int, State] = {}
        self._built_by: dict[int, int] = {}
        self._news: list[CacheNews] = []
        self._prefill_ms: float | None = None
        """What prefilling a token takes; None: not known yet."""
        self._moved_ms: float | None = None
        """What saving and restoring a token takes together."""

    @property
    def is_unified(self) -> bool:
        """Whether calls share the cells, so that they can run out."""
        return self.cells is not None

    @property
    def host_bytes_used(self) -> int:
        """Bytes of saved states."""
        return self.cache.host_bytes_used

    def claim(
        self,
        scope: str,
        tokens: Ints,
        *,
        prefilling: frozenset[int],
        expected: int,
        with_warm: bool = False,
    ) -> Claim | None:
        """A sequence for a call with these tokens that will generate about `expected` more.
        `with_warm`: it may begin with a prompt that is kept warm.

        None: all are in use, or the cells that would be needed are.
        """
        placement = self.cache.place(scope, tokens, prefilling, with_warm=with_warm)
        if placement is None:
            return None
        is_alone = not self.cache.is_running
        cached = self._fill(placement)
        self.cache.begin(placement, scope, tokens, cached)
        if not (self.make_room(len(tokens) - cached + expected) or is_alone):
            self.cache.end(placement.sequence, tokens[:cached])
            return None
        return Claim(
            placement.sequence,
            cached,
            placement.wait_for,
            placement.wait_tokens,
            placement.stops,
            (placement.wait_tokens,) if self.cache.kind == "whole" else (),
        )

    def settle(self, sequence: int, tokens: Ints, cached: int, *, with_warm: bool = False) -> int:
        """After a wait: a running sequence with `cached` tokens gets what another has by now.

        Returns how many it has then: more, or none if llama.cpp could not copy them.
        """
        found = self.cache.source_for(sequence, tokens, with_warm=with_warm)
        if found is None:
            return cached
        got = self._copied(*found, sequence)
        self.cache.progressed(sequence, got)
        return got

    def grew(self, sequence: int, cached: int) -> None:
        """A running sequence holds so many tokens now."""
        if self.cells is not None:
            self.cells.grow(sequence, cached - self.cells.length(sequence))
        self.cache.progressed(sequence, cached)

    def all_grew(self, sequences: Sequence[int]) -> None:
        """Running sequences hold one token more each."""
        if self.cells is not None:
            for sequence in sequences:
                self.cells.grow(sequence, 1)
        self.cache.all_progressed(sequences)

    def cut(self, sequence: int, cached: int) -> bool:
        """A running sequence holds `cached` tokens, and some that must go; False: they cannot.

        They were drafted in vain, or a decode failed halfway; neither kind was ever counted.
        """
        self.grew(sequence, cached)
        return self._memory.forget(sequence, cached)

    def shift(self, sequence: int, start: int, count: int, cached: int) -> None:
        """A running sequence drops `count` tokens from `start` on, has `cached` left, and is
        offered to nobody from now on. Only where `Memory.can_shift`."""
        self._memory.shift(sequence, start, count)
        self.cache.progressed(sequence, cached)
        self.cache.withdraw(sequence)
        self._tell(sequence, 0)

    def prefilled(self, call: int, sequence: int, tokens: int) -> None:
        """A running call's prompt is in the cache: others can be routed to it."""
        if self._sharing:
            self._built_by[sequence] = call
            self._tell(sequence, tokens)

    def release(self, call: int, sequence: int, tokens: Ints) -> None:
        """A call is over. What it had in the cache, `tokens`, stays until its cells are needed."""
        self._built_by[sequence] = call
        kept = tokens if self._sharing else NO_TOKENS
        if len(kept) and not (
            self._memory.forget(sequence, len(kept)) and self._memory.holds(sequence, len(kept))
        ):
            kept = NO_TOKENS
        if not len(kept):
            self._memory.forget(sequence)
        if self.cells is not None:
            self.cells.trim(sequence, len(kept))
        self.cache.end(sequence, kept)
        self._tell(sequence, len(kept))

    def suspend(self, call: int, sequence: int, tokens: Ints) -> None:
        """A running call gives its cells away; its state goes to host memory if that pays."""
        self.release(call, sequence, tokens)
        self._save(sequence)
        self._drop(sequence)

    def checkpoint(self, sequence: int, tokens: Ints) -> None:
        """Keep the state that a running sequence has now, with exactly these tokens."""
        self._enter(self.cache.tree.scope(sequence), tokens, self._memory.save(sequence), sequence)

    def keep_warm(self, sequence: int) -> None:
        """Keep what an idle sequence has, in host memory if that is possible, beyond its turn."""
        self._save(sequence)
        entry = self.cache.entry_of(sequence)
        if entry is not None:
            self.cache.pin(entry)

    def state_bytes(self, sequence: int) -> int:
        """How big the state of a running sequence is."""
        return self._memory.state_bytes(sequence)

    def state_of(self, sequence: int) -> State:
        """The state of a running sequence, to be restored in another cache of the same kind.

        Empty: there is none now, or it was shifted and is not what its tokens would give.
        """
        return self._memory.save(sequence) if self.cache.tree.length(sequence) else NO_STATE

    def adopt(self, scope: str, tokens: Ints, state: State) -> bool:
        """Keep a state that comes from elsewhere as an entry; False: there is no room.

        One that is there already is kept as it is.
        """
        if not self._has_entry(scope, tokens):
            self._enter(scope, tokens, state, NO_SEQUENCE)
        return self._has_entry(scope, tokens)

    def make_room(self, cells: int, *, spare: int | None = None) -> bool:
        """Have so many cells free, at the cost of idle sequences; False: the running have them.

        What is dropped may go to host memory, but not at the cost of the entry `spare`.
        """
        if self.cells is None or self.cells.free >= cells:
            return True
        if self.cells.capacity - self.cells.held_by(self.cache.running) < cells:
            return False
        while self.cells.free < cells:
            victim = present(self.cache.to_evict())
            self._save(victim, spare=spare)
            self._drop(victim)
        return True

    def measured_prefill(self, tokens: int, took_ms: float) -> None:
        """Learn what a prompt's token costs."""
        self._prefill_ms = _mixed(self._prefill_ms, took_ms / tokens)

    def take_news(self) -> tuple[CacheNews, ...]:
        """What was gained and lost since the last time."""
        if not self._news:
            return ()
        news, self._news = self._news, []
        return tuple(news)

    def _has_entry(self, scope: str, tokens: Ints) -> bool:
        """Whether a saved state has exactly these tokens."""
        tree = self.cache.tree
        return any(
            holder in self._states and common == len(tokens) == tree.length(holder)
            for holder, common in tree.matches(scope, tokens).items()
        )

    def _fill(self, placement: Placement) -> int:
        """Carry out a placement; how many tokens the sequence holds then."""
        target, source, cached = placement.sequence, placement.source, placement.cached
        if placement.saves:
            self._save(target, spare=source)
        if source is not None:
            self._drop(target)
            return self._copied(source, cached, target)
        kept = cached if self._memory.forget(target, cached) else 0
        if not self._memory.holds(target, kept):
            kept = 0
        if not kept:
            self._drop(target)
        elif self.cells is not None:
            self.cells.trim(target, kept)
        self._tell(target, kept)
        return kept

    def _copied(self, source: int, tokens: int, target: int) -> int:
        """Give a sequence another holder's first tokens for its own; how many it has then."""
        self._memory.forget(target)
        if self.cells is not None:
            self.cells.trim(target, 0)
        if source >= FIRST_ENTRY:
            copied = self._restored(source, target, tokens)
        elif self._memory.copy(source, target, tokens):
            copied = tokens
            if self.cells is not None:
                self.cells.share(source, target, tokens)
        else:
            copied = 0
        if not copied:
            self._memory.forget(target)
        self._built_by[target] = self._built_by.get(source, 0)
        self._tell(target, copied)
        return copied

    def _restored(self, entry: int, target: int, cached: int) -> int:
        """How many tokens of an entry in host memory the sequence holds now."""
        whole = self.cache.length(entry)
        # all of it goes in before it is cut
        if not self.make_room(whole, spare=entry):
            return 0
        started = time.perf_counter()
        if not self._memory.restore(target, self._states[entry], cached):
            if not self._memory.is_pending(target):
                say(f"a saved state of {whole} tokens cannot be restored, and is given up")
                self.cache.discard(entry)
                self._forget_entry(entry)
            return 0
        # saving took about as long
        took_ms = 2000 * (time.perf_counter() - started)
        self._moved_ms = _mixed(self._moved_ms, took_ms / whole)
        if self.cells is not None:
            self.cells.grow(target, cached)
        return cached

    def _save(self, sequence: int, *, spare: int | None = None) -> None:
        """Keep an idle sequence's state in host memory if that is cheaper than prefilling; at the
        cost of other entries, but not of `spare`."""
        tree = self.cache.tree
        if tree.unique(sequence) < LEAST_SAVED_TOKENS or not self.cache.has_host or not self._pays:
            return
        state = self._memory.save(sequence)
        self._enter(tree.scope(sequence), tree.tokens(sequence), state, sequence, spare=spare)

    def _enter(
        self, scope: str, tokens: Ints, state: State, sequence: int, *, spare: int | None = None
    ) -> None:
        if not len(state):
            return
        entry, gone = self.cache.enter(scope, tokens, len(state), spare=spare)
        for old in gone:
            self._forget_entry(old)
        if entry is not None:
            self._states[entry] = state
            self._built_by[entry] = self._built_by.get(sequence, 0)
            self._tell(entry, len(tokens))

    def _forget_entry(self, entry: int) -> None:
        del self._states[entry]
        self._tell(entry, 0)

    @property
    def _pays(self) -> bool:
        if self._prefill_ms is None or self._moved_ms is None:
            return True
        return self._moved_ms < self._prefill_ms

    def _drop(self, sequence: int) -> None:
        """An idle sequence gives its cells away."""
        self._memory.forget(sequence)
        if self.cells is not None:
            self.cells.trim(sequence, 0)
        self.cache.drop(sequence)
        self._tell(sequence, 0)

    def _tell(self, holder: int, tokens: int) -> None:
        call = self._built_by.get(holder, 0)
        if not tokens and self._built_by.pop(holder, None) is None:
            return
        self._news.append(CacheNews(holder, call, tokens))


def _mixed(old: float | None, new: float) -> float:
    return new if old is None else old + _NEW_SHARE * (new - old)
