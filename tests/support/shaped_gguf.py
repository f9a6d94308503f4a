"""GGUFs that have the metadata and the tensors of well-known models, but no weights.

The file is as long as the real one and takes no space on disk: a hole. llama.cpp can rehearse its
loading (`no_alloc`) and say what it would allocate, and the reader of headers has something real.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np

F32, F16 = gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16
Q4_K, Q8_0 = gguf.GGMLQuantizationType.Q4_K, gguf.GGMLQuantizationType.Q8_0
Tensors = Mapping[str, tuple[Sequence[int], gguf.GGMLQuantizationType]]


def write_shaped_gguf(
    path: Path, architecture: str, metadata: Mapping[str, Any], tensors: Tensors
) -> Path:
    """`metadata` without the architecture's prefix; dimensions with the innermost first."""
    writer = gguf.GGUFWriter(str(path), architecture)
    writer.add_tokenizer_model("no_vocab")
    for key, value in metadata.items():
        name = f"{architecture}.{key}"
        if isinstance(value, bool):
            writer.add_bool(name, value)
        elif isinstance(value, int):
            writer.add_uint32(name, value)
        elif isinstance(value, float):
            writer.add_float32(name, value)
        else:
            writer.add_array(name, value)
    end = 0
    for name, (dimensions, kind) in tensors.items():
        block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        size = int(np.prod(dimensions)) // block * block_bytes
        shape = tuple(reversed(dimensions))
        writer.add_tensor_info(name, shape, np.dtype(np.float32), size, raw_dtype=kind)
        end = -(-end // 32) * 32 + size
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    start = -(-path.stat().st_size // 32) * 32
    os.truncate(path, start + end)
    return path


def llama(
    path: Path,
    *,
    width: int = 4096,
    layers: int = 32,
    heads: int = 32,
    kv_heads: int = 8,
    hidden: int = 14336,
    vocabulary: int = 128256,
    trained: int = 131072,
    kind: gguf.GGMLQuantizationType = Q4_K,
) -> Path:
    """A llama model; as it stands, Llama 3.1 8B."""
    kv_width = width // heads * kv_heads
    tensors: dict[str, tuple[Sequence[int], gguf.GGMLQuantizationType]] = {
        "token_embd.weight": ((width, vocabulary), kind),
        "output.weight": ((width, vocabulary), kind),
        "output_norm.weight": ((width,), F32),
    }
    for layer in range(layers):
        tensors |= {
            f"blk.{layer}.attn_norm.weight": ((width,), F32),
            f"blk.{layer}.ffn_norm.weight": ((width,), F32),
            f"blk.{layer}.attn_q.weight": ((width, width), kind),
            f"blk.{layer}.attn_k.weight": ((width, kv_width), kind),
            f"blk.{layer}.attn_v.weight": ((width, kv_width), kind),
            f"blk.{layer}.attn_output.weight": ((width, width), kind),
            f"blk.{layer}.ffn_gate.weight": ((width, hidden), kind),
            f"blk.{layer}.ffn_up.weight": ((width, hidden), kind),
            f"blk.{layer}.ffn_down.weight": ((hidden, width), kind),
        }
    metadata = {
        "context_length": trained,
        "embedding_length": width,
        "block_count": layers,
        "feed_forward_length": hidden,
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.dimension_count": width // heads,
        "vocab_size": vocabulary,
    }
    return write_shaped_gguf(path, "llama", metadata, tensors)


def gemma3(path: Path) -> Path:
    """Gemma 3 4B: five layers of a window to one that sees everything, a large vocabulary."""
    width, layers, heads, kv_heads, head, hidden = 2560, 34, 8, 4, 256, 10240
    vocabulary = 262208
    tensors: dict[str, tuple[Sequence[int], gguf.GGMLQuantizationType]] = {
        "token_embd.weight": ((width, vocabulary), Q8_0),
        "output_norm.weight": ((width,), F32),
    }
    for layer in range(layers):
        tensors |= {
            f"blk.{layer}.{norm}.weight": ((width,), F32)
            for norm in ("attn_norm", "ffn_norm", "post_attention_norm", "post_ffw_norm")
        }
        tensors |= {
            f"blk.{layer}.attn_q_norm.weight": ((head,), F32),
            f"blk.{layer}.attn_k_norm.weight": ((head,), F32),
            f"blk.{layer}.attn_q.weight": ((width, heads * head), Q4_K),
            f"blk.{layer}.attn_k.weight": ((width, kv_heads * head), Q4_K),
            f"blk.{layer}.attn_v.weight": ((width, kv_heads * head), Q4_K),
            f"blk.{layer}.attn_output.weight": ((heads * head, width), Q4_K),
            f"blk.{layer}.ffn_gate.weight": ((width, hidden), Q4_K),
            f"blk.{layer}.ffn_up.weight": ((width, hidden), Q4_K),
            f"blk.{layer}.ffn_down.weight": ((hidden, width), Q4_K),
        }
    metadata = {
        "context_length": 131072,
        "embedding_length": width,
        "block_count": layers,
        "feed_forward_length": hidden,
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
        "attention.key_length": head,
        "attention.value_length": head,
        "attention.sliding_window": 1024,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "vocab_size": vocabulary,
    }
    return write_shaped_gguf(path, "gemma3", metadata, tensors)


def mamba(path: Path) -> Path:
    """Mamba 130M: no cache of tokens, a state a sequence."""
    width, layers, vocabulary, kernel, state, rank = 768, 24, 50280, 4, 16, 48
    inner = 2 * width
    tensors: dict[str, tuple[Sequence[int], gguf.GGMLQuantizationType]] = {
        "token_embd.weight": ((width, vocabulary), F16),
        "output_norm.weight": ((width,), F32),
    }
    for layer in range(layers):
        tensors |= {
            f"blk.{layer}.attn_norm.weight": ((width,), F32),
            f"blk.{layer}.ssm_in.weight": ((width, 2 * inner), F16),
            f"blk.{layer}.ssm_conv1d.weight": ((kernel, inner), F32),
            f"blk.{layer}.ssm_conv1d.bias": ((inner,), F32),
            f"blk.{layer}.ssm_x.weight": ((inner, rank + 2 * state), F16),
            f"blk.{layer}.ssm_dt.weight": ((rank, inner), F16),
            f"blk.{layer}.ssm_dt.bias": ((inner,), F32),
            f"blk.{layer}.ssm_a": ((state, inner), F32),
            f"blk.{layer}.ssm_d": ((inner,), F32),
            f"blk.{layer}.ssm_out.weight": ((inner, width), F16),
        }
    metadata = {
        "context_length": 1048576,
        "embedding_length": width,
        "block_count": layers,
        "feed_forward_length": 0,
        "attention.head_count": 0,
        "ssm.conv_kernel": kernel,
        "ssm.inner_size": inner,
        "ssm.state_size": state,
        "ssm.time_step_rank": rank,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "vocab_size": vocabulary,
    }
    return write_shaped_gguf(path, "mamba", metadata, tensors)


def deepseek2_lite(path: Path) -> Path:
    """DeepSeek V2 Lite: latent attention keeps one vector a token, experts have most weights."""
    width, layers, heads, rank, rope, nope, value = 2048, 27, 16, 512, 64, 128, 128
    vocabulary, hidden, expert_hidden, experts = 102400, 10944, 1408, 64
    tensors: dict[str, tuple[Sequence[int], gguf.GGMLQuantizationType]] = {
        "token_embd.weight": ((width, vocabulary), Q4_K),
        "output.weight": ((width, vocabulary), Q4_K),
        "output_norm.weight": ((width,), F32),
    }
    for layer in range(layers):
        tensors |= {
            f"blk.{layer}.attn_norm.weight": ((width,), F32),
            f"blk.{layer}.ffn_norm.weight": ((width,), F32),
            f"blk.{layer}.attn_kv_a_norm.weight": ((rank,), F32),
            f"blk.{layer}.attn_q.weight": ((width, heads * (nope + rope)), Q4_K),
            f"blk.{layer}.attn_kv_a_mqa.weight": ((width, rank + rope), Q4_K),
            f"blk.{layer}.attn_k_b.weight": ((nope, rank, heads), Q8_0),
            f"blk.{layer}.attn_v_b.weight": ((rank, value, heads), Q8_0),
            f"blk.{layer}.attn_output.weight": ((heads * value, width), Q4_K),
        }
        if layer == 0:
            tensors |= {
                f"blk.{layer}.ffn_gate.weight": ((width, hidden), Q8_0),
                f"blk.{layer}.ffn_up.weight": ((width, hidden), Q8_0),
                f"blk.{layer}.ffn_down.weight": ((hidden, width), Q8_0),
            }
            continue
        tensors |= {
            f"blk.{layer}.ffn_gate_inp.weight": ((width, experts), F32),
            f"blk.{layer}.ffn_gate_exps.weight": ((width, expert_hidden, experts), Q4_K),
            f"blk.{layer}.ffn_up_exps.weight": ((width, expert_hidden, experts), Q4_K),
            f"blk.{layer}.ffn_down_exps.weight": ((expert_hidden, width, experts), Q8_0),
            f"blk.{layer}.ffn_gate_shexp.weight": ((width, 2 * expert_hidden), Q4_K),
            f"blk.{layer}.ffn_up_shexp.weight": ((width, 2 * expert_hidden), Q4_K),
            f"blk.{layer}.ffn_down_shexp.weight": ((2 * expert_hidden, width), Q8_0),
        }
    metadata = {
        "context_length": 163840,
        "embedding_length": width,
        "block_count": layers,
        "feed_forward_length": hidden,
        "expert_feed_forward_length": expert_hidden,
        "expert_count": experts,
        "expert_used_count": 6,
        "expert_shared_count": 2,
        "expert_weights_scale": 1.0,
        "leading_dense_block_count": 1,
        "attention.head_count": heads,
        "attention.head_count_kv": 1,
        "attention.key_length": rank + rope,
        "attention.value_length": rank,
        "attention.key_length_mla": nope + rope,
        "attention.value_length_mla": value,
        "attention.kv_lora_rank": rank,
        "rope.dimension_count": rope,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "vocab_size": vocabulary,
    }
    return write_shaped_gguf(path, "deepseek2", metadata, tensors)


def granite_hybrid(path: Path) -> Path:
    """Granite 4.0 H 1B or thereabouts: of ten layers one attends, nine are Mamba-2."""
    width, layers, heads, kv_heads, hidden, vocabulary = 1536, 40, 12, 4, 4096, 100352
    kernel, state, groups, ssm_heads = 4, 128, 1, 48
    inner, kv_width = 2 * width, width // heads * kv_heads
    attends = [layer % 10 == 5 for layer in range(layers)]
    tensors: dict[str, tuple[Sequence[int], gguf.GGMLQuantizationType]] = {
        "token_embd.weight": ((width, vocabulary), Q8_0),
        "output_norm.weight": ((width,), F32),
    }
    for layer in range(layers):
        block = f"blk.{layer}"
        tensors |= {
            f"{block}.attn_norm.weight": ((width,), F32),
            f"{block}.ffn_norm.weight": ((width,), F32),
            f"{block}.ffn_gate.weight": ((width, hidden), Q8_0),
            f"{block}.ffn_up.weight": ((width, hidden), Q8_0),
            f"{block}.ffn_down.weight": ((hidden, width), Q8_0),
        }
        if attends[layer]:
            tensors |= {
                f"{block}.attn_q.weight": ((width, width), Q8_0),
                f"{block}.attn_k.weight": ((width, kv_width), Q8_0),
                f"{block}.attn_v.weight": ((width, kv_width), Q8_0),
                f"{block}.attn_output.weight": ((width, width), Q8_0),
            }
            continue
        channels = inner + 2 * groups * state
        tensors |= {
            f"{block}.ssm_in.weight": ((width, inner + channels + ssm_heads), Q8_0),
            f"{block}.ssm_conv1d.weight": ((kernel, channels), F32),
            f"{block}.ssm_conv1d.bias": ((channels,), F32),
            f"{block}.ssm_dt.bias": ((ssm_heads,), F32),
            f"{block}.ssm_a": ((1, ssm_heads), F32),
            f"{block}.ssm_d": ((1, ssm_heads), F32),
            f"{block}.ssm_norm.weight": ((inner // groups, groups), F32),
            f"{block}.ssm_out.weight": ((inner, width), Q8_0),
        }
    metadata = {
        "context_length": 131072,
        "embedding_length": width,
        "block_count": layers,
        "feed_forward_length": hidden,
        "attention.head_count": heads,
        "attention.head_count_kv": [kv_heads if attending else 0 for attending in attends],
        "attention.layer_norm_rms_epsilon": 1e-5,
        "ssm.conv_kernel": kernel,
        "ssm.inner_size": inner,
        "ssm.state_size": state,
        "ssm.time_step_rank": ssm_heads,
        "ssm.group_count": groups,
        "rope.dimension_count": width // heads,
        "vocab_size": vocabulary,
    }
    return write_shaped_gguf(path, "granitehybrid", metadata, tensors)
