"""A vocabulary without a model: the bytes, some longer pieces, control and end tokens."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PIECES = (
    *("{", "}", '{"', '":', ' "', '", "', '"}', "na", "name", "true", "false", "null", "12", "123"),
    *("the", " the", " cat", "ab", "abc", "\n", "\n\n", "  ", "é", "</", "<think>", "</think>"),
    *("hink>", "ink>{", "<tool_call>", "call>{", "aa", "aaaa", "xy", ")", "((", "]]", "[1,", "é€"),
)
CONTROL = ("<|start|>", "<|mark|>", "<|end|>", "<|stop|>")


class Words:
    """`agent.engine.sampling.grammar.Tokens` over these pieces; a text is cut greedily."""

    def __init__(self, extra: tuple[str, ...] = (), control: tuple[str, ...] = ()) -> None:
        names = [*CONTROL[:2], *(name for name in control if name not in CONTROL), *CONTROL[2:]]
        texts = [bytes([byte]) for byte in range(256)]
        texts += [piece.encode() for piece in (*PIECES, *extra) if len(piece.encode()) > 1]
        self.shown_pieces = texts + [name.encode() for name in names]
        self.pieces = texts + [b""] * len(names)
        self.size = len(self.pieces)
        self.end_tokens: tuple[int, ...] = (self.size - 2, self.size - 1)
        self._ids = {piece: token for token, piece in enumerate(self.shown_pieces)}
        self._longest = max(map(len, self._ids))

    def id_of(self, text: str) -> int:
        """The token with this very text."""
        return self._ids[text.encode()]

    def text_of(self, tokens: list[int]) -> bytes:
        """What these tokens add to a text."""
        return b"".join(self.pieces[token] for token in tokens)

    def tokenize(self, text: str) -> NDArray[np.int32]:
        """Longest pieces first, control tokens in the text included."""
        data, ids = text.encode(), []
        while data:
            sizes = range(min(self._longest, len(data)), 0, -1)
            size = next(size for size in sizes if data[:size] in self._ids)
            ids.append(self._ids[data[:size]])
            data = data[size:]
        return np.array(ids, dtype=np.int32)
