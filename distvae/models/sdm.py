"""Sparse dictionary model VAE (Sadeghi and Magron, Interspeech 2022).

    a ~ N(0, diag gamma),    z = D a,    x | z ~ likelihood(decoder(z)),
    q(a | x) = N(mu(x), diag sigma^2(x))

Each data point has its own gamma, which is mu^2 + sigma^2 in closed form (see `LearnedVariance`).
It is therefore neither stored nor optimised in alternation. The code of x is `a`, with one value
for each atom of D. The paper's D is the identity or a DCT. Equation 11 of the paper has r = 1..k
with all columns centred, so that D has rank m - 1 if k >= m. Our DCT starts at r = 0 and keeps the
constant atom. Learned dictionaries are our addition. The paper resynthesises from the posterior
mean; the released code resynthesises from a sample (`eval.latent`).
"""

import math

import torch
from torch import Tensor, nn

from distvae.config import SDMModel
from distvae.interface import AnyEStep, Batch, Sums
from distvae.models.posteriors import Encoded, GaussianHead, LearnedVariance
from distvae.models.vae import VAE
from distvae.numerics.noise import Noise


def dct(rows: int, atoms: int) -> Tensor:
    """Return a DCT dictionary with unit columns. All columns but the constant one are centred."""
    place, frequency = (
        torch.arange(rows, dtype=torch.float64),
        torch.arange(atoms, dtype=torch.float64),
    )
    columns = torch.cos(place[:, None] * math.pi * frequency / atoms)
    columns[:, 1:] -= columns[:, 1:].mean(0)
    return nn.functional.normalize(columns, dim=0).to(torch.get_default_dtype())


def initial_dictionary(config: SDMModel) -> Tensor:
    """Return the initial dictionary (m, k), with unit columns."""
    if config.dictionary == "identity":
        # Unlike torch.eye, this is cheap on torch's meta device, which counts parameters.
        return torch.zeros(config.latent, config.latent).fill_diagonal_(1.0)
    if config.dictionary == "dct":
        return dct(config.latent, config.code_size)
    return nn.functional.normalize(torch.randn(config.latent, config.code_size), dim=0)


def coherence(dictionary: Tensor) -> Tensor:
    """Return the mean squared cosine between two different atoms."""
    atoms = dictionary.shape[1]
    excess = dictionary.T @ dictionary - torch.eye(atoms, device=dictionary.device)
    return excess.square().sum() / max(atoms * (atoms - 1), 1)


class SDM(VAE):
    """A VAE whose latent is a dictionary times a code with a learned variance for each value."""

    config: SDMModel

    def __init__(self, config: SDMModel, dims: int, shape: tuple[int, ...] = ()) -> None:
        super().__init__(config, dims, shape)
        self.dictionary = nn.Parameter(
            initial_dictionary(config), requires_grad=config.dictionary == "learned"
        )
        self.variance: Tensor
        self.register_buffer("variance", torch.ones(config.code_size))

    def head(self, width: int) -> nn.Module:
        """Return the layer from an encoder's features to the posterior of `a`."""
        return GaussianHead(width, self.code_size, LearnedVariance)

    def prior(self, noise: Noise, estep: AnyEStep) -> Tensor:
        """Return codes (B, 1, k) drawn with the mean variances of the training set."""
        return noise.normal("slab", 1, self.code_size) * self.variance.sqrt()

    def output(self, z: Tensor) -> Tensor:
        """Return the decoder's output at D a."""
        return super().output(z if self.config.dictionary == "identity" else z @ self.dictionary.T)

    def penalty(self, q: Encoded) -> Tensor:
        """Return the weighted coherence of the dictionary."""
        return (
            self.config.coherence * coherence(self.dictionary)
            if self.config.coherence
            else super().penalty(q)
        )

    @torch.no_grad()
    def project(self) -> None:
        """Rescale the atoms to unit norm."""
        if self.config.dictionary == "learned":
            self.dictionary.div_(self.dictionary.norm(dim=0))

    def statistics(self, batch: Batch, q: Encoded, noise: Noise) -> Sums:
        """Add the sums of gamma, for sampling from the prior."""
        assert isinstance(q, LearnedVariance)
        gamma = q.prior_log_variance.exp().sum(0)
        return super().statistics(batch, q, noise) | {
            "gamma": gamma,
            "rows": gamma.new_full((), len(batch.x)),
        }

    def maximise(self, total: Sums) -> None:
        """Set the mean variances of the prior."""
        super().maximise(total)
        self.variance.copy_(total["gamma"] / total["rows"])
