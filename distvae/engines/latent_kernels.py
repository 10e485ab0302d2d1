"""Loops over the values of a code, compiled when first called: draws, divergences and gradients.

`posteriors` says the same in plain torch. The output of an encoder's head has parts of H values
each, such as means and log variances, which lie beside each other: (B, K H). Loops backward take
the gradient by the code (B, H), add that of the weighted divergence, and fill the gradient by the
head. Each inner loop fills one part: those that fill several are not compiled to vector
instructions, and computing a value again costs less.
"""

from distvae.engines.elementary import Real, exp, log
from distvae.models.compiling import compiled, inlined
from distvae.models.posteriors import LOG_VARIANCE
from distvae.models.vsc import Spikes
from distvae.numerics.array_types import Floats

LOW, HIGH = LOG_VARIANCE


@inlined
def _clamp(x: Real, low: Real, high: Real) -> Real:
    """Return x, or the nearest limit; NaN stays NaN."""
    return low if x < low else (high if x > high else x)


@compiled
def draw_gaussian(heads: Floats, epsilon: Floats, z: Floats) -> float:
    """Draw z from Gaussians, and return the sum of their divergences from N(0, I)."""
    real, latent, total = z.dtype.type, z.shape[1], 0.0
    half, one, low, high = real(0.5), real(1), real(LOW), real(HIGH)
    for b in range(z.shape[0]):
        divergence = real(0)
        for h in range(latent):
            mean, log_variance = heads[b, h], _clamp(heads[b, latent + h], low, high)
            deviation = exp(half * log_variance)
            z[b, h] = mean + epsilon[b, h] * deviation
            divergence += mean * mean + deviation * deviation - one - log_variance
        total += float(half * divergence)
    return total


@compiled
def pull_gaussian(
    heads: Floats, epsilon: Floats, gradient: Floats, weight: float, out: Floats
) -> None:
    """Fill the gradient by the head of Gaussians."""
    real, latent = out.dtype.type, gradient.shape[1]
    half, one, low, high, share = real(0.5), real(1), real(LOW), real(HIGH), real(weight)
    for b in range(gradient.shape[0]):
        for h in range(latent):
            out[b, h] = gradient[b, h] + share * heads[b, h]
        for h in range(latent):
            raw = heads[b, latent + h]
            deviation = exp(half * _clamp(raw, low, high))
            drawn = gradient[b, h] * epsilon[b, h] * deviation
            whole = half * (drawn + share * (deviation * deviation - one))
            out[b, latent + h] = whole if low <= raw <= high else real(0)


@compiled
def draw_dictionary(heads: Floats, epsilon: Floats, z: Floats, gamma: Floats) -> float:
    """Draw z from Gaussians, and return the sum of their divergences from N(0, gamma).

    Fill gamma (H,) with its sums over rows.
    """
    real, latent, total = z.dtype.type, z.shape[1], 0.0
    half, low, high = real(0.5), real(LOW), real(HIGH)
    gamma[:] = 0
    for b in range(z.shape[0]):
        divergence = real(0)
        for h in range(latent):
            mean, log_variance = heads[b, h], _clamp(heads[b, latent + h], low, high)
            deviation = exp(half * log_variance)
            z[b, h] = mean + epsilon[b, h] * deviation
            divergence += log(mean * mean + deviation * deviation) - log_variance
        for h in range(latent):
            mean, log_variance = heads[b, h], _clamp(heads[b, latent + h], low, high)
            gamma[h] += mean * mean + exp(log_variance)
        total += float(half * divergence)
    return total


@compiled
def pull_dictionary(
    heads: Floats, epsilon: Floats, gradient: Floats, weight: float, out: Floats
) -> None:
    """Fill the gradient by the head of Gaussians against N(0, gamma)."""
    real, latent = out.dtype.type, gradient.shape[1]
    half, low, high, share = real(0.5), real(LOW), real(HIGH), real(weight)
    for b in range(gradient.shape[0]):
        for h in range(latent):
            mean, variance = heads[b, h], exp(_clamp(heads[b, latent + h], low, high))
            out[b, h] = gradient[b, h] + share * mean / (mean * mean + variance)
        for h in range(latent):
            mean, raw = heads[b, h], heads[b, latent + h]
            deviation = exp(half * _clamp(raw, low, high))
            drawn = gradient[b, h] * epsilon[b, h] * deviation
            explained = mean * mean / (mean * mean + deviation * deviation)
            whole = half * (drawn - share * explained)
            out[b, latent + h] = whole if low <= raw <= high else real(0)


