"""The decoder of a binary model. It decodes each distinct state once."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from distvae.config import TVAEModel
from distvae.models.nets import mlp
from distvae.models.population import States

CACHED = 2**18  # activations of a layer that fit in the CPU's cache


class Context(Protocol):
    """The part of autograd's context that stores tensors for the backward pass."""

    saved_tensors: tuple[Tensor, ...]

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
"""A linear layer (x, weight, bias) with a precomputed output: only the gradient is computed."""


class FromBits(nn.Module):
    """A linear layer on states. It adds up the rows of its weights (H, K) at active bits."""

    def __init__(self, latent: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(latent, width)))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, z: Tensor | States) -> Tensor:
        """(..., H) -> (..., K)."""
        if isinstance(z, Tensor):
            return z @ self.weight + self.bias
        return z.linear(self.weight, self.bias)


class StateDecoder(nn.Sequential):
    """A multilayer perceptron on binary states."""

    def __init__(self, config: TVAEModel, dims: int) -> None:
        layers = mlp(config.latent, config.hidden, dims, config.activation)
        layers[0] = FromBits(config.latent, (*config.hidden, dims)[0])
        if config.output == "sigmoid":
            layers.append(nn.Sigmoid())
        super().__init__(*layers)
        self.widest = max((*config.hidden, dims))
        self.begins_linear = bool(config.linear and config.hidden)
        for layer in self:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        if self.begins_linear:
            for layer in self.hidden:
                # Unlike eye, this is cheap on torch's meta device, which counts parameters.
                nn.init.zeros_(layer.weight).detach().fill_diagonal_(1.0)

    @property
    def linear(self) -> list[nn.Linear | FromBits]:
        """The linear layers."""
        return [layer for layer in self if isinstance(layer, nn.Linear | FromBits)]

    @property
    def hidden(self) -> list[nn.Linear | FromBits]:
        """All linear layers except the last."""
        return self.linear[:-1]

    @property
    def passes_bits(self) -> bool:
        """True while all hidden layers are the identity, so that the last layer decodes bits."""
        return self.begins_linear and all(_is_identity(layer) for layer in self.hidden)

    def with_gradient(self, states: States, output: Tensor) -> Tensor:
        """Return the precomputed output for states, connected to autograd."""
        *inner, last = self
        if not isinstance(last, nn.Linear):
            again: Tensor = self(states)
            return again
        hidden: Tensor = nn.Sequential(*inner)(states)
        return known_linear(hidden, last.weight, last.bias, output)


def _is_identity(layer: nn.Linear | FromBits) -> bool:
    identity = nn.init.eye_(torch.empty_like(layer.weight))
    return torch.equal(layer.weight, identity) and not layer.bias.any()
