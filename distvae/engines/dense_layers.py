"""Dense layers with their gradients by hand: products of matrices into buffers that are kept, and
compiled loops between them.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distvae.engines import encoder_kernels as loops
from distvae.numerics.array_types import Floats

LINE = 64
"""The bytes of a line of cache, at which every gradient begins."""
Forward = Callable[[Floats], None]
Backward = Callable[[Floats, Floats, Floats], None]


class Buffer:
    """A matrix that torch and compiled loops fill."""

    def __init__(self, rows: int, width: int, dtype: torch.dtype) -> None:
        self.tensor = torch.empty(rows, width, dtype=dtype)
        self.values: Floats = self.tensor.numpy()

    def move(self, place: Tensor) -> None:
        """Keep the matrix in another place from now on, without its values."""
        self.tensor, self.values = place, place.numpy()


class FlatGradients:
    """The gradients of parameters, beside each other in one buffer."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        step = LINE // self.parameters[0].itemsize
        sizes = [math.ceil(parameter.numel() / step) * step for parameter in self.parameters]
        self.flat = torch.zeros(sum(sizes), dtype=self.parameters[0].dtype)
        self.views: dict[int, Tensor] = {}
        for parameter, part in zip(self.parameters, self.flat.split(sizes), strict=True):
            self.views[id(parameter)] = part[: parameter.numel()].view_as(parameter)

    def of(self, parameter: Tensor) -> Tensor:
        """Return the place of a gradient; one that nobody reads if the parameter does not learn."""
        if id(parameter) in self.views:
            return self.views[id(parameter)]
        return torch.empty_like(parameter)

    def move(self, parameter: Tensor, place: Tensor) -> None:
        """Keep the gradient of a parameter in another place from now on, if it learns."""
        if id(parameter) in self.views:
            self.views[id(parameter)] = place

    def assign(self) -> None:
        """Make these the gradients of the parameters."""
        for parameter in self.parameters:
            parameter.grad = self.views[id(parameter)]


@dataclass(frozen=True)
class Weights:
    """A linear layer without a state of its own, and the activation behind it."""

    weight: Tensor
    """(out, in)."""
    bias: Tensor | None = None
    activation: nn.Module | None = None


class Layer:
    """A linear layer and its activation on a number of rows."""

    def __init__(self, weights: Weights, rows: int, gradients: FlatGradients) -> None:
        self.weight, self.bias = weights.weight, weights.bias
        out, width = self.weight.shape
        self.output = Buffer(rows, out, self.weight.dtype)
        self.below = Buffer(rows, width, self.weight.dtype)
        self.input = self.below.tensor
        self.learns = self.weight.requires_grad
        self.weight_gradient = gradients.of(self.weight)
        bias = self.weight.new_empty(out) if self.bias is None else gradients.of(self.bias)
        self.bias_gradient: Floats = bias.detach().numpy()
        self.activate, self.deactivate = _activation_loops(weights.activation)

    def forward(self, x: Tensor) -> Buffer:
        """Return the activations (B, out) of an input (B, in)."""
        self.input = x
        if self.bias is None:
            torch.mm(x, self.weight.T, out=self.output.tensor)
        else:
            torch.addmm(self.bias, x, self.weight.T, out=self.output.tensor)
        self.activate(self.output.values)
        return self.output

    def backward(self, gradient: Buffer) -> None:
        """Fill the gradients of the weights, given that of the activations, which is used up."""
        self.deactivate(self.output.values, gradient.values, self.bias_gradient)
        if self.learns:
            torch.mm(gradient.tensor.T, self.input, out=self.weight_gradient)

    def backward_to_input(self, gradient: Buffer) -> Buffer:
        """Fill the gradients of the weights, and return the gradient of the input."""
        self.backward(gradient)
        torch.mm(gradient.tensor, self.weight, out=self.below.tensor)
        return self.below


class Layers:
    """A net of dense layers on a number of rows."""

    def __init__(self, weights: Sequence[Weights], rows: int, gradients: FlatGradients) -> None:
        self.layers = [Layer(each, rows, gradients) for each in weights]
        self.output = self.layers[-1].output
        self.below = self.layers[0].below
        """The gradient of the input, once it was computed."""

    def forward(self, x: Tensor) -> Buffer:
        """Return the output of the last layer."""
        output = self.layers[0].forward(x)
        for layer in self.layers[1:]:
            output = layer.forward(output.tensor)
        return output

    def backward(self, gradient: Buffer) -> None:
        """Fill the gradients of all weights, given that of the output."""
        for layer in self.layers[:0:-1]:
            gradient = layer.backward_to_input(gradient)
        self.layers[0].backward(gradient)

    def backward_to_input(self, gradient: Buffer) -> Buffer:
        """Fill the gradients of the weights, and return the gradient of the input."""
        for layer in self.layers[::-1]:
            gradient = layer.backward_to_input(gradient)
        return gradient


def find_weights(net: nn.Module) -> list[Weights] | None:
    """Return the layers of a net in order, or None if there is anything but dense layers."""
    if type(net) is not nn.Sequential:
        return None
    found: list[Weights] = []
    for linear, activation in _pairs([*net]):
        if type(linear) is not nn.Linear or not _is_known(activation):
            return None
        found.append(Weights(linear.weight, linear.bias, activation))
    return found


def _pairs(modules: Sequence[nn.Module]) -> Iterator[tuple[nn.Module, nn.Module | None]]:
    """Yield every other module with the one behind it."""
    for place in range(0, len(modules), 2):
        behind = modules[place + 1] if place + 1 < len(modules) else None
        yield modules[place], behind


def _is_known(activation: nn.Module | None) -> bool:
    return activation is None or type(activation) in (nn.Tanh, nn.ReLU, nn.LeakyReLU)


def _activation_loops(activation: nn.Module | None) -> tuple[Forward, Backward]:
    """Return the loops of an activation, forward and backward."""
    if activation is None:
        return _leave, _sum_rows
    if isinstance(activation, nn.Tanh):
        return loops.hyperbolic, loops.below_tanh
    slope = activation.negative_slope if isinstance(activation, nn.LeakyReLU) else 0.0
    return _rectifier(slope)


def _leave(values: Floats) -> None:
    """Do nothing: a layer without an activation."""


def _sum_rows(output: Floats, gradient: Floats, bias: Floats) -> None:
    loops.sum_rows(gradient, bias)


def _rectifier(slope: float) -> tuple[Forward, Backward]:
    def forward(values: Floats) -> None:
        loops.rectify(values, slope)

    def backward(output: Floats, gradient: Floats, bias: Floats) -> None:
        loops.below_rectifier(output, gradient, bias, slope)

    return forward, backward
