"""Which token prefixes live where: a radix tree over what each holder has cached. Pure.

A holder is a number that stands for a sequence of the KV cache or an entry of the host's tier;
its content is a row of token ids under a scope. Equal tokens in another scope share nothing.

Each scope has a root; an edge is the run of tokens down to a node, and a node knows every holder
whose content runs through it. A node is there only where contents part or where one ends:

    root ── 1 2 3 ──● {a, b, c}         a = 1 2 3
                    ├── 4 5 ──● {b}     b = 1 2 3 4 5
                    └── 7 ────● {c}     c = 1 2 3 7

So n holders of a scope have at most 2n nodes, and what one shares with nobody is a single edge.
Costs: m tokens given, e on the longest edge, n holders, d nodes deep (d <= n). Runs of tokens
are compared and copied as a whole, never one by one.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int32]


@dataclass(slots=True, eq=False)
class Node:
    """The lower end of an edge, `depth` tokens from its root. `holders` end here or below."""

    depth: int = 0
    # array, not ndarray: generation appends to it, in amortised O(1)
    edge: array[int] = field(default_factory=lambda: array("i"))
    holders: set[int] = field(default_factory=set)
    children: dict[int, Node] = field(default_factory=dict)
    parent: Node = field(init=False, repr=False)  # a root, which is at depth 0, has none

    def attach_to(self, parent: Node) -> None:
        """Hang below a node, known there by the edge's first token."""
        self.parent = parent
        parent.children[self.edge[0]] = self


class PrefixTree:
    """What every holder has. An unknown holder is a KeyError; grows with what is put in only."""

    def __init__(self) -> None:
        self._roots: dict[str, Node] = {}
        self._scopes: dict[int, str] = {}
        self._ends: dict[int, Node] = {}
        self.size = 0  # tokens on all edges: what is shared counts once

    @property
    def nodes(self) -> int:
        """Nodes of all scopes, the roots too. O(n)."""
        found = list(self._roots.values())
        for node in found:  # grows while it is walked
            found.extend(node.children.values())
        return len(found)

    def __contains__(self, holder: int) -> bool:
        return holder in self._ends

    def __iter__(self) -> Iterator[int]:
        return iter(self._ends)

    def length(self, holder: int) -> int:
        """How many tokens a holder has. O(1)."""
        return self._ends[holder].depth

    def scope(self, holder: int) -> str:
        """The scope that a holder was put under. O(1)."""
        return self._scopes[holder]

    def tokens(self, holder: int) -> Ints:
        """A holder's content, copied: int32 [length]."""
        node = self._ends[holder]
        content = np.empty(node.depth, np.int32)
        while node.depth:
            content[node.parent.depth : node.depth] = node.edge
            node = node.parent
        return content

    def unique(self, holder: int) -> int:
        """How many tokens at a holder's end no other holder shares. O(1)."""
        node = self._ends[holder]
        return len(node.edge) if len(node.holders) == 1 else 0

    def matches(self, scope: str, tokens: Ints) -> dict[int, int]:
        """Each holder that begins as `tokens` does, and for how many tokens (> 0). O(m + n d)."""
        found: dict[int, int] = {}
        node = self._roots.get(scope, Node())
        matched = 0
        while node.depth == matched < len(tokens):
            below = node.children.get(int(tokens[matched]))
            if below is None:
                break
            if matched:
                found.update(dict.fromkeys(node.holders - below.holders, matched))
            node = below
            matched += _common(node.edge, tokens[matched:])
        if matched:
            found.update(dict.fromkeys(node.holders, matched))
        return found

    def put(self, holder: int, scope: str, tokens: Ints) -> None:
        """Add a holder with none or more tokens. ValueError: it is here already. O(m + e + n d)."""
        if holder in self._ends:
            raise ValueError(f"holder {holder} is in the tree already: remove it first")
        root = self._roots.setdefault(scope, Node())
        root.holders.add(holder)
        self._scopes[holder] = scope
        self._ends[holder] = root
        self.extend(holder, tokens)

    def extend(self, holder: int, tokens: Ints) -> None:
        """Append to a holder's content. O(m) where nobody shares its end, else as `put`."""
        tokens = np.asarray(tokens, np.int32)
        end = self._ends[holder]
        if end.depth and len(end.holders) == 1:
            end.edge.frombytes(tokens.tobytes())
            end.depth += len(tokens)
            self.size += len(tokens)
            return
        node = end
        while len(tokens):
            node = self._step(holder, node, tokens)
            tokens = tokens[len(node.edge) :]
        self._ends[holder] = node
        _join(end)

    def trim(self, holder: int, length: int) -> None:
        """Keep at most the first `length` tokens; with none the holder stays. O(e + n + d)."""
        if length < 0:
            raise ValueError(f"holder {holder} cannot keep {length} tokens: give 0 or more")
        node = self._ends[holder]
        while node.depth > length:
            if node.parent.depth < length:
                _split(node, length)
            node.holders.remove(holder)
            if node.holders:
                _join(node)
            else:
                del node.parent.children[node.edge[0]]
                self.size -= len(node.edge)
            node = node.parent
        self._ends[holder] = node

    def remove(self, holder: int) -> None:
        """Take a holder out, and its scope if it was the last there. As `trim`."""
        self.trim(holder, 0)
        root = self._ends.pop(holder)
        root.holders.remove(holder)
        scope = self._scopes.pop(holder)
        if not root.holders:
            del self._roots[scope]

    def _step(self, holder: int, node: Node, tokens: Ints) -> Node:
        """Take a holder down to a child, split or made where needed, whose edge begins `tokens`."""
        child = node.children.get(int(tokens[0]))
        if child is None:
            child = Node(node.depth + len(tokens), array("i", tokens.tobytes()))
            child.attach_to(node)
            self.size += len(tokens)
        elif (common := _common(child.edge, tokens)) < len(child.edge):
            child = _split(child, node.depth + common)
        child.holders.add(holder)
        return child


def _common(edge: array[int], tokens: Ints) -> int:
    """How many tokens two runs, neither of them empty, have in common from the start."""
    most = min(len(edge), len(tokens))
    differs = np.frombuffer(edge, np.int32, most) != tokens[:most]
    first = int(differs.argmax())
    return first if differs[first] else most


def _split(node: Node, depth: int) -> Node:
    """Put a new node on the edge to `node`, which keeps the lower part."""
    upper = Node(depth, node.edge, set(node.holders))
    node.edge = upper.edge[depth - node.parent.depth :]
    del upper.edge[depth - node.parent.depth :]
    upper.attach_to(node.parent)
    node.attach_to(upper)
    return upper


def _join(node: Node) -> None:
    """Undo a split where nobody ends or parts any more; the node below takes both parts."""
    below = next(iter(node.children.values()), None)
    if node.depth and below is not None and len(below.holders) == len(node.holders):
        node.edge.extend(below.edge)
        below.edge = node.edge
        below.attach_to(node.parent)
