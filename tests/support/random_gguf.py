"""Random-weight llama GGUFs of set sizes for measurements, made in seconds and kept.

`python -m tests.support.random_gguf small` prints the path in the cache folder. They say nothing
sensible, but in a sane way: the vocabulary is of made-up words (` bado`, ` kemi`), each one token
with its leading space, so that a prompt of n words has n tokens and what the model says reads back
as the same tokens. The end token is all but impossible.
"""

from __future__ import annotations

import hashlib
import inspect
import itertools
import os
import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

from tests.support.tiny_gguf import END, START, TOOL, byte_characters

# the newline behind "assistant" is in an expression: Jinja cuts one from the end of a template
TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
CONSONANTS, VOWELS = "bcdfghjklmnpqrstvwxz", "aeiou"
FIRST_WORD = 256 + 20 + 20 * 5 + 20 * 5 * 20
WORDS = 20 * 5 * 20 * 5
"""Four letters and a leading space each; the ids of the 10 000 follow each other."""
VOCABULARY = 16_384
CONTEXT = 16_384
LOUDNESS = 4.0
"""The standard deviation of a word's logits: about as sure of itself as a small trained model."""
QUIET = 0.1
"""The other tokens' share of it: about one in 5000 sampled tokens is no word."""
KINDS = {
    "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
    "f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "f32": (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
}


@dataclass(frozen=True, kw_only=True)
class Size:
    """The shape of a model and the type of its matrices."""

    kind: str
    width: int
    layers: int
    heads: int
    kv_heads: int
    hidden: int

    @property
    def head_width(self) -> int:
        return self.width // self.heads


_SMALL = {"width": 768, "layers": 12, "heads": 12, "kv_heads": 4, "hidden": 2048}
_TINY = {"width": 64, "layers": 4, "heads": 4, "kv_heads": 2, "hidden": 192}
SIZES: dict[str, Size] = {
    "small": Size(kind="q8_0", **_SMALL),
    "small-f16": Size(kind="f16", **_SMALL),
    "small-f32": Size(kind="f32", **_SMALL),
    "tiny": Size(kind="f16", **_TINY),
    "tiny-q8_0": Size(kind="q8_0", **_TINY),
    "tiny-f32": Size(kind="f32", **_TINY),
}
"""`small`: 100.7 million parameters, 12 KiB of F16 cache a token. `tiny`: 2.3 million, 1 KiB."""


def prompt_tokens(dice: random.Random, count: int) -> list[int]:
    """The token ids of `count` words."""
    return [FIRST_WORD + dice.randrange(WORDS) for _ in range(count)]


def text_of(tokens: Sequence[int]) -> str:
    """The text of word tokens; it reads back as exactly these tokens."""
    return "".join(f" {_spelled(token - FIRST_WORD)}" for token in tokens)


def _spelled(word: int) -> str:
    rest, fourth = divmod(word, len(VOWELS))
    rest, third = divmod(rest, len(CONSONANTS))
    first, second = divmod(rest, len(VOWELS))
    return CONSONANTS[first] + VOWELS[second] + CONSONANTS[third] + VOWELS[fourth]


def merges() -> list[str]:
    """Byte-pair merges by rank: words grow letter by letter, those with a leading space first."""
    return list(itertools.islice(_merges(), VOCABULARY - 256 - 3))


def _merges() -> Iterator[str]:
    for space in ("Ġ", ""):
        grown = [space] if space else list(CONSONANTS)
        rounds = (CONSONANTS, VOWELS, CONSONANTS, VOWELS)[0 if space else 1 :]
        for letters in rounds:
            yield from (f"{piece} {letter}" for piece in grown for letter in letters)
            grown = [piece + letter for piece in grown for letter in letters]


def tokens() -> list[str]:
    """The vocabulary: bytes by their value, merged pieces by rank, then the special tokens."""
    return [*byte_characters(), *(merge.replace(" ", "") for merge in merges()), START, END, TOOL]


