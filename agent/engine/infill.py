"""Fill-in-the-middle: a prompt that has the model write what stands between two texts."""

from __future__ import annotations

import numpy as np

from agent.engine.llama.arrays import Ints
from agent.engine.llama.vocabulary import Vocabulary


def missing_tokens(vocabulary: Vocabulary) -> tuple[str, ...]:
    """Which of the special tokens that filling in needs the model lacks; none: it can."""
    return tuple(part for part, token in vocabulary.infill_tokens.items() if token < 0)


def infill_prompt(vocabulary: Vocabulary, prefix: str, suffix: str) -> Ints:
    """The ids of [BOS][PREFIX]prefix[SUFFIX]suffix[MIDDLE] (arXiv:2207.14255).

    No special token in the texts is parsed. Raises `ValueError` if the model lacks a token.
    """
    if missing_tokens(vocabulary):
        raise ValueError("this model cannot fill in")
    mark = vocabulary.infill_tokens
    parts: list[Ints | list[int]] = [
        [vocabulary.bos] if vocabulary.adds_bos else [],
        [mark["prefix"]],
        vocabulary.tokenize(prefix, parse_special=False),
        [mark["suffix"]],
        vocabulary.tokenize(suffix, parse_special=False),
        [mark["middle"]],
    ]
    return np.concatenate([np.asarray(part, dtype=np.int32) for part in parts])
