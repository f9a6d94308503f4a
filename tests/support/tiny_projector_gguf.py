"""Tiny projectors with random weights for the tiny model: images or sounds to its embeddings.

For tests of mechanics only: what they see means nothing, but they are real GGUFs for real mtmd.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import gguf
import numpy as np

from tests.support.tiny_gguf import WIDTH as MODEL_WIDTH

Kind = Literal["mlp", "gemma3", "ultravox"]
"""Causal images, images that see all of themselves, sounds."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Of the transformer, and of the square image that it sees."""

    width: int = 32
    heads: int = 1
    hidden: int = 64
    layers: int = 2
    image_side: int = 32
    patch_side: int = 8

    @property
    def tokens(self) -> int:
        """What an image becomes; the kind that sees all of itself merges four into one."""
        return (self.image_side // self.patch_side) ** 2


TINY = Shape()
BASE = Shape(width=768, heads=12, hidden=3072, layers=12, image_side=224, patch_side=16)
"""ViT-B/16."""
LARGE = Shape(width=1024, heads=16, hidden=4096, layers=24, image_side=336, patch_side=14)
"""ViT-L/14, as in LLaVA."""
IMAGE_TOKENS = TINY.tokens
MEL_BINS, SOUND_POSITIONS, SOUND_STACK = 80, 1500, 10
SOUND_TOKENS = SOUND_POSITIONS // SOUND_STACK
"""Of each 30 seconds begun."""

_Add = Callable[..., None]


def write_tiny_projector(
    path: Path,
    kind: Kind = "mlp",
    *,
    seed: int = 1,
    model_width: int = MODEL_WIDTH,
    shape: Shape = TINY,
) -> Path:
    """Write a projector of a kind for models that are `model_width` wide."""
    writer = gguf.GGUFWriter(str(path), "clip")
    numbers = np.random.default_rng(seed)

    def add(name: str, *shape: int, scale: float = 1.0) -> None:
        weights = numbers.standard_normal(shape, dtype=np.float32)
        writer.add_tensor(name, weights * np.float32(scale / shape[-1] ** 0.5))

    writer.add_string("clip.projector_type", kind)
    writer.add_bool("clip.use_gelu", val=True)
    if kind == "ultravox":
        _describe(writer, "audio", replace(shape, layers=1), model_width)
        _add_sound(writer, add, shape, model_width)
    else:
        _describe(writer, "vision", shape, model_width)
        _add_image(writer, add, kind, shape, model_width)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _describe(writer: gguf.GGUFWriter, sense: str, shape: Shape, model_width: int) -> None:
    writer.add_bool(f"clip.has_{sense}_encoder", val=True)
    prefix = f"clip.{sense}"
    writer.add_uint32(f"{prefix}.embedding_length", shape.width)
    writer.add_uint32(f"{prefix}.attention.head_count", shape.heads)
    writer.add_uint32(f"{prefix}.feed_forward_length", shape.hidden)
    writer.add_uint32(f"{prefix}.block_count", shape.layers)
    writer.add_uint32(f"{prefix}.projection_dim", model_width)
    writer.add_float32(f"{prefix}.attention.layer_norm_epsilon", 1e-5)


def _add_image(
    writer: gguf.GGUFWriter, add: _Add, kind: Kind, shape: Shape, model_width: int
) -> None:
    writer.add_uint32("clip.vision.image_size", shape.image_side)
    writer.add_uint32("clip.vision.patch_size", shape.patch_side)
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
    add("v.patch_embd.weight", shape.width, 3, shape.patch_side, shape.patch_side)
    add("v.position_embd.weight", shape.tokens, shape.width)
    for layer in range(shape.layers):
        _add_layer(writer, add, f"v.blk.{layer}", shape, key_bias=True)
    if kind == "mlp":
        add("mm.0.weight", model_width, shape.width)
        _add_constant(writer, "mm.0.bias", model_width, 0.0)
        add("mm.2.weight", model_width, model_width, scale=8.0)
        _add_constant(writer, "mm.2.bias", model_width, 0.0)
    else:
        writer.add_uint32("clip.vision.projector.scale_factor", 2)
        add("mm.input_projection.weight", shape.width, model_width, scale=4.0)
        _add_constant(writer, "mm.soft_emb_norm.weight", shape.width, 1.0)


def _add_sound(writer: gguf.GGUFWriter, add: _Add, shape: Shape, model_width: int) -> None:
    width, hidden = shape.width, shape.hidden
    writer.add_uint32("clip.audio.num_mel_bins", MEL_BINS)
    writer.add_uint32("clip.audio.projector.stack_factor", SOUND_STACK)
    add("a.conv1d.1.weight", width, MEL_BINS, 3)
    add("a.conv1d.2.weight", width, width, 3)
    for number in (1, 2):
        writer.add_tensor(f"a.conv1d.{number}.bias", np.zeros((width, 1), dtype=np.float32))
    add("a.position_embd.weight", SOUND_POSITIONS, width)
    _add_layer(writer, add, "a.blk.0", shape, key_bias=False)
    _add_constant(writer, "mm.a.norm_pre.weight", width * SOUND_STACK, 1.0)
    add("mm.a.mlp.1.weight", 2 * hidden, width * SOUND_STACK)
    _add_constant(writer, "mm.a.norm_mid.weight", hidden, 1.0)
    add("mm.a.mlp.2.weight", model_width, hidden, scale=8.0)


def _add_layer(
    writer: gguf.GGUFWriter, add: _Add, name: str, shape: Shape, *, key_bias: bool
) -> None:
    for norm in ("ln1", "ln2"):
        _add_constant(writer, f"{name}.{norm}.weight", shape.width, 1.0)
        _add_constant(writer, f"{name}.{norm}.bias", shape.width, 0.0)
    for part in ("attn_q", "attn_k", "attn_v", "attn_out"):
        add(f"{name}.{part}.weight", shape.width, shape.width)
        if part != "attn_k" or key_bias:
            _add_constant(writer, f"{name}.{part}.bias", shape.width, 0.0)
    add(f"{name}.ffn_up.weight", shape.hidden, shape.width)
    add(f"{name}.ffn_down.weight", shape.width, shape.hidden)


def _add_constant(writer: gguf.GGUFWriter, name: str, size: int, value: float) -> None:
    writer.add_tensor(name, np.full(size, value, dtype=np.float32))
