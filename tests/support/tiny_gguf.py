"""A tiny llama model with random weights and a byte-level vocabulary, made in milliseconds.

For tests of mechanics only: it says nothing sensible, but it is a real GGUF for the real engine.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

WIDTH = 32
HEADS = 1
LAYERS = 2
HIDDEN = 64
CONTEXT = 512
START, END, TOOL = "<|im_start|>", "<|im_end|>", "<tool_call>"
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
    path: Path, *, seed: int = 1, loudness: float = 3.0, adds_bos: bool = False
) -> Path:
    """Write the model. It mostly says printable ASCII; `loudness`: how sure it is of itself."""
    writer = gguf.GGUFWriter(str(path), "llama")
    vocabulary = tokens()
    _describe(writer, vocabulary, adds_bos=adds_bos)
    numbers = np.random.default_rng(seed)

    def add(name: str, rows: int, columns: int, scale: float = 1.0) -> None:
        weights = numbers.standard_normal((rows, columns), dtype=np.float32)
        writer.add_tensor(name, weights * np.float32(scale / columns**0.5))

    def add_norm(name: str) -> None:
        writer.add_tensor(name, np.ones(WIDTH, dtype=np.float32))

    add("token_embd.weight", len(vocabulary), WIDTH, 4.0)
    _add_output(writer, numbers, len(vocabulary), loudness)
    add_norm("output_norm.weight")
    for layer in range(LAYERS):
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


def _add_output(
    writer: gguf.GGUFWriter, numbers: np.random.Generator, vocabulary_size: int, loudness: float
) -> None:
    """Printable ASCII is loud, the rest quiet: bytes that are no text, and the end, are rare."""
    weights = numbers.standard_normal((vocabulary_size, WIDTH), dtype=np.float32)
    weights *= np.float32(loudness / WIDTH**0.5)
    quiet = np.ones(vocabulary_size, dtype=bool)
    quiet[ord(" ") : ord("~") + 1] = False
    weights[quiet] *= np.float32(0.1)
    writer.add_tensor("output.weight", weights)


def _describe(writer: gguf.GGUFWriter, vocabulary: list[str], *, adds_bos: bool) -> None:
    writer.add_name("tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
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
