"""Draws of codes and their hand-written gradients, in as few torch operations as possible.

`posteriors` has the equivalent for autograd. The output (B, K H) of an encoder's head has K parts
of H values each, such as means and log variances.
"""

import math
from typing import Protocol

import torch
from torch import Tensor

from distvae.models.posteriors import LOG_VARIANCE
from distvae.models.sdm import SDM
from distvae.models.vae import VAE
from distvae.models.vsc import SPIKE, VSC, Spikes
from distvae.numerics.noise import Noise

LOG_SPIKE = (math.log(SPIKE[0]), math.log(SPIKE[1]))

within = torch.ops.aten.hardtanh_backward
"""The gradient of a clamp: the incoming gradient between two limits, zero elsewhere."""


class Draws(Protocol):
    """Codes drawn for a batch."""

    z: Tensor
    """(B, H)"""

    def pull(self, gradient: Tensor, weight: float, out: Tensor) -> None:
        """Fill in the gradient by the head's output, given the gradient by z and the weight of the
        KL divergence.
        """


class _Slabs:
    """Gaussians with means and log variances, and one draw from each Gaussian."""

    def __init__(self, mean: Tensor, log_variance: Tensor, noise: Noise) -> None:
        epsilon = noise.normal("slab", 1, mean.shape[1])[:, 0]
        self.mean, self.variance = mean, log_variance.exp()
        self.error = epsilon * self.variance.sqrt()
        self.value = mean + self.error


class GaussianDraws:
    """The codes of a VAE."""

    def __init__(self, heads: Tensor, noise: Noise) -> None:
        mean, self.raw = heads.chunk(2, 1)
        self.slabs = _Slabs(mean, self.raw.clamp(*LOG_VARIANCE), noise)
        self.z = self.slabs.value

    def pull(self, gradient: Tensor, weight: float, out: Tensor) -> None:
        """Fill in the gradient by the head's output."""
        slabs, half = self.slabs, 0.5 * weight
        mean, raw = out.chunk(2, 1)
        torch.add(gradient, slabs.mean, alpha=weight, out=mean)
        excess = torch.rsub(slabs.variance, -half, alpha=-half)
        excess.addcmul_(gradient, slabs.error, value=0.5)
        within(excess, self.raw, *LOG_VARIANCE, grad_input=raw)


class DictionaryDraws:
    """The codes of an SDM-VAE. The prior variance of a value is its expected square."""

    def __init__(self, heads: Tensor, noise: Noise) -> None:
        mean, self.raw = heads.chunk(2, 1)
        self.slabs = _Slabs(mean, self.raw.clamp(*LOG_VARIANCE), noise)
        self.square = torch.addcmul(self.slabs.variance, mean, mean)
        self.z = self.slabs.value

    def pull(self, gradient: Tensor, weight: float, out: Tensor) -> None:
        """Fill in the gradient by the head's output."""
        slabs = self.slabs
        mean, raw = out.chunk(2, 1)
        torch.addcdiv(gradient, slabs.mean, self.square, value=weight, out=mean)
        twice = (gradient * slabs.error).addcdiv_(slabs.variance, self.square, value=weight)
        whole = torch.rsub(twice, -0.5 * weight, alpha=-0.5)
        within(whole, self.raw, *LOG_VARIANCE, grad_input=raw)


class SpikeDraws:
    """The codes of a VSC with the fixed prior, with relaxed gates."""

    def __init__(self, heads: Tensor, noise: Noise, spikes: Spikes) -> None:
        self.spikes = spikes
        mean, self.raw, self.f = heads.chunk(3, 1)
        self.log_variance = self.raw.clamp(*LOG_VARIANCE)
        if spikes.warmth != 1:
            mean = mean * spikes.warmth
            self.log_variance.mul_(spikes.warmth)
        self.slabs = _Slabs(mean, self.log_variance, noise)
        self.gamma = self.f.clamp(*LOG_SPIKE).exp_()
        uniform = noise.uniform("spike", 1, mean.shape[1])[:, 0]
        self.gate = (uniform + (self.gamma - 1)).mul_(spikes.sharpness).sigmoid_()
        self.z = self.gate * self.slabs.value

    def pull(self, gradient: Tensor, weight: float, out: Tensor) -> None:
        """Fill in the gradient by the head's output."""
        slabs, gamma, warmth = self.slabs, self.gamma, self.spikes.warmth
        mean, raw, spike = out.chunk(3, 1)
        gated = gradient * self.gate
        torch.addcmul(gated, gamma, slabs.mean, value=weight, out=mean)
        less = torch.addcmul(gamma, gamma, slabs.variance, value=-1).mul_(-0.5 * weight)
        less.addcmul_(gated, slabs.error, value=0.5)
        if warmth != 1:
            mean.mul_(warmth)
            less.mul_(warmth)
        within(less, self.raw, *LOG_VARIANCE, grad_input=raw)
        within(self._pull_spikes(gradient, weight), self.f, *LOG_SPIKE, grad_input=spike)

    def _pull_spikes(self, gradient: Tensor, weight: float) -> Tensor:
        """Return the gradient by the logarithm of gamma."""
        slope = torch.ops.aten.sigmoid_backward(gradient * self.slabs.value, self.gate)
        whole = torch.add(self._added().mul_(weight), slope, alpha=self.spikes.sharpness)
        return whole.mul_(self.gamma)

    def _added(self) -> Tensor:
        """Return the derivative of the KL divergence by gamma."""
        alpha, slabs = self.spikes.alpha, self.slabs
        odds = math.log(alpha / (1 - alpha)) + 0.5
        square = torch.addcmul(slabs.variance, slabs.mean, slabs.mean)
        slab = square.sub_(self.log_variance)
        return torch.add(self.gamma.logit(), slab, alpha=0.5).sub_(odds)


def draw_codes(model: VAE, heads: Tensor, noise: Noise) -> Draws:
    """Draw codes, given the output of the encoder's head."""
    if isinstance(model, VSC):
        return SpikeDraws(heads, noise, model.spikes)
    if isinstance(model, SDM):
        return DictionaryDraws(heads, noise)
    return GaussianDraws(heads, noise)


def can_draw(model: VAE) -> bool:
    """Return whether this module can draw the codes of a model."""
    return type(model) in (VAE, SDM) or (type(model) is VSC and model.pseudo is None)
