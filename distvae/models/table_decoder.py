"""Decode each distinct state of a batch once, by compiled loops and matrix products."""

from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from distvae.models import table_kernels
from distvae.models.kernels import Integers, dense
from distvae.models.population import MULTIPLE
from distvae.models.scratch import Scratch
from distvae.models.state_decoder import CACHED, FromBits, StateDecoder
from distvae.models.table_kernels import Parts
from distvae.models.truncated import NEAR
from distvae.numerics.array_types import Floats

FEW = 0.25  # share of active bits below which adding up rows beats a matrix product


Weights = tuple[Tensor, Tensor]
"""The weight (inputs, K) and the bias (K,) of a layer."""


class DecodedTable(NamedTuple):
    """Distinct states, decoded. Its arrays are overwritten when the next table is decoded."""

    words: Integers
    """(U, W) the distinct states, padded with zeros to a multiple of `MULTIPLE`."""
    place: Integers
    """(B, S) the place of each state of each row in the table, -1 for states left out."""
    part: Parts
    """(B, S) whether each state takes part in training: `LEFT_OUT`, `NEAR` or `SAMPLED`."""
    few: bool
    """True if few bits are active, so that rows of weights are added up instead of multiplied."""
    weights: list[Weights]
    """The weights that decoded the states, by layer."""
    hidden: list[Tensor]
    """(U, K) the values of each hidden layer; empty unless they were requested."""
    output: Tensor
    """(U, D) the decoder's output for each state."""


class Layer:
    """A linear layer of the decoder, and the activation after it."""

    def __init__(self, linear: FromBits | nn.Linear, function: nn.Module | None) -> None:
        self.linear, self.function = linear, function
        self.slope = _slope(function)

    @property
    def weights(self) -> Weights:
        """The current weight and bias, without gradients."""
        weight, bias = self.linear.weight.detach(), self.linear.bias.detach()
        return (weight if isinstance(self.linear, FromBits) else weight.T), bias

    def apply_function(self, value: Tensor) -> None:
        """Apply the activation to the values of the linear layer, in place."""
        if isinstance(self.function, nn.Tanh):
            value.tanh_()
        elif isinstance(self.function, nn.Sigmoid):
            value.sigmoid_()
        elif self.slope == 0:
            value.relu_()
        elif self.slope != 1:
            functional.leaky_relu_(value, self.slope)

    def pull_back(self, value: Tensor, gradient: Tensor) -> None:
        """Backpropagate through the activation, in place; `value` is the activation's result."""
        if isinstance(self.function, nn.Tanh):
            gradient.mul_(1 - value.square())
        elif isinstance(self.function, nn.Sigmoid):
            gradient.mul_(value * (1 - value))
        elif self.slope != 1:
            table_kernels.scale_negative(self.slope, value.numpy(), gradient.numpy())


def _slope(function: nn.Module | None) -> float:
    """Return the slope of a rectifier below zero, or 1 for other activations."""
    if isinstance(function, nn.ReLU):
        return 0.0
    return function.negative_slope if isinstance(function, nn.LeakyReLU) else 1.0


WeighedLayer = tuple[Layer, Weights]
"""A layer, and its current weights."""


class BinaryPrior(Protocol):
    """A model whose bits are independent under the prior."""

    pi: Tensor
    """(H,) the prior probability that each bit is active."""

    def log_odds(self) -> Tensor:
        """Return the log-odds (H,) that bits are active."""


class KnownOdds:
    """The log-odds of active bits, recomputed only when the probabilities change."""

    def __init__(self) -> None:
        self.pi: Floats = np.empty(0)
        self.known: tuple[Floats, float] = np.empty(0), 0.0

    def of(self, model: BinaryPrior) -> tuple[Floats, float]:
        """Return the log-odds (H,), and log p(z) of the state without active bits."""
        pi = model.pi.numpy()
        if pi.tobytes() != self.pi.tobytes():
            odds = model.log_odds()
            self.pi = pi.copy()
            self.known = odds.numpy(), -float(functional.softplus(odds.double()).sum())
        return self.known


