"""Hand-written gradients of a TVAE on the CPU.

The tests compare them with the gradients of autograd through `TVAE.objective`.
"""

from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from distvae.interface import Batch, Sums
from distvae.models import table_kernels
from distvae.models.kernels import Integers
from distvae.models.least_squares import refuse_masked
from distvae.models.likelihoods import Likelihood, observed_numbers
from distvae.models.population import MULTIPLE
from distvae.models.table_decoder import BinaryPrior, DecodedTable, Layer, TableDecoder
from distvae.models.table_kernels import FIGURES, VALUES
from distvae.models.truncated import KeepsStates
from distvae.numerics.array_types import Floats
from distvae.numerics.noise import Noise


class TableModel(BinaryPrior, Protocol):
    """The part of a TVAE that its engine needs."""

    likelihood: Likelihood

    @property
    def completes(self) -> bool:
        """True if training imputes missing values with their expectations."""

    @property
    def fits_in_closed_form(self) -> bool:
        """True while the decoder is linear and is fitted in closed form, once per epoch."""

    @property
    def code_size(self) -> int:
        """The number of bits of a state."""


def _by_name(sums: Floats, bits: int, learns: bool) -> Sums:
    """Return views of a batch's sums, by name."""
    figures, active, counts = torch.from_numpy(sums).split([FIGURES, bits, bits + 1])
    objective, sampled, density, values = figures.unbind()
    found = {"objective": objective, "sampled_weight": sampled, "active": active, "counts": counts}
    return found | {"density": density, "values": values} if learns else found


def _mass(place: Integers, weight: Floats, number: Integers, count: int) -> Tensor:
    """Return the total weight (N,) of each heavy state over all rows."""
    taken = weight > 0
    return torch.from_numpy(np.bincount(number[place[taken]] - 1, weight[taken], count))


class LayerGradient(NamedTuple):
    """Memory for the gradient of a linear layer."""

    bias: Tensor
    weight: Tensor

    @classmethod
    def of(cls, layer: Layer) -> "LayerGradient":
        """Return memory for the gradient of this layer."""
        return cls(torch.zeros_like(layer.linear.bias), torch.zeros_like(layer.linear.weight))


