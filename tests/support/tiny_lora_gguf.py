"""LoRA adapters with random weights for the models of tiny_gguf.py."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

from tests.support.tiny_gguf import LAYERS, WIDTH

RANK = 4


def write_tiny_lora(
    path: Path,
    *,
    seed: int = 1,
    strength: float = 2.0,
    architecture: str = "llama",
    width: int = WIDTH,
    invoked_by: tuple[int, ...] = (),
) -> Path:
    """Write an adapter of all attention matrices; with the default strength it says other things.

    `invoked_by`: tokens that switch it on, which makes it an "activated" LoRA.
    """
    writer = gguf.GGUFWriter(str(path), architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(RANK))
    if invoked_by:
        # llama.cpp takes an array of exactly this type
        writer.add_key_value(
            "adapter.alora.invocation_tokens",
            list(invoked_by),
            gguf.GGUFValueType.ARRAY,
            sub_type=gguf.GGUFValueType.UINT32,
        )
    numbers = np.random.default_rng(seed)
    for layer in range(LAYERS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            first = numbers.standard_normal((RANK, width), dtype=np.float32)
            second = numbers.standard_normal((width, RANK), dtype=np.float32)
            scale = np.float32(strength / (RANK * width) ** 0.5)
            writer.add_tensor(f"blk.{layer}.{name}.weight.lora_a", first)
            writer.add_tensor(f"blk.{layer}.{name}.weight.lora_b", second * scale)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
