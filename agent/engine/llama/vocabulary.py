"""A model's tokens: their ids, their texts, and the way from text to ids."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from llama_cpp import llama_cpp as api

from agent.engine.llama.arrays import Ints
from agent.errors import ModelUnusable

MAX_PIECE_BYTES = 4096
SETS_KEPT = 4
"""Sets of control tokens that are shown: a model has one for calls with tools, one without."""


class Vocabulary:
    """The model's tokens."""

    def __init__(self, model: Any) -> None:
        self._vocab = api.llama_model_get_vocab(model)
        self.size: int = api.llama_vocab_n_tokens(self._vocab)
        if self.size <= 0:
            raise ModelUnusable("The model file has no vocabulary; it cannot generate text.")
        self.bos: int = api.llama_vocab_bos(self._vocab)
        self.eos: int = api.llama_vocab_eos(self._vocab)
        self.eot: int = api.llama_vocab_eot(self._vocab)
        self.sep: int = api.llama_vocab_sep(self._vocab)
        self.adds_bos: bool = api.llama_vocab_get_add_bos(self._vocab) and self.bos >= 0
        self.adds_eos: bool = api.llama_vocab_get_add_eos(self._vocab)
        self.adds_sep: bool = api.llama_vocab_get_add_sep(self._vocab) and self.sep >= 0
        self.infill_tokens: dict[str, int] = {
            "prefix": api.llama_vocab_fim_pre(self._vocab),
            "suffix": api.llama_vocab_fim_suf(self._vocab),
            "middle": api.llama_vocab_fim_mid(self._vocab),
        }
        """Around the texts of fill-in-the-middle; -1 for what the model lacks."""
        self.end_tokens = tuple(
            token for token in range(self.size) if api.llama_vocab_is_eog(self._vocab, token)
        )
        buffer = ctypes.create_string_buffer(MAX_PIECE_BYTES)
        self.pieces = [self._piece(token, buffer, special=False) for token in range(self.size)]
        """What a token adds to the text: control tokens nothing."""
        self.shown_pieces = [self._piece(token, buffer, special=True) for token in range(self.size)]
        """The same, with the text of control tokens."""
        self.longest_piece = max(map(len, self.shown_pieces))
        self._pieces_with: dict[tuple[str, ...], list[bytes]] = {}

    def pieces_with(self, specials: tuple[str, ...]) -> list[bytes]:
        """`pieces`, but control tokens of these texts add their text, too."""
        kept = self._pieces_with.get(specials)
        if kept is None:
            kept = self._pieces_with[specials] = self._shown(specials)
            if len(self._pieces_with) > SETS_KEPT:
                del self._pieces_with[next(iter(self._pieces_with))]
        return kept

    def _shown(self, specials: tuple[str, ...]) -> list[bytes]:
        shown = {special.encode() for special in specials}
        if not shown:
            return self.pieces
        return [
            text if not piece and text in shown else piece
            for piece, text in zip(self.pieces, self.shown_pieces, strict=True)
        ]

    def attributes(self, token: int) -> int:
        """llama.cpp's attribute bits of a token."""
        return int(api.llama_vocab_get_attr(self._vocab, token))

    def text(self, token: int) -> str:
        """A special token's text as templates expect it; "" if the model has no such token."""
        if not 0 <= token < self.size:
            return ""
        text: bytes | None = api.llama_vocab_get_text(self._vocab, token)
        return (text or b"").decode("utf-8", "replace")

    def tokenize(self, text: str, *, add_special: bool = False, parse_special: bool = True) -> Ints:
        """The ids of a text. Special tokens written in it are parsed, those that the model wants
        around a text added, as asked. May be called from another thread (llama.h says so).
        """
        data = text.encode("utf-8", "replace")
        ids = np.empty(len(data) + 8, dtype=np.int32)
        count = self._tokenize(data, ids, add_special, parse_special)
        if count < 0 and -count > len(ids):
            ids = np.empty(-count, dtype=np.int32)
            count = self._tokenize(data, ids, add_special, parse_special)
        if count < 0:
            raise ValueError(f"llama.cpp could not tokenise {len(data)} bytes")
        return ids[:count].copy()

    def _tokenize(self, data: bytes, ids: Ints, add_special: bool, parse_special: bool) -> int:
        """The count of ids, or what it would have been, negative."""
        pointer = ids.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        return int(
            api.llama_tokenize(
                self._vocab, data, len(data), pointer, len(ids), add_special, parse_special
            )
        )

    def _piece(self, token: int, buffer: Any, *, special: bool) -> bytes:
        size = api.llama_token_to_piece(self._vocab, token, buffer, MAX_PIECE_BYTES, 0, special)
        if size < 0:
            buffer = ctypes.create_string_buffer(-size)
            size = api.llama_token_to_piece(self._vocab, token, buffer, -size, 0, special)
        return bytes(buffer.raw[:size])
