"""Hand-written gradients of a TVAE on the CPU.

The tests compare them with the gradients of autograd through `TVAE.objective`.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from distvae.engines.device import SLOPES
from distvae.interface import Batch, Sums
from distvae.models import kernels
from distvae.models.kernels import DENSITY, FIGURES, VALUES, Integers
from distvae.models.likelihoods import observed_numbers
from distvae.models.table_decoder import MULTIPLE, DecodedTable, Layer
from distvae.models.truncated import KeepsStates
from distvae.models.tvae import TVAE, refuse_masked
from distvae.numerics.arrays import Floats
from distvae.numerics.noise import Noise


class TVAEEngine:
    """Decodes the kept states of a batch, and backpropagates their weighted errors.

    A heavy state is a state with a weight above machine epsilon in some row. Only heavy states
    contribute to gradients. N is the number of heavy states, padded to a multiple of `MULTIPLE`.
    """

    def __init__(self, model: TVAE, estep: KeepsStates) -> None:
        self.model, self.decoder, self.estep = model, model.table_decoder(), estep
        self.gradients = [
            (torch.zeros_like(layer.linear.bias), torch.zeros_like(layer.linear.weight))
            for layer in self.decoder.layers
        ]
        """Memory for the gradients of the bias and the weight of each layer."""

    @torch.no_grad()
    def differentiate(self, batch: Batch, noise: Noise, rows: int) -> Sums:
        """Set the gradients of minus the objective summed over the batch and divided by `rows`.

        Return the sums over the batch.
        """
        kept = self.estep.kept_states(batch)
        part = None if kept.part is None else kept.part.numpy()
        with_hidden = not self.model.fits_in_closed_form
        table = self.decoder(kept.words.numpy(), part, with_hidden)
        weight, sums = self._weigh(batch, table)
        if batch.mask is not None and self.model.completes:
            batch = self._complete(batch, table, weight, sums)
        heavy, number = self._number_heavy(table, weight)
        scale = self.model.likelihood.error_scale / rows
        gradient = self._errors(batch, table, weight, heavy, number, scale)
        if self.model.fits_in_closed_form:
            refuse_masked(batch)
            taken = weight > 0
            places = number[table.place[taken]] - 1
            mass = torch.from_numpy(np.bincount(places, weight[taken], len(heavy)))
            sums["moments"] = self._moments(table, heavy, mass, gradient.div_(-scale))
            sums["fitted_rows"] = batch.x.new_full((), len(batch.x), dtype=torch.float64)
        else:
            self._send_back(table, heavy, gradient)
        return sums

    def _weigh(self, batch: Batch, table: DecodedTable) -> tuple[Floats, Sums]:
        """Return the posterior weights (B, S) of the states, and the sums over the batch."""
        likelihood, bits = self.model.likelihood, self.model.code_size
        density = likelihood.table_densities(batch, table.output, table.place)
        prior = self.decoder.log_prior(table, self.model.pi)
        weight: Floats = self.decoder.take("weight", *density.shape, dtype=batch.x.dtype).numpy()
        figures = np.zeros(FIGURES + bits + bits + 1)
        states = (table.place, table.part, table.words)
        kernels.weigh(density, prior, states, weight, figures)
        scalars, active, counts = torch.from_numpy(figures).split([FIGURES, bits, bits + 1])
        objective, sampled, _, _ = scalars.unbind()
        sums = {"objective": objective, "sampled_weight": sampled}
        sums |= {"active": active, "counts": counts}
        if likelihood.learns:
            values = batch.x.numel() if batch.mask is None else int(batch.mask.sum())
            sums["density"], sums["values"] = scalars[DENSITY], scalars[VALUES].fill_(values)
        return weight, sums

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

    def _number_heavy(self, table: DecodedTable, weight: Floats) -> tuple[Tensor, Integers]:
        """Return the places (N,) of heavy states in the table, padded with zeros, and the number of
        each state of the table among the heavy states: from 1, or 0 for states that are not heavy.
        """
        size = len(table.words)
        number: Integers = self.decoder.take("number", size, dtype=torch.int64).numpy()
        heavy = self.decoder.take("heavy", size, dtype=torch.int64)
        least = float(np.finfo(weight.dtype).eps)
        count = kernels.number_heavy(table.place, weight, least, number, heavy.numpy())
        padded = -(-count // MULTIPLE) * MULTIPLE  # at most the size of the table
        heavy[count:padded] = 0
        return heavy[:padded], number

    def _errors(
        self,
        batch: Batch,
        table: DecodedTable,
        weight: Floats,
        heavy: Tensor,
        number: Integers,
        scale: float,
    ) -> Tensor:
        """Return the gradient (N, D) by the last linear layer's output for heavy states.

        It is the weighted error times `scale`, backpropagated through the final activation, if any.
        Padding states have zero gradients.
        """
        taken = self._take("output", table.output, heavy)
        mean = self.model.likelihood.mean(taken)
        gradient = self.decoder.take("error", *taken.shape).zero_()
        values = (batch.x.numpy(), observed_numbers(batch), mean.numpy())
        kernels.add_errors(values, (table.place, weight, number), scale, gradient.numpy())
        pull_back(self.decoder.layers[-1], gradient, taken)
        return gradient

    def _moments(self, table: DecodedTable, heavy: Tensor, mass: Tensor, errors: Tensor) -> Tensor:
        """Return sum E[u u^T] and sum E[u (x - V u)^T], concatenated (see `tvae.py`), given the
        total weights (N,) of heavy states and their weighted errors (N, D).
        """
        bits = self.decoder.bits(table.words[heavy.numpy()])
        mass = mass.to(bits.dtype).unsqueeze(1)
        columns = torch.cat([bits * mass, mass, errors], 1)
        found = columns.new_empty(self.model.code_size + 1, columns.shape[1])
        self._differentiate_bits(table, heavy, columns, found[:-1])
        torch.sum(columns, 0, out=found[-1])
        return found

    def _send_back(self, table: DecodedTable, heavy: Tensor, gradient: Tensor) -> None:
        """Set the gradients of all layers that learn, given the gradient by the output of the last
        linear layer.
        """
        layers = self.decoder.layers
        for i in range(len(layers) - 1, -1, -1):
            linear, (bias, weight) = layers[i].linear, self.gradients[i]
            torch.sum(gradient, 0, out=bias)
            linear.bias.grad, linear.weight.grad = bias, weight
            if i == 0:
                self._differentiate_bits(table, heavy, gradient, weight)
                return
            value = self._take(f"value {i - 1}", table.hidden[i - 1], heavy)
            torch.mm(gradient.T, value, out=weight)
            if not layers[i - 1].linear.bias.requires_grad:
                return
            forward = table.weights[i][0]
            below = self.decoder.take(f"error {i}", gradient.shape[0], forward.shape[0])
            gradient = torch.mm(gradient, forward.T, out=below)
            pull_back(layers[i - 1], gradient, value)

    def _differentiate_bits(
        self, table: DecodedTable, heavy: Tensor, gradient: Tensor, weight: Tensor
    ) -> None:
        """Fill the gradient (H, K) of the first layer's weights, which has a row for each bit."""
        words = table.words[heavy.numpy()]
        if table.few:
            kernels.scatter_rows(gradient.numpy(), words, weight.numpy())
        else:
            torch.mm(self.decoder.bits(words).T, gradient, out=weight)

    def _take(self, name: str, values: Tensor, heavy: Tensor) -> Tensor:
        """Return the values (N, K) of heavy states."""
        taken = self.decoder.take(name, heavy.shape[0], values.shape[1])
        return torch.index_select(values, 0, heavy, out=taken)


def pull_back(layer: Layer, gradient: Tensor, value: Tensor) -> None:
    """Backpropagate through a layer's activation, in place; `value` is the activation's result.

    The argument of a rectifier has the sign of its result.
    """
    if layer.function:
        SLOPES[layer.function](gradient, value, value)