class TableDecoder:
    """Decodes the distinct states of a batch into memory that is reused for the next batch."""

    def __init__(self, decoder: StateDecoder) -> None:
        self.decoder, self.scratch, self.odds = decoder, Scratch(), KnownOdds()
        self.layers = [
            Layer(module, None if isinstance(after, nn.Linear) else after)
            for module, after in pairwise([*decoder, None])
            if isinstance(module, FromBits | nn.Linear)
        ]
        self.widths = [layer.linear.bias.shape[0] for layer in self.layers]
        self.latent = self.layers[0].linear.weight.shape[0]
        self.rows_in_cache = max(MULTIPLE, CACHED // decoder.widest // MULTIPLE * MULTIPLE)

    def __call__(
        self, words: Integers, part: Parts | None = None, with_hidden: bool = False
    ) -> DecodedTable:
        """Decode all states of words (B, S, W) except those with part `LEFT_OUT`."""
        if part is None:
            part = self.scratch.take("part", np.uint8, *words.shape[:2])
            part.fill(NEAR)
        known, place, few = self._tabulate(words, part)
        size = len(known)
        layers = self._layers_of_now(with_hidden)
        values = [self._layer_memory(layer, size, with_hidden) for layer, _ in layers]
        for first in range(0, size, self.rows_in_cache):
            last = min(size, first + self.rows_in_cache)
            cut = [v[first:last] if v.shape[0] == size else v[: last - first] for v in values]
            self._decode(layers, known[first:last], cut, few)
        *hidden, output = values
        kept = hidden if with_hidden else []
        weights = [weight for _, weight in layers]
        return DecodedTable(known, place, part, few, weights, kept, output)

    def _layers_of_now(self, with_hidden: bool) -> list[WeighedLayer]:
        """Return the layers to compute: all layers, or only the last layer if the hidden layers
        pass bits on and their values are not requested.
        """
        layers = self.layers
        if self.decoder.passes_bits and not with_hidden:
            layers = layers[-1:]
        weights = [layer.weights for layer in layers]
        rows, bias = weights[0]
        weights[0] = rows.contiguous(), bias  # the loop that adds up rows needs contiguous rows
        return list(zip(layers, weights, strict=True))

    def _tabulate(self, words: Integers, part: Parts) -> tuple[Integers, Integers, bool]:
        """Return the table of distinct states, the place of each state in it, and whether few bits
        are active.
        """
        rows, states, width = words.shape
        total = rows * states
        slots = self.scratch.take("slots", np.int32, 1 << (2 * total).bit_length())
        slots.fill(-1)
        known = self.scratch.take("known", np.int64, total + MULTIPLE, width)
        place = self.scratch.take("place", np.int64, rows, states)
        count, active = table_kernels.fill_table(words, part, slots, known, place)
        size = -(-count // MULTIPLE) * MULTIPLE  # products on tables have few shapes
        known[count:size] = 0
        return known[:size], place, active < FEW * count * self.latent

    def _layer_memory(self, layer: Layer, size: int, with_hidden: bool) -> Tensor:
        """Return memory for a layer's values: for all states, or for one chunk if the values of a
        hidden layer are not requested.
        """
        i = self.layers.index(layer)
        is_last = i == len(self.layers) - 1
        rows = size if is_last or with_hidden else min(size, self.rows_in_cache)
        return self.take_tensor(f"layer {i}", rows, self.widths[i])

    def take_tensor(self, name: str, *shape: int) -> Tensor:
        """Return memory with the dtype of the weights."""
        dtype = _NUMPY[self.layers[0].linear.bias.dtype]
        return self.scratch.share(name, dtype, *shape).tensor

    def _decode(
        self, layers: list[WeighedLayer], words: Integers, values: list[Tensor], few: bool
    ) -> None:
        """Fill the values of each layer for a chunk of the table."""
        self._decode_bits(layers[0], words, values[0], few)
        for i, (layer, (weight, bias)) in enumerate(layers[1:]):
            torch.addmm(bias, values[i], weight, out=values[i + 1])
            layer.apply_function(values[i + 1])

    def _decode_bits(
        self, weighed: WeighedLayer, words: Integers, value: Tensor, few: bool
    ) -> None:
        layer, (weight, bias) = weighed
        if few:
            slope = layer.slope
            table_kernels.add_rows(weight.numpy(), bias.numpy(), slope, words, value.numpy())
            if slope == 1:  # the loop applies rectifiers only
                layer.apply_function(value)
            return
        torch.addmm(bias, self.bits(words), weight, out=value)
        layer.apply_function(value)

    def bits(self, words: Integers) -> Tensor:
        """Return the zeros and ones (U, H) of states."""
        bits = self.take_tensor("bits", len(words), self.latent)
        dense(words, bits.numpy())
        return bits

    def log_prior(self, table: DecodedTable, model: BinaryPrior) -> Floats:
        """Return log p(z), (U,)."""
        odds, none = self.odds.of(model)
        prior: Floats = self.scratch.take("prior", odds.dtype, len(table.words))
        table_kernels.add_odds(odds, none, table.words, prior)
        return prior

    def add_log_prior(self, table: DecodedTable, model: BinaryPrior, density: Floats) -> Floats:
        """Add log p(z) to log p(x | z), (B, S), in place; no state may be left out."""
        table_kernels.add_prior(self.log_prior(table, model), table.place, density)
        return density


_NUMPY = {torch.float32: np.float32, torch.float64: np.float64}
