"""The llama architecture in PyTorch, as llama.cpp computes it (RoPE on neighbouring pairs)."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

_WRITTEN_OUT_UP_TO = 256
_TRAINED = ("embedding", "attention", "feed_forward", "norms", "output_norm")


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The sizes of the network; they go into the GGUF as they stand."""

    vocabulary: int = 1280
    width: int = 192
    layers: int = 5
    heads: int = 6
    hidden: int = 480
    context: int = 2048
    rope_base: float = 10000.0
    epsilon: float = 1e-5

    @property
    def head_width(self) -> int:
        """The width of one attention head."""
        return self.width // self.heads


def _rotation(shape: Shape) -> tuple[Tensor, Tensor]:
    half = torch.arange(0, shape.head_width, 2, dtype=torch.float64) / shape.head_width
    angles = torch.outer(torch.arange(shape.context, dtype=torch.float64), shape.rope_base**-half)
    return angles.cos().float(), angles.sin().float()


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate neighbouring pairs of (batch, length, heads, head width)."""
    even, odd = x[..., 0::2], x[..., 1::2]
    cos, sin = cos[:, None, :], sin[:, None, :]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention; written out where that beats PyTorch's CPU kernel (short, training)."""
    length = q.size(2)
    if length > _WRITTEN_OUT_UP_TO:
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    mask = torch.full((length, length), -torch.inf).triu(1)
    scores = (q @ k.mT).float() * q.size(-1) ** -0.5 + mask
    return scores.softmax(-1).to(v.dtype) @ v


class Network:
    """A decoder with tied embeddings; all layers' matrices are stacked for a fast optimizer.

    `attention` is (layers, 4, width, width): query, key, value, output. `feed_forward` is
    (layers, 3, hidden, width): gate, up, and down transposed.
    """

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        layers, width = shape.layers, shape.width
        self.embedding = torch.randn(shape.vocabulary, width) * 0.02
        self.attention = torch.randn(layers, 4, width, width) * width**-0.5
        self.feed_forward = torch.randn(layers, 3, shape.hidden, width) * width**-0.5
        self.norms = torch.ones(layers, 2, width)
        self.output_norm = torch.ones(width)
        self.attention[:, 3] *= 0.1
        self.feed_forward[:, 2] *= 0.1
        for tensor in self.tensors().values():
            tensor.requires_grad_(True)
        self._cos, self._sin = _rotation(shape)

    def tensors(self) -> dict[str, Tensor]:
        """The trained tensors by name."""
        return {name: getattr(self, name) for name in _TRAINED}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take over the values of `tensors()`."""
        with torch.no_grad():
            for name, tensor in self.tensors().items():
                tensor.copy_(tensors[name])

    def hidden_states(self, tokens: Tensor) -> Tensor:
        """(batch, length) ids -> (batch, length, width) before the output matrix."""
        shape = self.shape
        batch, length = tokens.shape
        cos, sin = self._cos[:length], self._sin[:length]
        x = functional.embedding(tokens, self.embedding)
        layers = zip(
            self.attention.unbind(0), self.feed_forward.unbind(0), self.norms.unbind(0), strict=True
        )
        for attention, feed_forward, norms in layers:
            h = functional.rms_norm(x, (shape.width,), norms[0], shape.epsilon)
            qkv = functional.linear(h, attention[:3].reshape(3 * shape.width, shape.width))
            q, k, v = qkv.view(batch, length, 3, shape.heads, shape.head_width).unbind(2)
            q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
            mixed = _attend(
                q.to(v.dtype).transpose(1, 2), k.to(v.dtype).transpose(1, 2), v.transpose(1, 2)
            )
            x = x + functional.linear(
                mixed.transpose(1, 2).reshape(batch, length, -1), attention[3]
            )
            h = functional.rms_norm(x, (shape.width,), norms[1], shape.epsilon)
            both = functional.linear(h, feed_forward[:2].reshape(2 * shape.hidden, shape.width))
            gate, up = both.chunk(2, dim=-1)
            x = x + functional.linear(functional.silu(gate) * up, feed_forward[2].t())
        return functional.rms_norm(x, (shape.width,), self.output_norm, shape.epsilon)

    def logits(self, tokens: Tensor) -> Tensor:
        """(batch, length) ids -> (batch, length, vocabulary)."""
        return functional.linear(self.hidden_states(tokens), self.embedding)

    def loss(self, tokens: Tensor, places: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """The weighted mean loss at `places` (flat positions whose next token is an answer's)."""
        states = self.hidden_states(tokens).flatten(0, 1)[places]
        losses = functional.cross_entropy(
            functional.linear(states, self.embedding).float(), targets, reduction="none"
        )
        return (losses * weights).sum() / weights.sum()
