"""The log probabilities of a prompt's own tokens, gathered while it is decoded."""

from __future__ import annotations

from collections.abc import Sequence

from agent.engine.llama.arrays import Ints, Rows
from agent.engine.sampling.logprobs import logprobs_of
from protocol.generation import MAX_PROMPT_LOGPROBS, TokenLogprob

MOST_ROW_FLOATS = 4 * 1024 * 1024
"""Of the rows that one chunk of a scored prompt may have: 16 MiB, and some 10 ms to look at."""


def rows_at_once(vocabulary_size: int, most_outputs: int) -> int:
    """How many tokens of a scored prompt go into a batch; each of them has a row."""
    return max(min(MOST_ROW_FLOATS // vocabulary_size, most_outputs), 1)


def problem_with_scoring(prompt_tokens: int, top_logprobs: int) -> str:
    """Why a prompt is too long to be scored; "" if it is not."""
    count = prompt_tokens * (top_logprobs + 1)
    if count <= MAX_PROMPT_LOGPROBS:
        return ""
    return (
        f"`prompt` has {prompt_tokens} tokens, and with their log probabilities at most "
        f"{MAX_PROMPT_LOGPROBS // (top_logprobs + 1)} are scored: shorten it, or ask for fewer "
        "candidates"
    )


class PromptScores:
    """Those of one call. `rows` is how many tokens of it may go into a batch."""

    def __init__(
        self, prompt: Ints, *, top_logprobs: int, pieces: Sequence[bytes], rows: int
    ) -> None:
        self.rows = rows
        self._prompt: list[int] = prompt.tolist()
        self._top_logprobs = top_logprobs
        self._pieces = pieces
        first = self._prompt[0]
        # nothing stands before the first token that could tell how likely it is
        self._entries = [TokenLogprob(first, pieces[first].decode("latin-1"), 0.0)]

    @property
    def is_complete(self) -> bool:
        """Whether every token has its own."""
        return len(self._entries) == len(self._prompt)

    def take(self, rows: Rows, start: int) -> None:
        """The rows of the tokens from `start` on. After a call gave way some come a second time."""
        for at, row in enumerate(rows, start + 1):
            if at == len(self._entries) < len(self._prompt):
                token = self._prompt[at]
                self._entries.append(logprobs_of(row, token, self._top_logprobs, self._pieces))

    def told(self) -> tuple[TokenLogprob, ...]:
        """All of them, in the prompt's order."""
        return tuple(self._entries)
