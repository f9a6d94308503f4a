"""What a model's GGUF header means for memory: weights and cache, layer by layer. Pure.

Follows llama.cpp's reading of the metadata (llama-hparams.cpp, the KV caches, src/models). Where an
architecture keeps less than this knows of, the figures are too large, never too small.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from msgspec import Struct

from agent.engine.loading.gguf_file import GgufHeader, Tensor, Value
from agent.errors import ModelRejected

MAX_LAYERS = 4096

# Of every n layers the last attends to everything, the others to a window; metadata may say
# otherwise, and of an architecture that is not here a window is not believed.
_WINDOW_PATTERNS: dict[str, int] = {
    **dict.fromkeys(("gemma2", "gpt-oss"), 2),
    **dict.fromkeys(("cohere2", "exaone4", "exaone-moe", "llama4", "olmo2", "afmoe"), 4),
    "gemma3n": 5,
    "gemma3": 6,
}
_DEFAULT_WINDOWS = {"gemma2": 4096, "exaone4": 4096, "exaone-moe": 128, "llama4": 8192}
_GEMMA3N_LAYERS_WITH_CACHE = 20
_LAYER = re.compile(r"blk\.(\d{1,6})\.(.+)")
_STATE_TENSORS = ("ssm_", "time_mix_", "shortconv")
_CACHE_TENSORS = ("attn_k", "attn_v")
_OUTPUT_TENSORS = ("output", "cls")


class LayerShape(Struct, frozen=True, kw_only=True):
    """One repeating layer."""

    weight_bytes: int = 0
    keys: int = 0
    """Numbers kept per token; 0: this layer has no cache of tokens."""
    values: int = 0
    windowed: bool = False
    state: int = 0
    """Numbers (float32) kept per sequence, whatever its length."""


class ModelShape(Struct, frozen=True, kw_only=True):
    """A model as far as memory is concerned."""

    architecture: str
    trained_tokens: int
    vocabulary: int
    width: int
    feed_forward: int
    """Of one token: in a mixture, of all experts that it meets."""
    heads: int
    head_width: int
    state_width: int
    """Numbers that a token occupies within a recurrent layer."""
    layers: tuple[LayerShape, ...]
    window: int = 0
    """Tokens that windowed layers see."""
    input_bytes: int = 0
    """Always in main memory."""
    output_bytes: int = 0
    tied_bytes: int = 0
    """Of the input's, what the output uses too: on a GPU it is there a second time."""

    @property
    def weight_bytes(self) -> int:
        """All weights."""
        return self.input_bytes + self.output_bytes + sum(x.weight_bytes for x in self.layers)


def shape_of(header: GgufHeader) -> ModelShape:
    """Raises `ModelRejected` if the metadata lack what every model has."""
    facts = _Facts(header)
    count = facts.number("block_count")
    width, trained = facts.number("embedding_length"), facts.number("context_length")
    if not (0 < count <= MAX_LAYERS and width > 0 and trained > 0):
        raise ModelRejected(
            f"The model file describes {count} layers of width {width} for {trained} tokens: "
            "it is no language model, or it was converted wrongly."
        )
    tensors = _by_layer(header.tensors, count)
    window = facts.number("attention.sliding_window", _DEFAULT_WINDOWS.get(facts.architecture, 0))
    windowed = _windowed(facts, count) if window else [False] * count
    layers = tuple(
        _layer(facts, tensors[layer], layer, windowed=windowed[layer]) for layer in range(count)
    )
    outside = [tensor for tensor in header.tensors if not _LAYER.match(tensor.name)]
    output = sum(t.size_bytes for t in outside if t.name.startswith(_OUTPUT_TENSORS))
    has_output = any(tensor.name == "output.weight" for tensor in outside)
    embedding = sum(t.size_bytes for t in outside if t.name == "token_embd.weight")
    experts = facts.number("expert_used_count") + facts.number("expert_shared_count")
    return ModelShape(
        architecture=facts.architecture,
        trained_tokens=trained,
        vocabulary=header.counts.get("tokenizer.ggml.tokens") or facts.number("vocab_size"),
        width=width,
        feed_forward=max(
            facts.number("feed_forward_length"),
            facts.number("expert_feed_forward_length") * experts,
        ),
        heads=facts.number("attention.head_count"),
        head_width=facts.number("attention.key_length")
        or width // max(facts.number("attention.head_count"), 1),
        state_width=facts.number("ssm.inner_size"),
        layers=layers,
        window=window if any(layer.windowed for layer in layers) else 0,
        input_bytes=sum(tensor.size_bytes for tensor in outside) - output,
        output_bytes=output,
        tied_bytes=0 if has_output else embedding,
    )