def models_folder() -> Path:
    """Where they are kept; `XDG_CACHE_HOME` is honoured."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "paddler-py" / "models"


def random_gguf(name: str) -> Path:
    """The path of a model of `SIZES`, written first if need be. `KeyError` for another name."""
    size = SIZES[name]
    recipe = inspect.getsource(sys.modules[__name__])
    key = hashlib.sha256(f"{recipe}{sorted(asdict(size).items())}".encode()).hexdigest()[:12]
    path = models_folder() / f"{name}-{key}.gguf"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        for old in path.parent.glob(f"{name}-????????????.gguf"):
            old.unlink(missing_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as temporary:
            write_random_gguf(Path(temporary) / "model.gguf", name, size).replace(path)
    return path


def write_random_gguf(path: Path, name: str, size: Size, *, seed: int = 1) -> Path:
    """Write the model; the same seed gives the same weights, whatever their type."""
    writer = gguf.GGUFWriter(str(path), "llama")
    _describe(writer, name, size)
    numbers = np.random.default_rng(seed)
    kind, _ = KINDS[size.kind]

    def add(tensor: str, rows: int, columns: int, scale: float = 1.0) -> None:
        weights = numbers.standard_normal((rows, columns), dtype=np.float32)
        weights *= np.float32(scale / columns**0.5)
        if tensor == "output.weight":
            weights *= _voice()[:, None]
        writer.add_tensor(tensor, gguf.quants.quantize(weights, kind), raw_dtype=kind)

    def add_norm(tensor: str) -> None:
        writer.add_tensor(tensor, np.ones(size.width, dtype=np.float32))

    add("token_embd.weight", VOCABULARY, size.width, 4.0)
    add("output.weight", VOCABULARY, size.width, LOUDNESS)
    add_norm("output_norm.weight")
    kv_width = size.kv_heads * size.head_width
    for layer in range(size.layers):
        block = f"blk.{layer}"
        add_norm(f"{block}.attn_norm.weight")
        add_norm(f"{block}.ffn_norm.weight")
        add(f"{block}.attn_q.weight", size.width, size.width)
        add(f"{block}.attn_k.weight", kv_width, size.width)
        add(f"{block}.attn_v.weight", kv_width, size.width)
        add(f"{block}.attn_output.weight", size.width, size.width)
        add(f"{block}.ffn_gate.weight", size.hidden, size.width)
        add(f"{block}.ffn_up.weight", size.hidden, size.width)
        add(f"{block}.ffn_down.weight", size.width, size.hidden)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _voice() -> NDArray[np.float32]:
    """How loud each token is: the words loud, pieces and bytes quiet, special tokens silent."""
    voice = np.full(VOCABULARY, QUIET, dtype=np.float32)
    voice[FIRST_WORD : FIRST_WORD + WORDS] = 1.0
    voice[-3:] = 0.0
    return voice


def _describe(writer: gguf.GGUFWriter, name: str, size: Size) -> None:
    vocabulary = tokens()
    writer.add_name(f"random {name}")
    writer.add_file_type(KINDS[size.kind][1])
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(size.width)
    writer.add_block_count(size.layers)
    writer.add_feed_forward_length(size.hidden)
    writer.add_head_count(size.heads)
    writer.add_head_count_kv(size.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(size.head_width)
    writer.add_vocab_size(VOCABULARY)
    kinds = {START: gguf.TokenType.CONTROL, END: gguf.TokenType.CONTROL}
    kinds[TOOL] = gguf.TokenType.USER_DEFINED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(vocabulary)
    writer.add_token_types([kinds.get(token, gguf.TokenType.NORMAL) for token in vocabulary])
    writer.add_token_merges(merges())
    writer.add_bos_token_id(vocabulary.index(START))
    writer.add_eos_token_id(vocabulary.index(END))
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)


def main() -> None:
    """Print the paths of the models named in argv, making those that are missing."""
    for name in sys.argv[1:] or ["small"]:
        sys.stdout.write(f"{random_gguf(name)}\n")


if __name__ == "__main__":
    main()
