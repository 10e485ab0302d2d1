"""Several trainings of models with an encoder as one, whose products are computed together.

Each training has parameters, draws and loops of its own. Only products are computed together, and
only those that then have the same bits as alone. So a training does not depend on the others.
Weights and the operands of products lie beside each other: (T, ...) for T trainings.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from distvae.engines.dense_layers import Buffer, FlatGradients, Layer, Layers, Weights
from distvae.engines.encoder_pass import Net, Pass
from distvae.engines.protocols import Request
from distvae.engines.stacked_products import Product, lay_out
from distvae.interface import Engine, Sums


class EncoderStack:
    """Engines of several trainings whose layers have the same shapes."""

    def __init__(self, engines: Sequence[Engine], nets: Sequence[Net]) -> None:
        self.engines, self.nets = engines, nets
        gradients = [net.gradients for net in nets]
        self.encoder = _stack_nets([net.encoder for net in nets], gradients)
        self.decoder = _stack_nets([net.decoder for net in nets], gradients)
        self.passes: dict[int, StackedPass] = {}

    @torch.no_grad()
    def differentiate(self, requests: Sequence[Request]) -> list[Sums]:
        """Set the gradients of all trainings, and return their sums.

        Batches of different sizes, as at the end of an epoch, are computed one by one.
        """
        sizes = {len(request.batch.x) for request in requests}
        if len(sizes) > 1:
            pairs = zip(self.engines, requests, strict=True)
            return [engine.differentiate(*request) for engine, request in pairs]
        for net in self.nets:
            net.gradients.assign()
        return self._pass(sizes.pop()).differentiate(requests)

    def _pass(self, rows: int) -> "StackedPass":
        if rows not in self.passes:
            self.passes[rows] = StackedPass(self, rows)
        return self.passes[rows]


class StackedPass:
    """Forward and backward on a number of rows of each training."""

    def __init__(self, stack: EncoderStack, rows: int) -> None:
        self.passes = [Pass(net, rows) for net in stack.nets]
        self.inputs = stack_buffers([each.inputs for each in self.passes])
        codes = stack_buffers([each.latents.z for each in self.passes])
        heads = stack_buffers([each.latents.out for each in self.passes])
        encoders = [each.encoder for each in self.passes]
        self.encoder = StackedLayers(encoders, stack.encoder, self.inputs)
        self.decoder = StackedLayers([each.decoder for each in self.passes], stack.decoder, codes)
        self.encoder.connect([each.latents.out for each in self.passes], heads)
        # densities replace the output by its gradient
        self.decoder.connect([each.decoder.output for each in self.passes], self.decoder.output)

    def differentiate(self, requests: Sequence[Request]) -> list[Sums]:
        """Fill the gradients, and return the sums over each batch."""
        pairs = list(zip(self.passes, requests, strict=True))
        for each, request in pairs:
            transformed = each.transform(request.batch)
            if transformed is not each.inputs.tensor:
                each.inputs.tensor.copy_(transformed)
        self.encoder.forward()
        for each, request in pairs:
            each.draw(request.noise)
        self.decoder.forward()
        for each, request in pairs:
            each.score(*request)
        self.decoder.backward_to_input()
        for each, request in pairs:
            each.pull(request.rows)
        self.encoder.backward()
        return [each.conclude(request.rows) for each, request in pairs]


class StackedWeights(NamedTuple):
    """A layer of all trainings."""

    weight: Tensor
    """(T, out, in)."""
    bias: Tensor | None
    """(T, 1, out)."""
    gradient: Tensor
    """(T, out, in), of the weight."""


class StackedLayer:
    """A layer of all trainings, on a number of rows of each."""

    def __init__(self, layers: Sequence[Layer], weights: StackedWeights, inputs: Tensor) -> None:
        self.layers, self.weights, self.inputs = layers, weights, inputs
        self.output = stack_buffers([layer.output for layer in layers])
        self.below = stack_buffers([layer.below for layer in layers])
        self.product = Product(inputs, weights.weight.mT, self.output, weights.bias)

    def connect(self, gradients: Sequence[Buffer], gradient: Tensor) -> None:
        """Say where the gradient of the activations will be."""
        self.gradients = gradients
        self.weight_product = Product(gradient.mT, self.inputs, self.weights.gradient)
        self.input_product = Product(gradient, self.weights.weight, self.below)

    def forward(self) -> None:
        """Fill the activations."""
        self.product.compute()
        for layer in self.layers:
            layer.activate(layer.output.values)

    def backward(self) -> None:
        """Fill the gradients of the weights, and use up that of the activations."""
        for layer, gradient in zip(self.layers, self.gradients, strict=True):
            layer.deactivate(layer.output.values, gradient.values, layer.bias_gradient)
        if self.layers[0].learns:
            self.weight_product.compute()


class StackedLayers:
    """A net of all trainings, on a number of rows of each."""

    def __init__(
        self, nets: Sequence[Layers], weights: Sequence[StackedWeights], inputs: Tensor
    ) -> None:
        self.layers: list[StackedLayer] = []
        columns = zip(*(net.layers for net in nets), strict=True)
        for layers, each in zip(columns, weights, strict=True):
            self.layers.append(StackedLayer(layers, each, inputs))
            inputs = self.layers[-1].output
        self.output = inputs

    def connect(self, gradients: Sequence[Buffer], gradient: Tensor) -> None:
        """Say where the gradient of the output will be."""
        for layer in self.layers[::-1]:
            layer.connect(gradients, gradient)
            gradients, gradient = [each.below for each in layer.layers], layer.below

    def forward(self) -> None:
        """Fill the output, given the input."""
        for layer in self.layers:
            layer.forward()

    def backward(self) -> None:
        """Fill the gradients of all weights, given that of the output."""
        for layer in self.layers[:0:-1]:
            layer.backward()
            layer.input_product.compute()
        self.layers[0].backward()

    def backward_to_input(self) -> None:
        """Do the same, and fill the gradient of the input."""
        self.backward()
        self.layers[0].input_product.compute()


def stack_buffers(buffers: Sequence[Buffer]) -> Tensor:
    """Put buffers beside each other, and return all of them."""
    first = buffers[0].tensor
    whole = lay_out(len(buffers), first.shape, first.dtype)
    for buffer, place in zip(buffers, whole, strict=True):
        buffer.move(place)
    return whole


def _stack_nets(
    nets: Sequence[Sequence[Weights]], gradients: Sequence[FlatGradients]
) -> list[StackedWeights]:
    """Put the weights of nets beside each other, layer by layer, and their gradients."""
    return [_stack_weights(layers, gradients) for layers in zip(*nets, strict=True)]


def _stack_weights(layers: Sequence[Weights], gradients: Sequence[FlatGradients]) -> StackedWeights:
    weight = _stack_parameters([layer.weight for layer in layers])
    biases = [layer.bias for layer in layers if layer.bias is not None]
    bias = _stack_parameters(biases).unsqueeze(1) if biases else None
    gradient = lay_out(len(layers), layers[0].weight.shape, weight.dtype)
    for layer, each, place in zip(layers, gradients, gradient, strict=True):
        each.move(layer.weight, place)
    return StackedWeights(weight, bias, gradient)


def _stack_parameters(parameters: Sequence[Tensor]) -> Tensor:
    """Put parameters beside each other, and return all of them; they stay the same objects."""
    whole = lay_out(len(parameters), parameters[0].shape, parameters[0].dtype)
    for parameter, place in zip(parameters, whole, strict=True):
        parameter.data = place.copy_(parameter.data)
    return whole