class _Facts:
    """The metadata of the model's own architecture, read as numbers."""

    def __init__(self, header: GgufHeader) -> None:
        self._metadata = header.metadata
        self.architecture = str(header.metadata.get("general.architecture", ""))

    def get(self, key: str) -> Value:
        return self._metadata.get(f"{self.architecture}.{key}")

    def number(self, key: str, otherwise: int = 0) -> int:
        """A number; of an array the largest."""
        value = self.get(key)
        numbers = value if isinstance(value, tuple) else (value,)
        known = [item for item in numbers if isinstance(item, int)]
        return max(known, default=otherwise)

    def per_layer(self, key: str, count: int, otherwise: int = 0) -> list[int]:
        """A number for each layer; a single one is for all."""
        value = self.get(key)
        if not isinstance(value, tuple):
            return [self.number(key, otherwise)] * count
        known = [item if isinstance(item, int) else 0 for item in value[:count]]
        return known + [otherwise] * (count - len(known))


def _by_layer(tensors: Sequence[Tensor], count: int) -> list[list[tuple[str, int]]]:
    """Names (within the layer) and sizes of each layer's tensors."""
    layers: list[list[tuple[str, int]]] = [[] for _ in range(count)]
    for tensor in tensors:
        found = _LAYER.match(tensor.name)
        if found and int(found[1]) < count:
            layers[int(found[1])].append((found[2], tensor.size_bytes))
    return layers


def _windowed(facts: _Facts, count: int) -> list[bool]:
    """Which layers see a window only."""
    listed = facts.get("attention.sliding_window_pattern")
    if isinstance(listed, tuple):
        return (list(map(bool, listed)) + [False] * count)[:count]
    every = _WINDOW_PATTERNS.get(facts.architecture)
    if every is None:
        return [False] * count
    every = max(facts.number("attention.sliding_window_pattern", every), 1)
    return [layer % every != every - 1 for layer in range(count)]


def _layer(
    facts: _Facts, tensors: Sequence[tuple[str, int]], layer: int, *, windowed: bool
) -> LayerShape:
    names = [name for name, _ in tensors]
    state = any(name.startswith(_STATE_TENSORS) for name in names)
    caches = any(
        name.startswith(_CACHE_TENSORS) or (name.startswith("attn_qkv") and not state)
        for name in names
    )
    keys = values = 0
    if caches and _has_own_cache(facts, names, layer):
        keys, values = _cache_numbers(facts, layer, windowed=windowed)
    return LayerShape(
        weight_bytes=sum(size for _, size in tensors),
        keys=keys,
        values=values,
        windowed=windowed and keys > 0,
        state=_state_numbers(facts) if state else 0,
    )


def _has_own_cache(facts: _Facts, names: Sequence[str], layer: int) -> bool:
    """Layers that predict further tokens are left out, and some share an earlier layer's cache."""
    count = facts.number("block_count")
    if any(name.startswith("nextn.") for name in names):
        return False
    if facts.architecture == "gemma3n":
        return layer < _GEMMA3N_LAYERS_WITH_CACHE
    return layer < count - facts.number("attention.shared_kv_layers")


def _cache_numbers(facts: _Facts, layer: int, *, windowed: bool) -> tuple[int, int]:
    """Numbers of keys and of values that a token costs in this layer.

    Multi-head latent attention keeps one compressed vector, no values.
    """
    count = facts.number("block_count")
    heads = facts.per_layer("attention.head_count", count)
    kv_heads = facts.per_layer("attention.head_count_kv", count, max(heads))[layer]
    if not kv_heads:
        return 0, 0
    default = facts.number("embedding_length") // max(heads[0], 1)
    key = facts.number("attention.key_length", default)
    value = facts.number("attention.value_length", default)
    if windowed:
        key = facts.number("attention.key_length_swa", key)
        value = facts.number("attention.value_length_swa", value)
    if facts.number("attention.key_length_mla"):
        return key * kv_heads, 0
    return key * kv_heads, value * kv_heads


def _state_numbers(facts: _Facts) -> int:
    """Numbers that a sequence costs in a recurrent layer: RWKV, LFM2, Kimi's KDA, or Mamba."""
    width, heads = facts.number("embedding_length"), facts.number("attention.head_count")
    if head := facts.number("wkv.head_size"):
        return facts.number("token_shift_count", 2) * width + width * head
    if kernel := facts.number("shortconv.l_cache"):
        return width * (kernel - 1)
    convolution = max(facts.number("ssm.conv_kernel", 1) - 1, 0)
    if head := facts.number("kda.head_dim"):
        return 3 * (convolution or 3) * heads * head + head * head * heads
    inner, state = facts.number("ssm.inner_size"), facts.number("ssm.state_size")
    groups = facts.number("ssm.group_count")
    return convolution * (inner + 2 * groups * state) + state * inner
