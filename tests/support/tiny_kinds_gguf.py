"""Tiny models whose memory is no plain attention cache, made in milliseconds: random weights.

*recurrent*: Mamba, a state a sequence. *hybrid*: Jamba, a Mamba layer and one of attention.
*window*: Gemma 3, a layer that sees the last `WINDOW` tokens and one that sees all.
The vocabulary is that of tiny_gguf.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import gguf
import numpy as np

from tests.support.tiny_gguf import CONTEXT, HIDDEN, WIDTH, add_output, describe_vocabulary, tokens

Kind = Literal["recurrent", "hybrid", "window"]
WINDOW = 48
LAYERS = 2
INNER, STATE, KERNEL, RANK = 2 * WIDTH, 8, 4, 4
_ARCHITECTURES: dict[Kind, str] = {"recurrent": "mamba", "hybrid": "jamba", "window": "gemma3"}


class _Tensors:
    """Adds random tensors to a file."""

    def __init__(self, writer: gguf.GGUFWriter, seed: int) -> None:
        self.writer = writer
        self.numbers = np.random.default_rng(seed)

    def add(self, name: str, *shape: int, scale: float = 1.0) -> None:
        """The last dimension is the input's."""
        weights = self.numbers.standard_normal(shape, dtype=np.float32)
        self.writer.add_tensor(name, weights * np.float32(scale / shape[-1] ** 0.5))

    def fill(self, name: str, *shape: int, value: float = 1.0) -> None:
        self.writer.add_tensor(name, np.full(shape, value, dtype=np.float32))

    def add_mamba(self, block: str, *, norms: bool) -> None:
        """A state-space layer that forgets slowly."""
        self.add(f"{block}.ssm_in.weight", 2 * INNER, WIDTH)
        self.add(f"{block}.ssm_conv1d.weight", INNER, KERNEL)
        self.add(f"{block}.ssm_conv1d.bias", INNER)
        self.add(f"{block}.ssm_x.weight", RANK + 2 * STATE, INNER, scale=2.0)
        self.add(f"{block}.ssm_dt.weight", INNER, RANK)
        self.fill(f"{block}.ssm_dt.bias", INNER, value=-1.0)
        self.fill(f"{block}.ssm_a", INNER, STATE, value=-0.05)
        self.fill(f"{block}.ssm_d", INNER)
        self.add(f"{block}.ssm_out.weight", WIDTH, INNER, scale=2.0)
        if norms:
            self.fill(f"{block}.ssm_dt_norm.weight", RANK)
            self.fill(f"{block}.ssm_b_norm.weight", STATE)
            self.fill(f"{block}.ssm_c_norm.weight", STATE)

    def add_attention(self, block: str, *, norms: bool) -> None:
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            self.add(f"{block}.{name}.weight", WIDTH, WIDTH)
        if norms:
            for name in ("attn_q_norm", "attn_k_norm", "post_attention_norm", "post_ffw_norm"):
                self.fill(f"{block}.{name}.weight", WIDTH)

    def add_feed_forward(self, block: str) -> None:
        self.fill(f"{block}.ffn_norm.weight", WIDTH)
        for name in ("ffn_gate", "ffn_up"):
            self.add(f"{block}.{name}.weight", HIDDEN, WIDTH)
        self.add(f"{block}.ffn_down.weight", WIDTH, HIDDEN)


def write_tiny_kind(kind: Kind, path: Path, *, seed: int = 1) -> Path:
    """Write a model of a kind of memory."""
    writer = gguf.GGUFWriter(str(path), _ARCHITECTURES[kind])
    vocabulary = tokens()
    _describe(writer, kind)
    describe_vocabulary(writer, vocabulary)
    tensors = _Tensors(writer, seed)
    tensors.add("token_embd.weight", len(vocabulary), WIDTH, scale=4.0)
    add_output(writer, tensors.numbers, loudness=3.0)
    tensors.fill("output_norm.weight", WIDTH)
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        tensors.fill(f"{block}.attn_norm.weight", WIDTH)
        if kind == "recurrent" or (kind == "hybrid" and layer == 0):
            tensors.add_mamba(block, norms=kind == "hybrid")
        else:
            tensors.add_attention(block, norms=kind == "window")
        if kind != "recurrent":
            tensors.add_feed_forward(block)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _describe(writer: gguf.GGUFWriter, kind: Kind) -> None:
    writer.add_name(f"tiny {kind}")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(0 if kind == "recurrent" else HIDDEN)
    writer.add_head_count(0 if kind == "recurrent" else 1)
    writer.add_layer_norm_rms_eps(1e-5)
    if kind == "hybrid":
        writer.add_head_count_kv([0, 1])
    elif kind == "window":
        writer.add_head_count_kv(1)
        writer.add_key_length(WIDTH)
        writer.add_value_length(WIDTH)
        writer.add_sliding_window(WINDOW)
        writer.add_sliding_window_pattern([True, False])
    if kind != "window":
        writer.add_ssm_conv_kernel(KERNEL)
        writer.add_ssm_inner_size(INNER)
        writer.add_ssm_state_size(STATE)
        writer.add_ssm_time_step_rank(RANK)
