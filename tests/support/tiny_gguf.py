"""A tiny llama model with random weights and a byte-level vocabulary, made in milliseconds.

For tests of mechanics only: it says nothing sensible, but it is a real GGUF for the real engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import gguf
import numpy as np

WIDTH = 32
HEADS = 1
LAYERS = 2
HIDDEN = 64
CONTEXT = 512
START, END, TOOL = "<|im_start|>", "<|im_end|>", "<tool_call>"
NO_INFILL: Mapping[str, int] = MappingProxyType({})
MERGES = ("h e", "l l", "he ll", "Ġ w", "o r")
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}<|im_start|>assistant\n"
)


def byte_characters() -> list[str]:
    """GPT-2's printable stand-ins for the 256 bytes, in the order of the bytes."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    characters = {byte: chr(byte) for byte in printable}
    characters |= {byte: chr(256 + index) for index, byte in enumerate(others)}
    return [characters[byte] for byte in range(256)]


def tokens() -> list[str]:
    """The vocabulary: bytes by their value, merged pieces, then the special tokens."""
    return [*byte_characters(), *(merge.replace(" ", "") for merge in MERGES), START, END, TOOL]


def write_tiny_gguf(
    path: Path,
    *,
    seed: int = 1,
    loudness: float = 3.0,
    adds_bos: bool = False,
    infill: Mapping[str, int] = NO_INFILL,
    layers: int = LAYERS,
) -> Path:
    """Write the model. It mostly says printable ASCII; `loudness`: how sure it is of itself.

    `infill` names tokens for fill-in-the-middle: "pre", "suf", "mid".
    """
    writer = gguf.GGUFWriter(str(path), "llama")
    vocabulary = tokens()
    _describe(writer, vocabulary, adds_bos=adds_bos, layers=layers)
    for name, token in infill.items():
        writer.add_uint32(f"tokenizer.ggml.fim_{name}_token_id", token)
    numbers = np.random.default_rng(seed)

    def add(name: str, rows: int, columns: int, scale: float = 1.0) -> None:
        weights = numbers.standard_normal((rows, columns), dtype=np.float32)
        writer.add_tensor(name, weights * np.float32(scale / columns**0.5))

    def add_norm(name: str) -> None:
        writer.add_tensor(name, np.ones(WIDTH, dtype=np.float32))

    add("token_embd.weight", len(vocabulary), WIDTH, 4.0)
    add_output(writer, numbers, loudness)
    add_norm("output_norm.weight")
    for layer in range(layers):
        add_norm(f"blk.{layer}.attn_norm.weight")
        add_norm(f"blk.{layer}.ffn_norm.weight")
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"blk.{layer}.{name}.weight", WIDTH, WIDTH)
        for name in ("ffn_gate", "ffn_up"):
            add(f"blk.{layer}.{name}.weight", HIDDEN, WIDTH)
        add(f"blk.{layer}.ffn_down.weight", WIDTH, HIDDEN)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_output(writer: gguf.GGUFWriter, numbers: np.random.Generator, loudness: float) -> None:
    """Printable ASCII is loud, the rest quiet: bytes that are no text, and the end, are rare."""
    weights = numbers.standard_normal((len(tokens()), WIDTH), dtype=np.float32)
    weights *= np.float32(loudness / WIDTH**0.5)
    quiet = np.ones(len(weights), dtype=bool)
    quiet[ord(" ") : ord("~") + 1] = False
    weights[quiet] *= np.float32(0.1)
    writer.add_tensor("output.weight", weights)


def _describe(
    writer: gguf.GGUFWriter, vocabulary: list[str], *, adds_bos: bool, layers: int = LAYERS
) -> None:
    writer.add_name("tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    describe_vocabulary(writer, vocabulary, adds_bos=adds_bos)


def describe_vocabulary(
    writer: gguf.GGUFWriter, vocabulary: list[str], *, adds_bos: bool = False
) -> None:
    """What the tokens are, and the chat template over them."""
    writer.add_vocab_size(len(vocabulary))
    kinds = dict.fromkeys((START, END), gguf.TokenType.CONTROL)
    kinds[TOOL] = gguf.TokenType.USER_DEFINED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(vocabulary)
    writer.add_token_types([kinds.get(token, gguf.TokenType.NORMAL) for token in vocabulary])
    writer.add_token_merges(list(MERGES))
    writer.add_bos_token_id(vocabulary.index(START))
    writer.add_eos_token_id(vocabulary.index(END))
    writer.add_add_bos_token(adds_bos)
    writer.add_chat_template(TEMPLATE)


def write_tiny_causal_reranker(path: Path, *, seed: int = 1) -> Path:
    """A Qwen3 with random weights and a head of two classes, "yes" and "no": it reads a text from
    left to right, and scores what it has read at the end."""
    writer = gguf.GGUFWriter(str(path), "qwen3")
    vocabulary = tokens()
    _describe(writer, vocabulary, adds_bos=False)
    writer.add_key_length(WIDTH)
    writer.add_value_length(WIDTH)
    writer.add_pooling_type(gguf.PoolingType.RANK)
    writer.add_classifier_output_labels(["yes", "no"])
    numbers = np.random.default_rng(seed)
    shapes = {"token_embd": (len(vocabulary), WIDTH), "cls.output": (2, WIDTH)}
    norms = ["output_norm"]
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        norms += [f"{block}.{name}_norm" for name in ("attn", "ffn", "attn_q", "attn_k")]
        shapes |= {f"{block}.attn_{name}": (WIDTH, WIDTH) for name in ("q", "k", "v", "output")}
        shapes |= {f"{block}.ffn_{name}": (HIDDEN, WIDTH) for name in ("gate", "up")}
        shapes[f"{block}.ffn_down"] = (WIDTH, HIDDEN)
    for name, shape in shapes.items():
        weights = numbers.standard_normal(shape, dtype=np.float32)
        writer.add_tensor(f"{name}.weight", weights * np.float32(2 / shape[1] ** 0.5))
    for name in norms:
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
