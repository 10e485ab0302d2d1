"""Decode each distinct state of a batch once, by compiled loops and matrix products."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from distvae.models import kernels
from distvae.models.kernels import Integers, Parts
from distvae.models.nets import FromBits, StateDecoder
from distvae.models.population import NEAR, log_odds
from distvae.numerics.arrays import Floats

MULTIPLE = 16  # tables are padded to a multiple of 16 states, so that products have few shapes
FEW = 0.25  # share of active bits below which adding up rows beats a matrix product
CACHED = 2**18  # activations of a layer that fit in the CPU's cache
VIEWS = 1024  # views of memory that are kept; a training has fewer distinct sizes of steps

ACTIVATIONS: dict[type[nn.Module], Callable[[Tensor], Tensor]] = {
    nn.Tanh: torch.tanh_,
    nn.Sigmoid: torch.sigmoid_,
    nn.ReLU: torch.relu_,
    nn.LeakyReLU: functional.leaky_relu_,
}
"""The activations of a `StateDecoder`, in place."""

SLOPES = {nn.ReLU: 0.0, nn.LeakyReLU: nn.LeakyReLU().negative_slope}
"""The slopes of rectifiers below zero."""

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
    """A linear layer of the decoder, and the activation after it, if any."""

    def __init__(self, linear: FromBits | nn.Linear, after: nn.Module | None) -> None:
        self.linear = linear
        self.function = None if after is None or isinstance(after, nn.Linear) else type(after)

    @property
    def weights(self) -> Weights:
        """The current weight and bias, without gradients."""
        weight, bias = self.linear.weight.detach(), self.linear.bias.detach()
        return (weight if isinstance(self.linear, FromBits) else weight.T), bias

    def activate(self, value: Tensor) -> None:
        """Apply the activation to the values of the linear layer, in place."""
        if self.function:
            ACTIVATIONS[self.function](value)


class TableDecoder:
    """Decodes the distinct states of a batch into memory that is reused for the next batch.

    Allocating and clearing new memory in each step would take longer.
    """

    def __init__(self, decoder: StateDecoder) -> None:
        self.decoder = decoder
        self.layers = [
            Layer(module, after)
            for module, after in pairwise([*decoder, None])
            if isinstance(module, FromBits | nn.Linear)
        ]
        self.widths = [layer.linear.bias.shape[0] for layer in self.layers]
        self.latent = self.layers[0].linear.weight.shape[0]
        self.rows_in_cache = max(MULTIPLE, CACHED // max(self.widths) // MULTIPLE * MULTIPLE)
        self.memory: dict[str, Tensor] = {}
        self.views: dict[tuple[str, torch.dtype, tuple[int, ...]], Tensor] = {}
        self.prior: tuple[bytes, Floats, float] = b"", np.empty(0), 0.0
        """The prior probabilities that were used last, their log-odds, and log p(0)."""

    def __reduce__(self) -> tuple[type["TableDecoder"], tuple[StateDecoder]]:
        return TableDecoder, (self.decoder,)  # without its memory

    def take(self, name: str, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Return a part of the memory of this name, with the values of its last use. The memory
        grows on demand. Its default type is the type of the weights.
        """
        dtype = dtype or self.layers[0].linear.bias.dtype
        found = self.views.get((name, dtype, shape))  # a new view would take longer
        if found is not None:
            return found
        size, memory = math.prod(shape), self.memory.get(name)
        is_new = memory is None or memory.dtype != dtype or len(memory) < size
        if is_new or len(self.views) >= VIEWS:
            self.views.clear()  # views of replaced memory must not stay
        if memory is None or is_new:
            with torch.inference_mode(False):  # else it could not be written in other modes
                memory = self.memory[name] = torch.empty(size, dtype=dtype)
        view = self.views[name, dtype, shape] = memory[:size].view(shape)
        return view

    def __call__(
        self, words: Integers, part: Parts | None = None, with_hidden: bool = False
    ) -> DecodedTable:
        """Decode all states of words (B, S, W) except those with part `LEFT_OUT`."""
        if part is None:
            part = self.take("part", *words.shape[:2], dtype=torch.uint8).fill_(NEAR).numpy()
        known, place, few = self._tabulate(words, part)
        # While the hidden layers pass bits on, the last layer decodes bits.
        first = len(self.layers) - 1 if self.decoder.passes_bits and not with_hidden else 0
        layers = self.layers[first:]
        weights = [layer.weights for layer in layers]
        weights[0] = weights[0][0].contiguous(), weights[0][1]  # as `add_rows` needs it
        size, chunk = len(known), min(len(known), self.rows_in_cache)
        values = []
        for i, width in enumerate(self.widths[first:], first):
            keeps = with_hidden or i == len(self.layers) - 1
            values.append(self.take(f"layer {i}", size if keeps else chunk, width))
        for start in range(0, size, self.rows_in_cache):
            stop = min(size, start + chunk)
            cut = [v[start:stop] if len(v) == size else v[: stop - start] for v in values]
            self._decode_bits(layers[0], weights[0], known[start:stop], cut[0], few)
            for layer, (weight, bias), below, value in zip(
                layers[1:], weights[1:], cut, cut[1:], strict=False
            ):
                torch.addmm(bias, below, weight, out=value)
                layer.activate(value)
        *hidden, output = values
        return DecodedTable(known, place, part, few, weights, hidden if with_hidden else [], output)

    def _tabulate(self, words: Integers, part: Parts) -> tuple[Integers, Integers, bool]:
        """Return the table of distinct states, the place of each state in it, and whether few bits
        are active.
        """
        rows, states, width = words.shape
        total = rows * states
        slots = self.take("slots", 1 << (2 * total).bit_length(), dtype=torch.int32).fill_(-1)
        known = self.take("known", total + MULTIPLE, width, dtype=torch.int64).numpy()
        place = self.take("place", rows, states, dtype=torch.int64).numpy()
        count, active = kernels.fill_table(words, part, slots.numpy(), known, place)
        size = -(-count // MULTIPLE) * MULTIPLE
        known[count:size] = 0
        return known[:size], place, active < FEW * count * self.latent

    def _decode_bits(
        self, layer: Layer, weights: Weights, words: Integers, value: Tensor, few: bool
    ) -> None:
        """Fill in the values of the first layer."""
        weight, bias = weights
        if few:
            slope = SLOPES.get(layer.function, 1.0) if layer.function else 1.0
            kernels.add_rows(weight.numpy(), bias.numpy(), slope, words, value.numpy())
            if slope != 1:  # the loop has applied the rectifier
                return
        else:
            torch.addmm(bias, self.bits(words), weight, out=value)
        layer.activate(value)

    def bits(self, words: Integers) -> Tensor:
        """Return the zeros and ones (U, H) of states."""
        bits = self.take("bits", len(words), self.latent)
        kernels.dense(words, bits.numpy())
        return bits

    def log_prior(self, table: DecodedTable, pi: Tensor) -> Floats:
        """Return log p(z), (U,), given the prior probabilities (H,) of active bits."""
        key = pi.numpy().tobytes()
        if key != self.prior[0]:
            odds = log_odds(pi)
            self.prior = key, odds.numpy(), -float(functional.softplus(odds.double()).sum())
        prior: Floats = self.take("prior", len(table.words), dtype=pi.dtype).numpy()
        kernels.add_odds(self.prior[1], self.prior[2], table.words, prior)
        return prior
