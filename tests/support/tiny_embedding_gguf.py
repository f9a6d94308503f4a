"""A tiny BERT with random weights, made in milliseconds, and what it computes, on plain numpy.

For tests of embeddings and reranking: real GGUFs for the real engine, and a reference beside them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

WIDTH = 32
HEADS = 2
LAYERS = 2
HIDDEN = 64
CONTEXT = 128
EPSILON = 1e-5
CLS, SEP = "[CLS]", "[SEP]"
SPECIAL = ("[PAD]", "[UNK]", CLS, SEP, "[MASK]")
WORDS = ("the", "cat", "dog", "sat", "ran", "on", "mat", "port", "which", "is")

Floats = NDArray[np.float32]


def bert_tokens() -> list[str]:
    """Special tokens, then whole words, then letters that begin a word, and that go on in one."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    digits = [str(digit) for digit in range(10)]
    starts = ["\u2581" + text for text in (*WORDS, *letters, *digits)]
    return [*SPECIAL, *starts, *letters, *digits]


def bert_weights(*, seed: int = 1, classes: int = 0) -> dict[str, Floats]:
    """The tensors by their names in a GGUF."""
    numbers = np.random.default_rng(seed)
    weights: dict[str, Floats] = {}

    def matrix(name: str, rows: int, columns: int, scale: float = 1.0) -> None:
        values = numbers.standard_normal((rows, columns), dtype=np.float32)
        weights[f"{name}.weight"] = values * np.float32(scale / columns**0.5)

    def bias(name: str, size: int = WIDTH) -> None:
        weights[f"{name}.bias"] = numbers.standard_normal(size, dtype=np.float32) * np.float32(0.1)

    def norm(name: str) -> None:
        weights[f"{name}.weight"] = np.ones(WIDTH, dtype=np.float32)
        bias(name)

    matrix("token_embd", len(bert_tokens()), WIDTH, 4.0)
    matrix("token_types", 2, WIDTH)
    matrix("position_embd", CONTEXT, WIDTH, 2.0)
    norm("token_embd_norm")
    for layer in range(LAYERS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            matrix(f"blk.{layer}.{name}", WIDTH, WIDTH)
            bias(f"blk.{layer}.{name}")
        norm(f"blk.{layer}.attn_output_norm")
        matrix(f"blk.{layer}.ffn_up", HIDDEN, WIDTH)
        bias(f"blk.{layer}.ffn_up", HIDDEN)
        matrix(f"blk.{layer}.ffn_down", WIDTH, HIDDEN)
        bias(f"blk.{layer}.ffn_down")
        norm(f"blk.{layer}.layer_output_norm")
    if classes:
        matrix("cls", WIDTH, WIDTH)
        bias("cls")
        matrix("cls.output", classes, WIDTH)
        bias("cls.output", classes)
    return weights


def write_tiny_bert(
    path: Path,
    *,
    seed: int = 1,
    pooling: gguf.PoolingType = gguf.PoolingType.MEAN,
    rerank_template: str = "",
) -> Path:
    """Write the model; with the pooling RANK it has a head of one score."""
    writer = gguf.GGUFWriter(str(path), "bert")
    writer.add_name("tiny-bert")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_eps(EPSILON)
    writer.add_causal_attention(False)
    writer.add_pooling_type(pooling)
    writer.add_token_type_count(2)
    _add_vocabulary(writer)
    if rerank_template:
        writer.add_chat_template([{"name": "rerank", "template": rerank_template}])
    classes = int(pooling == gguf.PoolingType.RANK)
    for name, values in bert_weights(seed=seed, classes=classes).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_vocabulary(writer: Any) -> None:
    tokens = bert_tokens()
    kinds = dict.fromkeys(SPECIAL, gguf.TokenType.CONTROL)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([kinds.get(token, gguf.TokenType.NORMAL) for token in tokens])
    writer.add_bos_token_id(tokens.index(CLS))
    writer.add_eos_token_id(tokens.index(SEP))
    writer.add_sep_token_id(tokens.index(SEP))
    writer.add_pad_token_id(tokens.index("[PAD]"))
    writer.add_unk_token_id(tokens.index("[UNK]"))
    writer.add_mask_token_id(tokens.index("[MASK]"))


def bert_rows(weights: dict[str, Floats], token_ids: list[int]) -> Floats:
    """The last layer's vectors of an input's tokens [tokens, width], in float64 throughout."""
    w = {name: values.astype(np.float64) for name, values in weights.items()}

    def linear(name: str, x: NDArray[np.float64]) -> NDArray[np.float64]:
        y: NDArray[np.float64] = x @ w[f"{name}.weight"].T + w[f"{name}.bias"]
        return y

    def norm(name: str, x: NDArray[np.float64]) -> NDArray[np.float64]:
        centred = x - x.mean(axis=1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + EPSILON)
        y: NDArray[np.float64] = scaled * w[f"{name}.weight"] + w[f"{name}.bias"]
        return y

    x = w["token_embd.weight"][token_ids] + w["token_types.weight"][0]
    x = norm("token_embd_norm", x + w["position_embd.weight"][: len(token_ids)])
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        q, k, v = (_heads(linear(f"{block}.attn_{name}", x)) for name in "qkv")
        scores = q @ k.transpose(0, 2, 1) / np.sqrt(WIDTH // HEADS)
        chances = np.exp(scores - scores.max(axis=2, keepdims=True))
        mixed = (chances / chances.sum(axis=2, keepdims=True)) @ v
        merged = mixed.transpose(1, 0, 2).reshape(len(token_ids), WIDTH)
        x = norm(f"{block}.attn_output_norm", x + linear(f"{block}.attn_output", merged))
        hidden = _gelu(linear(f"{block}.ffn_up", x))
        x = norm(f"{block}.layer_output_norm", x + linear(f"{block}.ffn_down", hidden))
    return x.astype(np.float32)


def bert_score(weights: dict[str, Floats], token_ids: list[int]) -> float:
    """What the classification head says of an input."""
    first = bert_rows(weights, token_ids)[0]
    hidden = np.tanh(weights["cls.weight"] @ first + weights["cls.bias"])
    return float((weights["cls.output.weight"] @ hidden + weights["cls.output.bias"])[0])


def _heads(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return x.reshape(len(x), HEADS, WIDTH // HEADS).transpose(1, 0, 2)


def _gelu(x: NDArray[np.float64]) -> NDArray[np.float64]:
    y: NDArray[np.float64] = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return y
