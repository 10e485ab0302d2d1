"""Baselines for sounds with white noise or missing samples, and the groups of windows that
`denoise` uses by default. Baselines for noise are given its level, unlike models and groups.
"""

from collections.abc import Callable

import numpy as np

from distvae.data.signals import Signal
from distvae.files.refusal import Refusal
from distvae.numerics.array_types import Floats
from distvae.system import available_cores
from distvae.tasks.baselines.gaps import FILLERS
from distvae.tasks.baselines.names import find_method
from distvae.tasks.sound_groups import restore as by_groups

Denoiser = Callable[[Floats, float, int], Floats]
"""A function of one channel, its noise level and its rate."""
Gain = Callable[[Floats, Floats], Floats]
"""A function of the prior and posterior signal-to-noise ratios of each frequency."""

SECONDS = 0.064
"""Length of a frame in seconds; frames overlap by three quarters."""
FLOOR = 10**-2.5
"""The smallest prior ratio, which lowers noise by 25 dB."""
NEIGHBOURS = 5
"""Samples in the window of the local filter."""


def restore(name: str, corrupted: Signal, sigma: float) -> Floats:
    """Denoise a sound, or fill in its missing samples, channel by channel."""
    assert corrupted.rate is not None
    rate, channels = corrupted.rate, corrupted.values.T
    missing = np.isnan(channels)
    if missing.all(1).any():
        raise Refusal(f"{name}: a channel without a sample to go by; one or more expected")
    if missing.any():
        fill = find_method(name, FILLERS, "a sound without some samples")
        return np.stack([fill(channel, rate) for channel in channels], -1)
    if name == "groups":
        return by_groups(corrupted.values, threads=available_cores(), rate=rate).values
    denoise = find_method(name, DENOISERS, "a sound under noise")
    return np.stack([denoise(channel, sigma, rate) for channel in channels], -1)


def zero(noisy: Floats, sigma: float, rate: int) -> Floats:
    """Return silence, whose error is the signal."""
    return np.zeros_like(noisy)


def local(noisy: Floats, sigma: float, rate: int) -> Floats:
    """Filter by `scipy.signal.wiener`, which shrinks samples towards their local mean."""
    from scipy.signal import wiener

    # SciPy divides by zero where nothing varies, and then does not use the result
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(wiener(noisy, NEIGHBOURS, _power(sigma)))


def wiener(noisy: Floats, sigma: float, rate: int) -> Floats:
    """Apply the Wiener filter to each frequency and frame.

    The smoothing is 0.9: on seven sounds, 0.98 gained 1 dB less.
    """
    return _filtered(noisy, sigma, rate, wiener_gain, 0.9)


def stsa(noisy: Floats, sigma: float, rate: int) -> Floats:
    """Minimise the expected squared error of spectral amplitudes (Ephraim and Malah, 1984)."""
    return _filtered(noisy, sigma, rate, stsa_gain, 0.98)


DENOISERS: dict[str, Denoiser] = {"zero": zero, "local": local, "wiener": wiener, "stsa": stsa}


def wiener_gain(prior: Floats, posterior: Floats) -> Floats:
    """Return the gain of least expected squared error for a Gaussian signal in Gaussian noise."""
    return prior / (1 + prior)


def stsa_gain(prior: Floats, posterior: Floats) -> Floats:
    """Return the expected amplitude of a Gaussian signal divided by the observed amplitude."""
    from scipy.special import i0e, i1e

    v = prior / (1 + prior) * posterior
    return np.asarray(
        np.sqrt(np.pi * v) / (2 * posterior) * ((1 + v) * i0e(v / 2) + v * i1e(v / 2))
    )


def _power(sigma: float) -> float:
    """Return the power of the noise, never quite zero."""
    return max(sigma**2, float(np.finfo(float).eps) ** 2)


def _filtered(noisy: Floats, sigma: float, rate: int, gain: Gain, smoothing: float) -> Floats:
    """Multiply the short-time spectrum by a gain."""
    from scipy.signal import ShortTimeFFT
    from scipy.signal.windows import hann

    window = hann(min(4 * round(SECONDS * rate / 4), len(noisy)), sym=False)
    transform = ShortTimeFFT(window, max(1, len(window) // 4), rate)
    spectrum = transform.stft(noisy)
    power = _power(sigma) * np.square(window).sum()
    posterior = np.maximum(np.square(np.abs(spectrum)) / power, np.finfo(float).eps)
    return np.asarray(transform.istft(spectrum * _gains(posterior, gain, smoothing), k1=len(noisy)))


def _gains(posterior: Floats, gain: Gain, smoothing: float) -> Floats:
    """Return gains (bins, frames), with decision-directed smoothing of the prior ratio."""
    gains = np.empty_like(posterior)
    passed = np.maximum(posterior[:, 0] - 1, 0)
    for frame, ratio in enumerate(posterior.T):
        prior = np.maximum(smoothing * passed + (1 - smoothing) * np.maximum(ratio - 1, 0), FLOOR)
        gains[:, frame] = np.minimum(gain(prior, ratio), 1)
        passed = np.square(gains[:, frame]) * ratio
    return gains
