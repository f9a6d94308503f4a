"""Which agents hold which prefix blocks: one table of a whole roster, so that a request's chain is
looked up once and not once for each agent.

A set of agents is an integer with a bit for each: most blocks have a single holder, and a `set` for
every block would take six times the memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from protocol.invariants import present
from protocol.prefix_chain import HASH_BYTES


class PrefixIndex:
    """Holds what its agents hold and nothing else; `CachedBlocks` bounds that for each of them."""

    def __init__(self) -> None:
        self._holders: dict[bytes, int] = {}
        self._names: list[str | None] = []
        """By the number of the agent's bit; None: it is free."""

    def __len__(self) -> int:
        return len(self._holders)

    def enter(self, name: str) -> int:
        """A newcomer's bit. Those of agents that left are given again, so the integers are no
        longer than the fleet was large."""
        if None not in self._names:
            self._names.append(None)
        number = self._names.index(None)
        self._names[number] = name
        return 1 << number

    def leave(self, agent: int) -> None:
        """Give a bit back. Its blocks must have been taken out."""
        self._names[agent.bit_length() - 1] = None

    def add(self, blocks: Iterable[bytes], agent: int) -> None:
        """The agent holds these blocks."""
        holders = self._holders
        for block in blocks:
            before = holders.setdefault(block, agent)
            if before is not agent:
                holders[block] = before | agent

    def discard(self, blocks: Iterable[bytes], agent: int) -> None:
        """The agent does not hold these blocks."""
        holders = self._holders
        for block in blocks:
            others = holders.get(block, 0) & ~agent
            if others:
                holders[block] = others
            else:
                holders.pop(block, None)

    def matched_blocks(self, chain: bytes) -> dict[str, int]:
        """How many of a packed chain's blocks, from its first on, each agent holds, by name; who
        holds none is left out.

        A bisection of all holders of the first block at once, as whoever holds a block holds those
        before it: a dozen look-ups for the longest chain, and as many again at most for each other
        number of blocks that is found. Where an agent lacks a block in between for a moment, the
        answer is one that it holds with one after it that it does not, or an end of the chain.
        """
        holders = self._holders
        matched: dict[str, int] = {}
        agents = holders.get(chain[:HASH_BYTES], 0)
        held, missing = 1, len(chain) // HASH_BYTES + 1
        others: list[tuple[int, int, int]] = []
        while agents:
            while missing - held > 1:
                middle = (held + missing) // 2
                block = chain[(middle - 1) * HASH_BYTES : middle * HASH_BYTES]
                holding = agents & holders.get(block, 0)
                if not holding:
                    missing = middle
                    continue
                if holding != agents:
                    others.append((agents ^ holding, held, middle))
                    agents = holding
                held = middle
            for name in self._names_of(agents):
                matched[name] = held
            agents, held, missing = others.pop() if others else (0, 0, 0)
        return matched

    def _names_of(self, agents: int) -> Iterator[str]:
        if not agents & (agents - 1):  # a single one, as mostly
            yield present(self._names[agents.bit_length() - 1])  # its blocks went when it did
            return
        digits = f"{agents:b}"[::-1]
        number = digits.find("1")
        while number >= 0:
            yield present(self._names[number])
            number = digits.find("1", number + 1)
