"""Forward and hand-written backward pass of a network, with about one operation per layer."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from distvae.models.state_decoder import FromBits

aten = torch.ops.aten
Slope = Callable[[Tensor, Tensor, Tensor], object]
"""Backpropagates through an activation: (gradient, argument, result), changing the gradient in
place.
"""

SLOPES: dict[type[nn.Module], Slope] = {
    nn.Tanh: lambda gradient, _, after: aten.tanh_backward(gradient, after, grad_input=gradient),
    nn.Sigmoid: lambda gradient, _, after: aten.sigmoid_backward(
        gradient, after, grad_input=gradient
    ),
    nn.ReLU: lambda gradient, _, after: aten.threshold_backward(
        gradient, after, 0, grad_input=gradient
    ),
    nn.LeakyReLU: lambda gradient, before, _: aten.leaky_relu_backward(
        gradient, before, nn.LeakyReLU().negative_slope, False, grad_input=gradient
    ),
    nn.SiLU: lambda gradient, before, _: aten.silu_backward(gradient, before, grad_input=gradient),
}


class Errors:
    """The gradients by the outputs of all linear layers, concatenated, for N rows.

    One sum over rows then gives the gradients of all biases.
    """

    def __init__(self, layers: Sequence[nn.Module], like: Tensor) -> None:
        self.layers = [layer for layer in layers if isinstance(layer, nn.Linear | FromBits)]
        self.widths = [layer.bias.numel() for layer in self.layers]
        size = len(like), sum(self.widths)
        self.all = torch.empty(size, dtype=like.dtype, device=like.device)
        parts = self.all.split(self.widths, 1)
        self.of: dict[nn.Module, Tensor] = dict(zip(self.layers, parts, strict=True))
        """The gradient (N, out) by the output of each layer."""
        self.last = parts[-1]

    def sum_rows(self) -> None:
        """Set the gradients of the biases that learn."""
        sums = self.all.sum(0).split(self.widths)
        for layer, gradient in zip(self.layers, sums, strict=True):
            if layer.bias.requires_grad:
                layer.bias.grad = gradient


def can_differentiate(layers: Sequence[nn.Module]) -> bool:
    """Return whether `backward` supports all layers."""
    return all(isinstance(layer, nn.Linear | FromBits) or type(layer) in SLOPES for layer in layers)


def forward(layers: Sequence[nn.Module], rows: Tensor) -> list[Tensor]:
    """Return a list of the rows (N, H) and the output of each layer."""
    values = [rows]
    for layer in layers:
        values.append(_apply(layer, values[-1]))
    return values


def _apply(layer: nn.Module, rows: Tensor) -> Tensor:
    if isinstance(layer, FromBits):
        return torch.addmm(layer.bias, rows, layer.weight)
    result: Tensor = layer(rows)
    return result


def backward(
    layers: Sequence[nn.Module], values: Sequence[Tensor], errors: Errors, to_input: bool = False
) -> Tensor:
    """Set the gradients of the weights that learn, and fill in the errors of the linear layers.

    On entry, the errors of the last linear layer hold the gradient by the network's output. Return
    the gradient by the input if `to_input` is true.
    """
    linear = [layer for layer in layers if isinstance(layer, nn.Linear | FromBits)]
    below = {layer: errors.of[lower] for lower, layer in pairwise(linear)}
    gradient = errors.of[linear[-1]]
    lowest = -1 if to_input else _lowest_that_learns(layers)
    for place in reversed(range(max(lowest, 0), len(layers))):
        layer, before, after = layers[place], values[place], values[place + 1]
        if not isinstance(layer, nn.Linear | FromBits):
            SLOPES[type(layer)](gradient, before, after)
            continue
        if layer.weight.requires_grad:
            _set_gradient(layer, before, gradient)
        if place > lowest:
            weight = layer.weight.T if isinstance(layer, FromBits) else layer.weight
            gradient = torch.mm(gradient, weight, out=below.get(layer))
    return gradient


def _lowest_that_learns(layers: Sequence[nn.Module]) -> int:
    """Return the place of the first layer with parameters that learn."""
    for place, layer in enumerate(layers):
        if any(parameter.requires_grad for parameter in layer.parameters()):
            return place
    return len(layers)


def _set_gradient(layer: nn.Linear | FromBits, before: Tensor, gradient: Tensor) -> None:
    """Set the gradient of the weights."""
    transposed = isinstance(layer, FromBits)
    layer.weight.grad = before.T @ gradient if transposed else gradient.T @ before
