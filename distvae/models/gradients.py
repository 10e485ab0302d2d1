"""Gradients of binary models that are not left to torch, because their outputs are known or sparse.

The compiled loops of `kernels` are used on the CPU where numba is installed.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol

import torch
from torch import Tensor


def kernels(tensor: Tensor) -> Any:
    """Return the compiled loops, or None without numba or for tensors not on the CPU."""
    return _compiled() if tensor.device.type == "cpu" else None


@lru_cache
def _compiled() -> Any:
    try:
        from distvae.models import kernels
    except ImportError:
        return None
    return kernels


class Context(Protocol):
    """The part of autograd's context that carries tensors from forward to backward."""

    saved_tensors: tuple[Tensor, ...]
    latent: int

    def save_for_backward(self, *tensors: Tensor) -> None:
        """Keep tensors for the backward pass."""


class _KnownLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Context, x: Tensor, weight: Tensor, bias: Tensor, output: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Context, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        return gradient @ weight, gradient.T @ x, gradient.sum(0), None


known_linear: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] = _KnownLinear.apply
"""A linear layer (x, weight, bias) of which the output is known: only its gradient is computed."""


class _RowSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Context, rows: Tensor, shift: Tensor, words: Tensor) -> Tensor:
        ctx.save_for_backward(words)
        ctx.latent = len(rows)
        operands = (t.detach().numpy() for t in (rows, shift, words))
        return torch.from_numpy(kernels(rows).gather(*operands))

    @staticmethod
    def backward(ctx: Context, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        (words,) = ctx.saved_tensors
        total = kernels(gradient).scatter(gradient.contiguous().numpy(), words.numpy(), ctx.latent)
        return torch.from_numpy(total), gradient.sum(0), None


row_sums: Callable[[Tensor, Tensor, Tensor], Tensor] = _RowSums.apply
"""The sums (U, K) of the rows (H, K) at the active bits of words (U, W), and a shift (K,)."""


class _Distances(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Context,
        output: Tensor,
        value: Tensor,
        x: Tensor,
        observed: Tensor,
        place: Tensor,
        weight: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(output, x, observed, place, weight)
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Context, gradient: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        output, x, observed, place, weight = ctx.saved_tensors
        factor = -gradient[:, None] * weight
        operands = (t.numpy() for t in (x, observed, output, place, factor))
        return torch.from_numpy(kernels(x).pull(*operands)), None, None, None, None, None


distance_gradient: Callable[..., Tensor] = _Distances.apply
"""Given (output, value, x, observed, place, weight): the values (B,), with the gradient by the
output (U, D) of minus half the weighted sum of the squared distances between x and the output.
"""
