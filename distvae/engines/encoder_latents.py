"""Codes drawn by compiled loops, and the gradients by the encoder's head, for each model."""

from typing import Protocol

import torch

from distvae.engines import draw_kernels, latent_kernels
from distvae.engines.dense_layers import Buffer
from distvae.interface import Sums
from distvae.models.sdm import SDM
from distvae.models.vae import VAE
from distvae.models.vsc import VSC
from distvae.numerics.array_types import Floats
from distvae.numerics.noise import Noise


class Latents(Protocol):
    """The codes of a number of rows."""

    z: Buffer
    """(B, H) the draws."""
    out: Buffer
    """(B, K H) the gradient by the output of the head."""
    relaxed: bool
    """Whether the draws of the objective are not those of the bound."""

    def draw(self, heads: Buffer, noise: Noise) -> float:
        """Draw codes given the output of the head, and return the sum of the divergences."""

    def backward(self, heads: Buffer, gradient: Buffer, weight: float) -> Buffer:
        """Return the gradient by the output of the head, given that by the codes.

        The weight is that of the divergence.
        """

    def statistics(self) -> Sums:
        """Return sums over rows that the model's closed form needs beside the divergence."""


class GaussianLatents:
    """The codes of a VAE."""

    relaxed = False

    def __init__(self, latent: int, rows: int, dtype: torch.dtype) -> None:
        self.z, self.epsilon = (Buffer(rows, latent, dtype) for _ in range(2))
        self.out = Buffer(rows, 2 * latent, dtype)

    def draw(self, heads: Buffer, noise: Noise) -> float:
        """Draw codes, and return the sum of the divergences."""
        epsilon = fill_normal(self.epsilon, noise)
        return latent_kernels.draw_gaussian(heads.values, epsilon, self.z.values)

    def backward(self, heads: Buffer, gradient: Buffer, weight: float) -> Buffer:
        """Return the gradient by the output of the head."""
        latent_kernels.pull_gaussian(
            heads.values, self.epsilon.values, gradient.values, weight, self.out.values
        )
        return self.out

    def statistics(self) -> Sums:
        """Return nothing."""
        return {}


class DictionaryLatents:
    """The codes of an SDM-VAE, before its dictionary."""

    relaxed = False

    def __init__(self, latent: int, rows: int, dtype: torch.dtype) -> None:
        self.z, self.epsilon = (Buffer(rows, latent, dtype) for _ in range(2))
        self.out = Buffer(rows, 2 * latent, dtype)
        self.gamma = torch.empty(latent, dtype=dtype)
        self.rows = rows

    def draw(self, heads: Buffer, noise: Noise) -> float:
        """Draw codes, and return the sum of the divergences."""
        epsilon, gamma = fill_normal(self.epsilon, noise), self.gamma.numpy()
        return latent_kernels.draw_dictionary(heads.values, epsilon, self.z.values, gamma)

    def backward(self, heads: Buffer, gradient: Buffer, weight: float) -> Buffer:
        """Return the gradient by the output of the head."""
        latent_kernels.pull_dictionary(
            heads.values, self.epsilon.values, gradient.values, weight, self.out.values
        )
        return self.out

    def statistics(self) -> Sums:
        """Return the variances gamma, for sampling."""
        return {"gamma": self.gamma.clone(), "rows": self.gamma.new_full((), self.rows)}


class SpikeLatents:
    """The codes of a VSC against alpha."""

    relaxed = True

    def __init__(self, model: VSC, rows: int, dtype: torch.dtype) -> None:
        latent = model.code_size
        self.model = model
        self.z, self.epsilon, self.uniform = (Buffer(rows, latent, dtype) for _ in range(3))
        self.out = Buffer(rows, 3 * latent, dtype)
        self.noise = (self.epsilon.values, self.uniform.values)

    def draw(self, heads: Buffer, noise: Noise) -> float:
        """Draw codes with relaxed gates, and return the sum of the divergences."""
        fill_normal(self.epsilon, noise)
        fill_uniform(self.uniform, noise)
        return latent_kernels.draw_spikes(
            heads.values, self.noise, self.model.spikes, self.z.values
        )

    def backward(self, heads: Buffer, gradient: Buffer, weight: float) -> Buffer:
        """Return the gradient by the output of the head."""
        latent_kernels.pull_spikes(
            heads.values, self.noise, gradient.values, weight, self.model.spikes, self.out.values
        )
        return self.out

    def statistics(self) -> Sums:
        """Return nothing."""
        return {}


def fill_uniform(out: Buffer, noise: Noise) -> Floats:
    """Fill (B, H) with the draws for spikes: those of `Noise`."""
    draw_kernels.draw_uniform(noise.seeds("spike").numpy(), out.values)
    return out.values


def fill_normal(out: Buffer, noise: Noise) -> Floats:
    """Fill (B, H) with the draws for slabs.

    In single precision they are those of `Noise` up to rounding, and in double exactly those.
    """
    if out.tensor.dtype == torch.float64:
        out.tensor.copy_(noise.normal("slab", 1, out.tensor.shape[1])[:, 0])
    else:
        draw_kernels.draw_normal(noise.seeds("slab").numpy(), out.values)
    return out.values


def make_latents(model: VAE, rows: int, dtype: torch.dtype) -> Latents | None:
    """Return the codes of a model on a number of rows; None for a model that is not known here."""
    if type(model) is VAE:
        return GaussianLatents(model.code_size, rows, dtype)
    if type(model) is SDM:
        return DictionaryLatents(model.code_size, rows, dtype)
    if type(model) is VSC and model.pseudo is None:
        return SpikeLatents(model, rows, dtype)
    return None