@inlined
def _spike(f: Real, half: Real, least: Real, most: Real) -> Real:
    """Return the probability of a spike: e^f where f is negative, else one, clamped."""
    return _clamp(exp(half * (f - abs(f))), least, most)


@inlined
def _gate(uniform: Real, gamma: Real, sharpness: Real, one: Real) -> Real:
    """Return the relaxed gate."""
    return one / (one + exp(-sharpness * (uniform + (gamma - one))))


@compiled
def draw_spikes(heads: Floats, noise: tuple[Floats, Floats], spikes: Spikes, z: Floats) -> float:
    """Draw z with relaxed gates, and return the sum of the divergences from spikes of alpha.

    The noise is normal and uniform.
    """
    (epsilon, uniform), real, latent, total = noise, z.dtype.type, z.shape[1], 0.0
    half, one, low, high = real(0.5), real(1), real(LOW), real(HIGH)
    alpha, sharpness, warmth = real(spikes.alpha), real(spikes.sharpness), real(spikes.warmth)
    least, most = real(spikes.least), real(1 - spikes.least)
    for b in range(z.shape[0]):
        divergence = real(0)
        for h in range(latent):
            gamma = _spike(heads[b, 2 * latent + h], half, least, most)
            mean = warmth * heads[b, h]
            log_variance = warmth * _clamp(heads[b, latent + h], low, high)
            deviation = exp(half * log_variance)
            gate = _gate(uniform[b, h], gamma, sharpness, one)
            z[b, h] = gate * (mean + epsilon[b, h] * deviation)
            slab = half * (mean * mean + deviation * deviation - one - log_variance)
            absent = log((one - gamma) / (one - alpha))
            divergence += gamma * (slab + log(gamma / alpha)) + (one - gamma) * absent
        total += float(divergence)
    return total


@compiled
def pull_spikes(
    heads: Floats,
    noise: tuple[Floats, Floats],
    gradient: Floats,
    weight: float,
    spikes: Spikes,
    out: Floats,
) -> None:
    """Fill the gradient by the head of spikes and slabs."""
    (epsilon, uniform), real, latent = noise, out.dtype.type, gradient.shape[1]
    half, one, low, high, share = real(0.5), real(1), real(LOW), real(HIGH), real(weight)
    alpha, sharpness, warmth = real(spikes.alpha), real(spikes.sharpness), real(spikes.warmth)
    least, most = real(spikes.least), real(1 - spikes.least)
    odds = alpha / (one - alpha)
    for b in range(gradient.shape[0]):
        for h in range(latent):
            gamma = _spike(heads[b, 2 * latent + h], half, least, most)
            gate = _gate(uniform[b, h], gamma, sharpness, one)
            mean = warmth * heads[b, h]
            out[b, h] = warmth * (gradient[b, h] * gate + share * gamma * mean)
        for h in range(latent):
            gamma, raw = _spike(heads[b, 2 * latent + h], half, least, most), heads[b, latent + h]
            gate = _gate(uniform[b, h], gamma, sharpness, one)
            deviation = exp(half * warmth * _clamp(raw, low, high))
            drawn = gradient[b, h] * gate * epsilon[b, h] * deviation
            excess = share * gamma * (deviation * deviation - one)
            out[b, latent + h] = warmth * half * (drawn + excess) if low <= raw <= high else real(0)
        for h in range(latent):
            f = heads[b, 2 * latent + h]
            gamma = _spike(f, half, least, most)
            gate = _gate(uniform[b, h], gamma, sharpness, one)
            mean = warmth * heads[b, h]
            log_variance = warmth * _clamp(heads[b, latent + h], low, high)
            deviation = exp(half * log_variance)
            slope = sharpness * gate * (one - gate) * (mean + epsilon[b, h] * deviation)
            slab = half * (mean * mean + deviation * deviation - one - log_variance)
            spike = log(gamma / ((one - gamma) * odds))
            whole = gamma * (gradient[b, h] * slope + share * (slab + spike))
            out[b, 2 * latent + h] = whole if least < gamma < most else real(0)
