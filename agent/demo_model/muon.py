"""Muon: momentum whose update is orthogonalised (Newton-Schulz), for stacks of matrices.

Source: Keller Jordan, "Muon: an optimizer for hidden layers in neural networks" (2024).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from protocol.invariants import present

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalised(stack: Tensor, steps: int = 5) -> Tensor:
    """The nearest (roughly) orthogonal matrices of a (count, rows, columns) stack, in bfloat16."""
    a, b, c = _COEFFICIENTS
    x = stack.bfloat16()
    tall = x.size(-2) > x.size(-1)
    x = x.mT.contiguous() if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon:
    """For tensors whose last two dimensions are matrices; one learning rate for all."""

    def __init__(self, tensors: Sequence[Tensor], momentum: float = 0.95) -> None:
        self.tensors = tensors
        self.momenta = [torch.zeros_like(tensor) for tensor in tensors]
        self._momentum = momentum

    def step(self, rate: float) -> None:
        """One update from the gradients, which are dropped."""
        with torch.no_grad():
            for tensor, momentum in zip(self.tensors, self.momenta, strict=True):
                gradient = present(tensor.grad)
                momentum.lerp_(gradient, 1 - self._momentum)
                update = gradient.lerp(momentum, self._momentum)
                rows, columns = update.shape[-2:]
                scale = max(1.0, rows / columns) ** 0.5
                step = orthogonalised(update.view(-1, rows, columns)).to(tensor.dtype)
                tensor.add_(step.view_as(tensor), alpha=-rate * scale)
                tensor.grad = None
