"""The byte-level BPE of the demo model: training it, and using it through llama.cpp itself.

Spaces, newlines and "_" never merge with letters, so that a word has the same tokens wherever it
stands; the numbers 10..130 are single tokens. That makes copying and counting easy to learn.
"""

import ctypes
import json
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import llama_cpp

from agent.demo_model import conversations, corpus

VOCABULARY_SIZE = 1280
CONTROL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
USER_TOKENS = (
    "<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>",
)  # fmt: skip
END_TOKEN = "<|im_end|>"  # noqa: S105 (the text of a token)
PAD_TOKEN = "<|endoftext|>"  # noqa: S105 (likewise)
_PIECES = r"[A-Za-z]+|[0-9]|_|\s|[^A-Za-z0-9_\s]+"


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Token texts in GPT-2's byte alphabet, in id order, and the merges in rank order."""

    tokens: tuple[str, ...]
    merges: tuple[str, ...]

    def id_of(self, token: str) -> int:
        """The id of a token by its text."""
        return self.tokens.index(token)

    def save(self, path: Path) -> None:
        """Write as JSON."""
        data = {"tokens": self.tokens, "merges": self.merges}
        path.write_text(json.dumps(data), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> "Vocabulary":
        """Read what `save` wrote."""
        data = json.loads(path.read_text(encoding="utf-8"))
        return cls(tokens=tuple(data["tokens"]), merges=tuple(data["merges"]))


def _number_merges() -> list[tuple[str, str]]:
    pairs = [(str(n)[0], str(n)[1]) for n in range(10, 100)]
    pairs += [(str(n)[:2], str(n)[2]) for n in range(100, 131) if n != 110]
    return [*pairs, ("1", "10")]  # in 110 the merge "10" comes before "11"


def _sample_text(seed: int, conversations_count: int = 2500) -> list[str]:
    rng = Random(seed)
    texts = [f"{ask}\n{answer}" for ask, answer in corpus.facts() * 6 + corpus.small_talk() * 6]
    for _ in range(conversations_count):
        opening = conversations.random_opening(rng)
        source = conversations.turns(rng, opening, longest=10)
        parts = [opening.text()]
        for _ in range(4):
            turn, thinks = next(source)
            parts.append(conversations.question_text(turn))
            parts.append(conversations.answer_text(turn, thinks=thinks))
        texts.append("".join(parts))
    for token in (*CONTROL_TOKENS, *USER_TOKENS):
        texts = [text.replace(token, " ") for text in texts]
    return texts


def train_vocabulary(seed: int) -> Vocabulary:
    """Learn the merges from a sample of the training text."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers  # noqa: PLC0415 (training only)

    numbers = _number_merges()
    specials = (*CONTROL_TOKENS, *USER_TOKENS)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(_PIECES), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE - len(specials) - len(numbers),
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(_sample_text(seed), trainer)
    learned = [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]
    merges = [*numbers, *learned]
    merged = ["".join(pair) for pair in merges]
    tokens = (*alphabet, *merged, *specials)
    if not len(tokens) == len(set(tokens)) <= VOCABULARY_SIZE:
        raise ValueError(f"{len(tokens)} tokens, {len(set(tokens))} of them different")
    return Vocabulary(tokens=tokens, merges=tuple(" ".join(pair) for pair in merges))


class LlamaTokenizer:
    """Tokenises with llama.cpp's own code from a GGUF; also knows each token's byte length."""

    def __init__(self, gguf_path: Path) -> None:
        llama_cpp.llama_backend_init()
        parameters = llama_cpp.llama_model_default_params()
        parameters.vocab_only = True
        self._model: Any = llama_cpp.llama_model_load_from_file(str(gguf_path).encode(), parameters)
        if not self._model:
            raise ValueError(f"llama.cpp cannot read {gguf_path}")
        self._vocab: Any = llama_cpp.llama_model_get_vocab(self._model)
        self.size: int = llama_cpp.llama_vocab_n_tokens(self._vocab)
        self.end_id: int = llama_cpp.llama_vocab_eos(self._vocab)
        self.pieces: list[bytes] = [self._piece(token) for token in range(self.size)]
        self._buffer = (ctypes.c_int32 * 65536)()

    def _piece(self, token: int) -> bytes:
        buffer = ctypes.create_string_buffer(64)
        length = llama_cpp.llama_token_to_piece(self._vocab, token, buffer, 64, 0, True)
        return buffer.raw[:length]

    def encode(self, text: str) -> list[int]:
        """Token ids of template text (control tokens are recognised)."""
        raw = text.encode()
        count = llama_cpp.llama_tokenize(
            self._vocab, raw, len(raw), self._buffer, len(self._buffer), False, True
        )
        if count < 0:
            raise ValueError(f"text of {len(raw)} bytes is too long")
        return self._buffer[:count]

    def decode(self, tokens: list[int]) -> str:
        """The text of token ids."""
        return b"".join(self.pieces[token] for token in tokens).decode(errors="replace")
