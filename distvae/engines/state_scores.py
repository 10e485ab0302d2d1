"""log p(x, z) of a TVAE with fixed shapes: each state of each row is decoded.

On the CPU, each distinct state is decoded once. On a GPU, the host would have to wait for the
number of distinct states, and that wait costs more than decoding duplicates.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from distvae.engines.layer_gradients import forward
from distvae.engines.pair_densities import PairDensity, pair_density
from distvae.interface import Batch
from distvae.models.population import unpack_numbers, words_of
from distvae.models.tvae import MIN_PI, TVAE

DECODED = 2**28
"""Numbers in memory for the states that are decoded at a time: 1 GiB in single precision."""


class Prior(NamedTuple):
    """log p(z) as a linear function of the bits."""

    odds: Tensor
    """(H,) the log-odds of active bits."""
    none: Tensor
    """() log p(z) of the state without active bits."""

    @classmethod
    def of(cls, pi: Tensor) -> "Prior":
        """Return the prior with probabilities `pi` of active bits."""
        odds = pi.logit(MIN_PI)
        return cls(odds, functional.softplus(odds).sum().neg())


class Decoded(NamedTuple):
    """The decoded states of a batch."""

    values: list[Tensor]
    """The bits (B K, H), and the output of each layer."""
    prior: Tensor
    """(B, K) log p(z)."""
    density: Tensor
    """(B, K) log p(x | z)."""
    kept: Tensor
    """Saved for the gradient of the density."""


class Scorer:
    """Scores states under a TVAE with its current parameters."""

    def __init__(self, model: TVAE, density: PairDensity) -> None:
        self.latent, self.dims, self.density = model.code_size, model.dims, density
        self.layers: Sequence[nn.Module] = list(model.decoder)
        widths = [*model.config.hidden, self.dims, 64 * words_of(self.latent)]
        self.numbers = 2 * sum(widths)
        """Numbers in memory per state: each layer before and after its activation, errors and their
        squares, and the bits as integers.
        """
        self.model = model
        self.prior = Prior.of(model.pi)

    def refresh(self) -> None:
        """Copy the current pi and the likelihood's parameters, in place."""
        self.density.refresh()
        for kept, present in zip(self.prior, Prior.of(self.model.pi), strict=True):
            kept.copy_(present)

    def decode(self, batch: Batch, words: Tensor, empty: Tensor | None = None) -> Decoded:
        """Decode the states of words (B, K, W) and compare them with the rows.

        `empty` (B, K) replaces log p(0) for each state, for example by -inf for left-out states.
        """
        bits = unpack_numbers(words.flatten(0, 1), self.latent, batch.x.dtype)
        values = forward(self.layers, bits)
        none = self.prior.none if empty is None else empty.flatten()
        prior = torch.addmv(none, bits, self.prior.odds).view(words.shape[:2])
        output = values[-1].view(*words.shape[:2], self.dims)
        return Decoded(values, prior, *self.density.compare(batch, output))

    def score(self, batch: Batch, words: Tensor) -> Tensor:
        """Return log p(x, z), (B, K), computed in chunks of rows."""
        if not len(words):  # a worker may have no rows in a block
            return batch.x.new_empty(words.shape[:2])
        found = []
        for part, states in self._parts(batch, words):
            decoded = self.decode(part, states)
            found.append(decoded.density.add_(decoded.prior))
        return found[0] if len(found) == 1 else torch.cat(found)

    def _parts(self, batch: Batch, words: Tensor) -> Iterator[tuple[Batch, Tensor]]:
        """Yield chunks of rows whose activations fit in memory."""
        count = max(1, DECODED // (words.shape[1] * self.numbers))
        for first in range(0, len(words), count):
            rows = slice(first, first + count)
            yield batch.part(rows), words[rows]


class Scores:
    """The scorer of a model. It is refreshed only when pi or the variance has changed."""

    def __init__(self, model: TVAE) -> None:
        self.model = model
        self.scorer: Scorer | None = None
        self.versions: tuple[int, ...] = ()

    def present(self) -> Scorer:
        """Return the scorer with the current parameters."""
        buffers = list(self.model.buffers())
        versions = tuple(number for b in buffers for number in (id(b), b._version))
        if self.scorer is None or self.scorer.prior.odds.device != self.model.pi.device:
            self.scorer = Scorer(self.model, pair_density(self.model.likelihood))
        elif versions != self.versions:
            self.scorer.refresh()
        self.versions = versions
        return self.scorer
