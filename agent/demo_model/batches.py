"""Training batches: random conversations, tokenised by llama.cpp, answers weighted for the loss."""

from dataclasses import dataclass
from random import Random

import numpy as np

from agent.demo_model import conversations
from agent.demo_model.example import Turn
from agent.demo_model.tokenizer import LlamaTokenizer

END_WEIGHT = 4.0
TOKENS_PER_STEP = 8192
_LONG_PLACES = 5120
Ids = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
Floats = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Arrays of one step; `places` are flat input positions that predict a weighted token."""

    tokens: Ids
    places: Ids
    targets: Ids
    weights: Floats


class TurnEncoder:
    """Turns text into token ids and loss weights."""

    def __init__(self, tokenizer: LlamaTokenizer) -> None:
        self._tokenizer = tokenizer
        self._lengths = [len(piece) for piece in tokenizer.pieces]

    def plain(self, text: str) -> list[int]:
        """Ids of text that is never in the loss."""
        return self._tokenizer.encode(text) if text else []

    def turn(self, turn: Turn, *, thinks: bool) -> tuple[list[int], list[float]]:
        """Ids and weights of question, answer and end token."""
        question = conversations.question_text(turn, thinks=thinks)
        written = conversations.answer_text(turn, thinks=thinks)
        ids = self._tokenizer.encode(f"{question}{written}<|im_end|>\n")
        first, last = len(question), len(question) + len(written)
        answer = last - len(turn.answer)
        marks = {answer + offset: weight for offset, weight in turn.marks}
        weights, position = [], 0
        for token in ids:
            if position < first or position > last:
                weights.append(0.0)
            elif position == last:
                weights.append(END_WEIGHT)
            elif position < answer:
                weights.append(1.0)
            else:
                weights.append(marks.get(position, 1.0) * turn.scale)
            position += self._lengths[token]
        return ids, weights


class BatchMaker:
    """Draws batches without end; its state is the random generator alone."""

    def __init__(self, encoder: TurnEncoder, rng: Random) -> None:
        self._encoder = encoder
        self.rng = rng

    def sequence(self, length: int) -> tuple[list[int], list[float]]:
        """One conversation of exactly `length` tokens, cut where it is too long."""
        rng = self.rng
        opening = conversations.random_opening(rng)
        ids = self._encoder.plain(opening.text())
        if len(ids) > length // 2:
            return self.sequence(length)
        weights = [0.0] * len(ids)
        longest = 40 if length < 512 else 129
        for turn, thinks in conversations.turns(rng, opening, longest):
            more_ids, more_weights = self._encoder.turn(turn, thinks=thinks)
            ids += more_ids
            weights += more_weights
            if len(ids) >= length:
                break
        return ids[:length], weights[:length]

    def batch(self, length: int) -> Batch:
        """A step of `TOKENS_PER_STEP` tokens in conversations of `length`."""
        rows = [self.sequence(length + 1) for _ in range(TOKENS_PER_STEP // length)]
        ids = np.array([row[0] for row in rows], dtype=np.int64)
        weights = np.array([row[1] for row in rows], dtype=np.float32)[:, 1:].ravel()
        targets = ids[:, 1:].ravel()
        places = np.flatnonzero(weights)[:_LONG_PLACES]
        padded = np.zeros(_LONG_PLACES, dtype=np.int64)
        padded[: len(places)] = places
        weights = weights[padded]
        weights[len(places) :] = 0.0
        return Batch(
            tokens=np.ascontiguousarray(ids[:, :-1]),
            places=padded,
            targets=targets[padded],
            weights=weights,
        )
