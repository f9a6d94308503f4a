"""Token ids to text, one call at a time, never half a character. Pure.

Pieces are bytes; a character may be spread over several tokens. Control tokens have empty pieces
(but for those that a call shall show),
user-defined ones their text. Bytes that are not UTF-8 become U+FFFD, as in Python's decoder.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence

_new_decoder = codecs.getincrementaldecoder("utf-8")


class Detokenizer:
    """The text of one call. `pieces` is the model's table, shared by all calls."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = pieces
        self._decoder = _new_decoder("replace")
        self._is_between = True
        """Between two characters, not within one."""

    def feed(self, token_id: int) -> str:
        """The characters that this token completes, maybe none."""
        piece = self._pieces[token_id]
        if self._is_between:  # the decoder is a Python function, this is none
            try:
                return piece.decode()
            except UnicodeDecodeError:
                pass
        text = self._decoder.decode(piece)
        self._is_between = not self._decoder.getstate()[0]
        return text

    def flush(self) -> str:
        """The end: a character that stayed incomplete becomes U+FFFD."""
        self._is_between = True
        return self._decoder.decode(b"", final=True)
