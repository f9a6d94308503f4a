"""Which prefix blocks the engine's cache holds, and what of that the balancer was not told yet.

The engine speaks of tokens: a holder (a sequence, an entry in host memory) has the first n of what
a call was given and generated. The balancer knows prefix chains. Here stands which token each block
ends at: exactly where an earlier call showed it, else in proportion to the text between two known
places. A block counts as long as one holder has all of it. Pure: no clock, no loop, no socket.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from agent.engine.frames import CacheNews
from protocol.chat import Message
from protocol.prefix_chain import MAX_BLOCKS, MAX_CACHED_BLOCKS, PrefixChain
from protocol.to_balancer import CacheChanged

MAX_HOLDERS = 4096
"""News of further holders are ignored."""
MAX_UNHELD_CALLS = 64
"""Ended calls that nobody holds, kept in case a holder of them is told of late."""
MAX_KNOWN_ENDS = 16_384
"""Blocks whose exact end is remembered, the latest."""


@dataclass(slots=True, eq=False)
class _Call:
    """A call's chain; block i ends with token `ends[i]` at the latest."""

    number: int
    chain: PrefixChain
    prompt_tokens: int
    ends: list[int]
    holders: set[int] = field(default_factory=set)
    is_over: bool = False


@dataclass(slots=True, eq=False)
class _Holding:
    """What a holder has of a call: tokens, and how many blocks of it are counted."""

    call: _Call
    tokens: int
    blocks: int = 0


