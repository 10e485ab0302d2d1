"""What engines on a GPU share: networks with hand-written backward passes, in about one operation
per layer, and sums over rows that are computed for many steps at once.

On a GPU, every operation costs a kernel launch, however few rows it has. No gradient needs the sums
over rows.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Generic, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from distvae.interface import Engine, Sums
from distvae.models.nets import FromBits

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
        if isinstance(layer, FromBits):
            values.append(torch.addmm(layer.bias, values[-1], layer.weight))
        else:
            values.append(layer(values[-1]))
    return values


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
    learning = [
        place
        for place, layer in enumerate(layers)
        if any(p.requires_grad for p in layer.parameters())
    ]
    lowest = -1 if to_input else min(learning, default=len(layers))
    for place in reversed(range(max(lowest, 0), len(layers))):
        layer, before, after = layers[place], values[place], values[place + 1]
        if not isinstance(layer, nn.Linear | FromBits):
            SLOPES[type(layer)](gradient, before, after)
            continue
        transposed = isinstance(layer, FromBits)
        if layer.weight.requires_grad:
            layer.weight.grad = before.T @ gradient if transposed else gradient.T @ before
        if place > lowest:
            weight = layer.weight.T if transposed else layer.weight
            gradient = torch.mm(gradient, weight, out=below.get(layer))
    return gradient


@runtime_checkable
class SumsLater(Engine, Protocol):
    """An engine that returns the sums of many steps at once.

    The sum `finite` counts the steps before the first step with an objective that is not finite.
    """

    def sums(self) -> Sums:
        """Return the sums over the batches of all accumulated steps."""


@runtime_checkable
class Refreshes(Protocol):
    """An engine that caches values derived from parameters with closed-form updates."""

    def refresh(self) -> None:
        """Update the cached values in place, before a recorded step is replayed."""


SUMMED = 8192
"""The number of accumulated rows at which sums are computed."""

Left = TypeVar("Left", bound=tuple[Tensor | None, ...])
"""A named tuple of tensors, with the rows of a batch as first dimension."""


class Waiting(Generic[Left]):
    """The values of the steps since the last sums."""

    def __init__(self, kind: Callable[..., Left]) -> None:
        self.kind = kind
        self.steps: list[Left] = []

    def add(self, left: Left) -> None:
        """Add the values of a step."""
        self.steps.append(left)

    @property
    def is_full(self) -> bool:
        """True once enough rows have accumulated."""
        return sum(map(_rows, self.steps)) >= SUMMED

    def take(self) -> tuple[Left, int] | None:
        """Return the concatenated values of all steps, and the rows of the first step.

        Return None without steps.
        """
        if not self.steps:
            return None
        steps, self.steps = self.steps, []
        joined = [_joined(parts) for parts in zip(*steps, strict=True)]
        return self.kind(*joined), _rows(steps[0])


def finite_steps(objective: Tensor, rows: int) -> Tensor:
    """Return the number of steps, of `rows` rows each, before the first objective that is not
    finite.
    """
    finite_rows = objective.isfinite().cumprod(0).sum()
    return finite_rows // rows


def _rows(left: tuple[Tensor | None, ...]) -> int:
    assert left[0] is not None
    return len(left[0])


def _joined(parts: tuple[Tensor | None, ...]) -> Tensor | None:
    """Concatenate the rows of all steps, or return None if a field is None in all steps."""
    known = [part for part in parts if part is not None]
    return torch.cat(known) if known else None


def free_memory(device: torch.device) -> float:
    """Return the free bytes of a device, or infinity if it is not a CUDA device."""
    if device.type != "cuda":
        return float("inf")
    return float(torch.cuda.mem_get_info(device)[0])


def allocated_memory(device: torch.device) -> int:
    """Return the largest number of bytes that torch had allocated on a CUDA device, otherwise 0."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
