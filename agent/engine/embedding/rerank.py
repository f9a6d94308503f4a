"""The prompt that a reranking model scores: query and document as it was trained to see them."""

from __future__ import annotations

import re

import numpy as np

from agent.engine.llama.arrays import Ints
from agent.engine.llama.vocabulary import Vocabulary

_PLACE = re.compile(r"\{(query|document)\}")


def rerank_prompt(vocabulary: Vocabulary, template: str, query: str, document: str) -> Ints:
    """The ids of the pair.

    A model's own template has `{query}` and `{document}` in it. Without one: BOS, query, EOS, SEP,
    document, EOS, each of the special ones only if the model wants it added (as llama-server does).
    """
    if template:
        values = {"query": query, "document": document}
        # one pass: what stands in the query is no place to put the document
        text = _PLACE.sub(lambda place: values[place[1]], template)
        return vocabulary.tokenize(text)
    end = vocabulary.eos if vocabulary.eos >= 0 else vocabulary.sep
    ends = [end] if vocabulary.adds_eos and end >= 0 else []
    parts: list[Ints | list[int]] = [
        [vocabulary.bos] if vocabulary.adds_bos else [],
        vocabulary.tokenize(query, parse_special=False),
        [*ends, vocabulary.sep] if vocabulary.adds_sep else ends,
        vocabulary.tokenize(document, parse_special=False),
        ends,
    ]
    return np.concatenate([np.asarray(part, dtype=np.int32) for part in parts])