class TVAEEngine:
    """Decodes the kept states of a batch, and backpropagates their weighted errors.

    A heavy state is a state with a weight above machine epsilon in some row. Only heavy states
    contribute to gradients. N is the number of heavy states, padded to a multiple of `MULTIPLE`.
    """

    def __init__(self, model: TableModel, decoder: TableDecoder, estep: KeepsStates) -> None:
        self.model, self.decoder, self.estep = model, decoder, estep
        self.gradients = [LayerGradient.of(layer) for layer in decoder.layers]

    @torch.no_grad()
    def differentiate(self, batch: Batch, noise: Noise, rows: int) -> Sums:
        """Set the gradients of minus the objective summed over the batch and divided by `rows`.

        Return the sums over the batch.
        """
        kept = self.estep.kept_states(batch)
        part_numbers = None if kept.part is None else kept.part.numpy()
        with_hidden = not self.model.fits_in_closed_form
        table = self.decoder(kept.words.numpy(), part_numbers, with_hidden)
        weight, sums = self._weigh(batch, table)
        if batch.mask is not None and self.model.completes:
            batch = self._complete(batch, table, weight, sums)
        heavy, number = self._number_heavy(table, weight)
        scale = self.model.likelihood.error_scale / rows
        gradient = self._errors(batch, table, weight, (heavy, number), scale)
        if self.model.fits_in_closed_form:
            refuse_masked(batch)
            mass = _mass(table.place, weight, number, len(heavy))
            sums["moments"] = self._moments(table, heavy, mass, gradient.div_(-scale))
            sums["fitted_rows"] = batch.x.new_full((), len(batch.x), dtype=torch.float64)
        else:
            self._send_back(table, heavy, gradient)
        return sums

    def _weigh(self, batch: Batch, table: DecodedTable) -> tuple[Floats, Sums]:
        """Return the posterior weights (B, S) of the states, and the sums over the batch."""
        likelihood, bits = self.model.likelihood, self.model.code_size
        density = likelihood.table_densities(batch, table.output, table.place)
        prior = self.decoder.log_prior(table, self.model)
        weight = self.decoder.scratch.take("weight", density.dtype, *density.shape)
        sums = np.zeros(FIGURES + bits + bits + 1)
        states = (table.place, table.part, table.words)
        table_kernels.weigh(density, prior, states, weight, sums)
        if likelihood.learns:
            sums[VALUES] = batch.x.numel() if batch.mask is None else int(batch.mask.sum())
        return weight, _by_name(sums, bits, likelihood.learns)

    def _complete(self, batch: Batch, table: DecodedTable, weight: Floats, sums: Sums) -> Batch:
        """Impute missing values with their expectations, and include them in the sums for
        sigma^2.
        """
        likelihood, taken = self.model.likelihood, table.place >= 0
        place = torch.from_numpy(np.where(taken, table.place, 0))
        mean, weights = likelihood.mean(table.output), torch.from_numpy(weight)
        expected = functional.embedding_bag(place, mean, per_sample_weights=weights, mode="sum")
        completed = batch.completed(expected)
        if likelihood.learns:
            density = likelihood.table_densities(completed, table.output, table.place)
            explained = (weight[taken] * density[taken]).sum(dtype=np.float64)
            sums["density"].fill_(float(explained))
            sums["values"].fill_(completed.x.numel())
        return completed

    def _errors(
        self,
        batch: Batch,
        table: DecodedTable,
        weight: Floats,
        numbered: tuple[Tensor, Integers],
        scale: float,
    ) -> Tensor:
        """Return the gradient (N, D) by the last linear layer's output for heavy states.

        It is the weighted error times `scale`, backpropagated through the final activation, if any.
        Padding states have zero gradients.
        """
        heavy, number = numbered
        taken = self._take("output", table.output, heavy)
        mean = self.model.likelihood.mean(taken)
        gradient = self.decoder.take_tensor("error", *taken.shape).zero_()
        values = (batch.x.numpy(), observed_numbers(batch), mean.numpy())
        states = (table.place, weight, number)
        table_kernels.add_errors(values, states, scale, gradient.numpy())
        self.decoder.layers[-1].pull_back(taken, gradient)
        return gradient

    def _moments(self, table: DecodedTable, heavy: Tensor, mass: Tensor, errors: Tensor) -> Tensor:
        """Return sum E[u u^T] and sum E[u (x - V u)^T], concatenated (see `least_squares.py`),
        given the total weights (N,) of heavy states and their weighted errors (N, D).
        """
        bits = self.decoder.bits(table.words[heavy.numpy()])
        mass = mass.to(bits.dtype).unsqueeze(1)
        columns = torch.cat([bits * mass, mass, errors], 1)
        found = columns.new_empty(self.model.code_size + 1, columns.shape[1])
        self._differentiate_bits(table, heavy, columns, found[:-1])
        torch.sum(columns, 0, out=found[-1])
        return found

    def _number_heavy(self, table: DecodedTable, weight: Floats) -> tuple[Tensor, Integers]:
        """Return the places (N,) of heavy states in the table, padded with zeros, and the number of
        each state of the table among the heavy states: from 1, or 0 for states that are not heavy.
        """
        scratch, size = self.decoder.scratch, len(table.words)
        number, heavy = (
            scratch.take("number", np.int64, size),
            scratch.take("heavy", np.int64, size),
        )
        least = float(np.finfo(weight.dtype).eps)
        count = table_kernels.number_heavy(table.place, weight, least, number, heavy)
        padded = -(-count // MULTIPLE) * MULTIPLE  # at most the size of the table
        heavy[count:padded] = 0
        return torch.from_numpy(heavy[:padded]), number

    def _send_back(self, table: DecodedTable, heavy: Tensor, gradient: Tensor) -> None:
        """Set the gradients of all layers that learn, given the gradient by the output of the last
        linear layer.
        """
        layers = self.decoder.layers
        for i in range(len(layers) - 1, -1, -1):
            linear, found = layers[i].linear, self.gradients[i]
            torch.sum(gradient, 0, out=found.bias)
            linear.bias.grad, linear.weight.grad = found
            if i == 0:
                self._differentiate_bits(table, heavy, gradient, found.weight)
                return
            value = self._take(f"value {i - 1}", table.hidden[i - 1], heavy)
            torch.mm(gradient.T, value, out=found.weight)
            if not layers[i - 1].linear.bias.requires_grad:
                return
            gradient = self._through(i, table.weights[i][0], gradient)
            layers[i - 1].pull_back(value, gradient)

    def _through(self, i: int, weight: Tensor, gradient: Tensor) -> Tensor:
        """Return the gradient by the input of linear layer i, given the gradient by its output."""
        below = self.decoder.take_tensor(f"error {i}", gradient.shape[0], weight.shape[0])
        return torch.mm(gradient, weight.T, out=below)

    def _differentiate_bits(
        self, table: DecodedTable, heavy: Tensor, gradient: Tensor, weight: Tensor
    ) -> None:
        """Fill the gradient (H, K) of the first layer's weights, which has a row for each bit."""
        words = table.words[heavy.numpy()]
        if table.few:
            table_kernels.scatter_rows(gradient.numpy(), words, weight.numpy())
        else:
            torch.mm(self.decoder.bits(words).T, gradient, out=weight)

    def _take(self, name: str, values: Tensor, heavy: Tensor) -> Tensor:
        """Return the values (N, K) of heavy states."""
        taken = self.decoder.take_tensor(name, heavy.shape[0], values.shape[1])
        return torch.index_select(values, 0, heavy, out=taken)
