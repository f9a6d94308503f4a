"""What a model takes in memory under given settings: weights, caches, buffers. Pure.

The arithmetic is llama.cpp's for weights and caches, exact to its padding. Buffers for computing
are bounded by a formula that was fitted to what llama.cpp reserves for models from 2 M to 70 B
parameters (tests/integration/test_engine_fitting.py compares).
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from agent.engine.loading.model_shape import LayerShape, ModelShape

CacheType = Literal["f16", "f32", "q8_0"]

PADDING = 256
"""llama.cpp rounds a sequence's cells up to this."""

KIB, MIB, GIB = 1024, 1024**2, 1024**3
PROCESS_BYTES = 96 * MIB
"""Python, numpy and llama.cpp's code without a model: 50 MiB measured, and some room."""
VOCABULARY_ENTRY_BYTES = KIB
"""llama.cpp's tables and ours, per token."""

_CELL_BYTES: dict[CacheType, tuple[int, int]] = {"f16": (1, 2), "f32": (1, 4), "q8_0": (32, 34)}
"""Numbers in a block, bytes of a block."""


class Wanted(Struct, frozen=True, kw_only=True):
    """What is asked for. Zero (of layers -1) means: to be chosen."""

    slots: int = 0
    context_tokens: int = 0
    """Of all slots together."""
    batch_tokens: int = 0
    micro_batch_tokens: int = 0
    gpu_layers: int = -1
    cache_type: CacheType = "f16"
    flash_attention: bool = True
    unified: bool = False
    idle_sequences: int = 0
    """Sequences beside the slots'; recurrent models have a state for each."""
    whole_windows: bool = True
    """Layers that see a window keep everything all the same."""
    extra_host_bytes: int = 0
    """Of other things that are to come into main memory."""
    weights_are_in_memory: bool = False
    """The file lies on a file system in memory, which is counted as used already."""
    reduces_rows: bool = False
    """Rows of logits are reduced where the output layer is (docs/adr/0008)."""
    most_slots: int = 256
    """What llama.cpp was built for."""


class Need(Struct, frozen=True, kw_only=True):
    """Bytes, by what for."""

    weights: int = 0
    cache: int = 0
    computing: int = 0
    process: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.cache + self.computing + self.process


def needs(shape: ModelShape, plan: Wanted) -> tuple[Need, Need]:
    """What a plan with nothing left to choose takes in main memory and on the GPUs together."""
    first_on_gpu = len(shape.layers) + 1 - min(plan.gpu_layers, len(shape.layers) + 1)
    on_host, on_gpu = shape.layers[:first_on_gpu], shape.layers[first_on_gpu:]
    output_on_gpu = plan.gpu_layers > 0
    computing = _computing_bytes(shape, plan)
    weights = shape.input_bytes + (0 if output_on_gpu else shape.output_bytes)
    weights += sum(layer.weight_bytes for layer in on_host)
    host = Need(
        weights=0 if plan.weights_are_in_memory else weights,
        cache=_cache_bytes(shape, plan, on_host),
        computing=computing if on_host or not output_on_gpu else _transfer_bytes(shape, plan),
        process=PROCESS_BYTES
        + plan.extra_host_bytes
        + shape.vocabulary * (VOCABULARY_ENTRY_BYTES + _output_bytes(plan))
        + 4 * plan.slots * shape.width,
    )
    gpus = Need(
        weights=(shape.output_bytes + shape.tied_bytes if output_on_gpu else 0)
        + sum(layer.weight_bytes for layer in on_gpu),
        cache=_cache_bytes(shape, plan, on_gpu),
        computing=computing if output_on_gpu else 0,
    )
    return host, gpus


def _output_bytes(plan: Wanted) -> int:
    """Of the rows that come out of a decode, per token of the vocabulary.

    Reduced ones have room for a logit, a probability, an id and a candidate, of each sequence.
    """
    if not plan.reduces_rows:
        return 4 * plan.slots
    return 16 * (plan.slots + (plan.idle_sequences if plan.unified else 0))


def _cells(plan: Wanted) -> tuple[int, int]:
    """Cells of a stream, and streams: a stream is one sequence, or all of them."""
    padded = _padded(plan.context_tokens)
    if plan.unified:
        return padded, 1
    return _padded(padded // plan.slots), plan.slots


def _padded(tokens: int) -> int:
    return -(-tokens // PADDING) * PADDING


def _cache_bytes(shape: ModelShape, plan: Wanted, layers: tuple[LayerShape, ...]) -> int:
    cells, streams = _cells(plan)
    seen = shape.window * (plan.slots + plan.idle_sequences if plan.unified else 1)
    window = min(cells, _padded(min(cells, seen + plan.micro_batch_tokens)))
    # without flash attention values are kept transposed, in rows of the widest layer's length
    widest = 0 if plan.flash_attention else max((layer.values for layer in layers), default=0)
    total = 0
    for layer in layers:
        kept = window if layer.windowed and not plan.whole_windows else cells
        values = max(layer.values, widest) if layer.values else 0
        numbers = layer.keys + values
        total += kept * streams * _as_bytes(numbers, plan.cache_type)
        total += layer.state * 4 * (plan.slots + plan.idle_sequences)
    return total


def _as_bytes(numbers: int, kind: CacheType) -> int:
    block, block_bytes = _CELL_BYTES[kind]
    return -(-numbers // block) * block_bytes


def _computing_bytes(shape: ModelShape, plan: Wanted) -> int:
    """Buffers of the largest batch: the widest of its stages, and the masks, which live throughout.

    Fitted to llama.cpp's reservations, at most a quarter too large for the models of the tests.
    """
    cells, _ = _cells(plan)
    tokens = min(plan.micro_batch_tokens, cells)
    attention = shape.heads * shape.head_width
    stages = (
        shape.vocabulary + 2 * shape.width,
        4 * shape.feed_forward + 2 * shape.width,
        8 * attention + (0 if plan.flash_attention else shape.heads * cells),
        8 * shape.state_width,
    )
    has_cache = any(layer.keys for layer in shape.layers)
    masks = (2 if plan.flash_attention else 4) * cells * has_cache * (2 if shape.window else 1)
    return tokens * (4 * max(stages) + masks) * 9 // 8 + 4 * MIB


def _transfer_bytes(shape: ModelShape, plan: Wanted) -> int:
    """What the host holds ready for GPUs that compute everything: inputs and masks."""
    cells, _ = _cells(plan)
    masks = 4 * cells * (2 if shape.window else 1)
    return min(plan.micro_batch_tokens, cells) * (4 * 4 * shape.width + masks) + 4 * MIB