class CachedPrefixes:
    """The one owner of what is known of the cache. `on_change` is told when there is news for the
    balancer; `take_changes` gives it. Reports at most `MAX_CACHED_BLOCKS` different blocks."""

    def __init__(self, on_change: Callable[[], None] = lambda: None) -> None:
        self._on_change = on_change
        self._calls: dict[int, _Call] = {}
        self._unheld: OrderedDict[int, None] = OrderedDict()
        self._holdings: dict[int, _Holding] = {}
        self._holders_of: dict[bytes, int] = {}
        self._known_ends: OrderedDict[bytes, int] = OrderedDict()
        self._gained: dict[bytes, None] = {}
        self._lost: dict[bytes, None] = {}
        self._starts_over = False
        self.cache_seq = 0
        """That of the last change taken."""

    # --- what the engine and the commands tell ---

    def begin(self, number: int, chain: PrefixChain, *, prompt_tokens: int) -> None:
        """The engine took a call: its prompt has exactly so many tokens."""
        ends = self._ends_of(chain, prompt_tokens)
        self._calls[number] = _Call(number, chain, prompt_tokens, ends)
        self._learn_end(chain, prompt_tokens)

    def end(self, number: int, answer: Message | None, *, completion_tokens: int) -> None:
        """A call is over; with an answer, what its holders have beyond the prompt is told too.

        The last token of an answer is sampled, and never computed: its cells end before it.
        """
        call = self._calls.get(number)
        if call is None:
            return
        call.is_over = True
        if answer is not None:
            self._append_answer(call, answer, max(completion_tokens - 1, 0))
        for holder in tuple(call.holders):
            self._count(self._holdings[holder])
        self._keep_or_forget(call)
        self._tell()

    def take(self, news: CacheNews) -> None:
        """A holder has other tokens now, or none."""
        call = self._calls.get(news.call) if news.tokens > 0 else None
        holding = self._holdings.get(news.holder)
        if holding is not None and holding.call is not call:
            self._release(news.holder, holding)
            holding = None
        if call is not None:
            if holding is None:
                if len(self._holdings) >= MAX_HOLDERS:
                    return
                holding = self._holdings[news.holder] = _Holding(call, 0)
                call.holders.add(news.holder)
                self._unheld.pop(call.number, None)
            holding.tokens = news.tokens
            self._count(holding)
        self._tell()

    def forget_all(self) -> None:
        """The engine is gone, and all it cached."""
        self._calls.clear()
        self._unheld.clear()
        self._holdings.clear()
        self._known_ends.clear()
        if self._holders_of or self._lost:
            self._holders_of.clear()
            self.start_over()

    # --- what the balancer is told ---

    def start_over(self) -> None:
        """Have the next changes tell everything, whatever was told before."""
        self._gained.clear()
        self._lost.clear()
        self._starts_over = True
        self._tell()

    def take_changes(self) -> list[CacheChanged]:
        """What became different since the last time, in messages of at most `MAX_BLOCKS` gained
        and lost each; nothing if nothing did."""
        if not self._has_changes:
            return []
        gained = list(self._holders_of if self._starts_over else self._gained)
        lost = [] if self._starts_over else list(self._lost)
        messages = []
        for start in range(0, max(len(gained), len(lost), 1), MAX_BLOCKS):
            self.cache_seq += 1
            messages.append(
                CacheChanged(
                    cache_seq=self.cache_seq,
                    gained=b"".join(gained[start : start + MAX_BLOCKS]),
                    lost=b"".join(lost[start : start + MAX_BLOCKS]),
                    starts_over=self._starts_over and start == 0,
                )
            )
        self._gained.clear()
        self._lost.clear()
        self._starts_over = False
        return messages

    # --- calls ---

    def _append_answer(self, call: _Call, answer: Message, answer_tokens: int) -> None:
        chain = call.chain
        begin = (chain.size_bytes, call.prompt_tokens)
        told = len(chain.ends)
        chain.append_answer(answer)
        end = (chain.size_bytes, call.prompt_tokens + answer_tokens)
        call.ends += _between(chain.ends[told:], begin, end)
        self._learn_end(chain, end[1])

    def _keep_or_forget(self, call: _Call) -> None:
        """What is over and held by nobody is soon forgotten."""
        if call.holders or not call.is_over:
            return
        self._unheld[call.number] = None
        if len(self._unheld) > MAX_UNHELD_CALLS:
            forgotten, _ = self._unheld.popitem(last=False)
            del self._calls[forgotten]

    # --- tokens ---

    def _ends_of(self, chain: PrefixChain, prompt_tokens: int) -> list[int]:
        """The token that each block ends at: known ones, and others in proportion between them."""
        ends: list[int] = []
        last = (0, 0)
        for index, block in enumerate(chain.blocks):
            tokens = self._known_ends.get(block)
            if tokens is not None and last[1] <= tokens <= prompt_tokens:
                known = (chain.ends[index], tokens)
                ends += _between(chain.ends[len(ends) : index + 1], last, known)
                last = known
        return ends + _between(chain.ends[len(ends) :], last, (chain.size_bytes, prompt_tokens))

    def _learn_end(self, chain: PrefixChain, tokens: int) -> None:
        """The chain's last block ends here, or a little before: a prompt ends with the head of the
        answer. So of several ends the first is right."""
        if not chain.ends or chain.ends[-1] != chain.size_bytes:
            return
        block = chain.blocks[-1]
        self._known_ends[block] = min(tokens, self._known_ends.pop(block, tokens))
        if len(self._known_ends) > MAX_KNOWN_ENDS:
            self._known_ends.popitem(last=False)

    # --- blocks ---

    def _release(self, holder: int, holding: _Holding) -> None:
        del self._holdings[holder]
        holding.call.holders.remove(holder)
        self._lose(holding.call.chain.blocks[: holding.blocks])
        self._keep_or_forget(holding.call)

    def _count(self, holding: _Holding) -> None:
        """Count the blocks that the holder has all of, no more and no less."""
        blocks = holding.call.chain.blocks
        before, now = holding.blocks, bisect_right(holding.call.ends, holding.tokens)
        if now < before:
            self._lose(blocks[now:before])
        holding.blocks = min(now, before) + self._gain(blocks[before:now])

    def _gain(self, blocks: Iterable[bytes]) -> int:
        """Count one holder more; returns of how many, before there was no room."""
        counted = 0
        for block in blocks:
            holders = self._holders_of.get(block, 0)
            if holders == 0:
                if len(self._holders_of) >= MAX_CACHED_BLOCKS:
                    break
                if block in self._lost:
                    del self._lost[block]
                else:
                    self._gained[block] = None
            self._holders_of[block] = holders + 1
            counted += 1
        return counted

    def _lose(self, blocks: Sequence[bytes]) -> None:
        """Count one holder less; the last blocks go first, so that what is held has no holes."""
        for block in reversed(blocks):
            holders = self._holders_of[block] - 1
            if holders:
                self._holders_of[block] = holders
                continue
            del self._holders_of[block]
            if block in self._gained:
                del self._gained[block]
            else:
                self._lost[block] = None

    @property
    def _has_changes(self) -> bool:
        return bool(self._gained or self._lost or self._starts_over)

    def _tell(self) -> None:
        if self._has_changes:
            self._on_change()


def _between(ends: Sequence[int], low: tuple[int, int], high: tuple[int, int]) -> list[int]:
    """The tokens at these ends in the text, from two places (bytes, tokens) around them."""
    size, tokens = high[0] - low[0], high[1] - low[1]
    return [low[1] + -(-(end - low[0]) * tokens // size) for end in ends]
