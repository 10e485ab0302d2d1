"""Restore a sound from groups of its own similar windows.

A sound repeats itself: a vowel after each period of its pitch, a string for as long as it swings.
As in `groups.py`, the population of a reference window holds the most similar windows near it, up
to their sign, and is a low-rank matrix in noise. The noise spectrum is estimated where and when the
sound is quiet. Dividing by it makes the noise white.

The populations together make a pilot, a first estimate of the sound. The pilot gives the power of
the sound in each frequency and frame. Given this power, each amplitude minimises the expected error
of its logarithm (Ephraim and Malah, 1985). Sounds without repetition, for example consonants, are
therefore kept too.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor

from distvae.files.program import refuse_missing
from distvae.numerics.arrays import Doubles, Floats
from distvae.tasks.groups import PRIORS, Report, in_order, silent

RATE = 16000
"""The sampling rate of a sound that does not state its rate."""
STRIDE = 0.004
"""Seconds from one reference window to the next. A window has four strides, a frame four windows;
frames begin a window apart.
"""
RADIUS = 8
"""Search radius, in windows to each side."""
MEMBERS = 128
"""Number of windows in a population."""
BLOCK = 32
"""References that a thread takes at once. The result does not depend on the threads."""
FLOOR = 10**-2.5
"""The smallest power of the sound, relative to the noise, in a frequency and frame."""
PIECE, OVERLAP = 30.0, 1.0
"""Length in seconds of a piece, which has one noise spectrum, and the overlap of two pieces."""
FRAMES, BINS = 7, 3
"""The number of frames and frequencies over which power is averaged to find quiet places."""
QUIET = 0.1
"""The share of the time in which a frequency is quiet."""
BETWEEN, NEAR = 0.25, 12
"""The share of nearby frequencies that lie between tones, and the number of nearby frequencies to
each side.
"""
QUIET_POWER = 0.538
"""The power of white noise in quiet places, relative to its mean power."""
RANGE = 1e-10
"""The smallest power of noise in a frequency, relative to the largest."""
INAUDIBLE = 1e-12
"""The power of noise, relative to the sound, below which noise is ignored."""


class RestoredSound(NamedTuple):
    """A sound without its noise."""

    values: Doubles
    """(samples, channels)"""
    noise: str
    """Describes the removed noise."""
    deviation: None = None
    """Unknown: the errors that are left in a sound are not estimated."""


def restore(
    sound: Floats,
    sigma: float | None = None,
    threads: int = 1,
    report: Report = silent,
    rate: int = RATE,
) -> RestoredSound:
    """Return a sound (samples, channels) without noise. Each channel is restored separately.

    `sigma` is the standard deviation of white noise. By default the noise spectrum of each piece of
    half a minute is estimated. The result is bit-identical for any number of threads.
    """
    refuse_missing("restoring a sound", "scipy")
    size = 4 * max(2, round(STRIDE * rate))
    length, overlap = min(len(sound), round(PIECE * rate)), round(OVERLAP * rate)
    count = 1 + max(0, -(-(len(sound) - length) // max(1, length - overlap)))
    starts = np.linspace(0, len(sound) - length, count).round().astype(int)
    ramp = np.minimum(np.arange(1, length + 1), overlap)
    fade = np.minimum(ramp, ramp[::-1]).astype(np.float64)
    total, powers, weight = np.zeros(sound.shape), np.zeros(sound.shape[1]), np.zeros(len(sound))
    for number, (start, channel) in enumerate(np.ndindex(count, sound.shape[1])):
        piece = slice(starts[start], starts[start] + length)

        def share(done: float, before: int = number) -> None:
            report((before + done) / (count * sound.shape[1]))

        values, power = _piece(sound[piece, channel], size, sigma, threads, share)
        total[piece, channel] += fade * values
        powers[channel] += power / count
        weight[piece] += fade / sound.shape[1]
    levels = ", ".join(f"{level:.3g}" for level in np.sqrt(powers))
    kind = "noise" if sigma is None else "white noise"
    return RestoredSound(total / weight[:, None], f"{kind} of {levels}")


def _piece(
    sound: Floats, size: int, sigma: float | None, threads: int, report: Report
) -> tuple[Doubles, float]:
    """Return one channel of a piece without noise, and the power of the noise."""
    margin = 4 * size
    padded = np.pad(np.asarray(sound, np.float64), margin, "symmetric")
    if sigma is None:
        density = noise_density(padded, size)
    else:
        density = np.full(size + 1, float(sigma) ** 2)
    if density.max() <= INAUDIBLE * np.square(padded).mean():
        return padded[margin:-margin], 0.0
    levels = np.sqrt(np.maximum(density, RANGE * density.max()))
    frequencies = np.fft.rfftfreq(len(padded)), np.fft.rfftfreq(2 * size)
    colour = np.interp(*frequencies, levels)
    white = np.fft.irfft(np.fft.rfft(padded) / colour, len(padded))
    found = _amplitudes(white, _from_groups(white, size, threads, report), size)
    restored = np.fft.irfft(np.fft.rfft(found) * colour, len(padded))
    return restored[margin:-margin], float(np.trapezoid(density) / size)


def noise_density(sound: Doubles, size: int) -> Doubles:
    """Return the power of the noise of a channel for each frequency of a frame.

    White noise has the same power at each frequency: the square of its standard deviation.
    """
    window = torch.hann_window(2 * size, dtype=torch.float64)
    power = _spectrum(sound, window).abs().square().mT / window.square().sum()
    power = power[power.sum(1) > 0]  # digital silence contains no noise to estimate
    if len(power) < FRAMES:
        return np.zeros(size + 1)
    means = torch.nn.functional.avg_pool2d(power[None], (FRAMES, BINS), 1)[0].numpy()
    quiet = np.pad(np.quantile(means, QUIET, 0), BINS // 2 + NEAR, "edge")
    between = np.quantile(sliding_window_view(quiet, 2 * NEAR + 1), BETWEEN, -1)
    return np.asarray(between / QUIET_POWER, np.float64)


def _spectrum(sound: Doubles, window: Tensor) -> Tensor:
    """Return the spectrum (frequencies, frames) of a channel; frames overlap by three quarters."""
    frame, signal = len(window), torch.from_numpy(sound)
    return torch.stft(signal, frame, frame // 4, window=window, return_complex=True)


def _from_groups(white: Doubles, size: int, threads: int, report: Report) -> Doubles:
    """Return the sound that the populations of all references make together."""
    sound = torch.from_numpy(white.astype(np.float32))
    windows, offsets = sound.unfold(0, size, 1), torch.arange(size)[:, None]
    last = len(windows) - 1
    references = torch.from_numpy(np.append(np.arange(0, last, size // 4), last))

    def block(part: Tensor) -> tuple[int, Doubles, Doubles]:
        first = max(0, int(part[0]) - RADIUS * size)
        stop = min(len(white), int(part[-1]) + RADIUS * size + size)
        chosen = nearest(sound[first:stop], part - first, size)
        y = windows[first + chosen].mT
        z, precisions = PRIORS["low rank"](y, y)
        places, weights = (chosen[:, None] + offsets).flatten(), precisions[:, None, None]
        total, weight = torch.zeros(2, stop - first)
        total.index_add_(0, places, (weights * z).flatten())
        weight.index_add_(0, places, weights.expand_as(z).flatten())
        return first, total.numpy(), weight.numpy()

    total, weight = np.zeros((2, len(white)))
    for first, values, weights in in_order(block, references.split(BLOCK), threads, report):
        total[first : first + len(values)] += values
        weight[first : first + len(values)] += weights
    return total / weight


def nearest(sound: Tensor, references: Tensor, size: int) -> Tensor:
    """Return the start (M, n) of each reference and of the windows nearest to it, up to sign."""
    length = 1 << (len(sound) - 1).bit_length()
    windows = sound.unfold(0, size, 1)
    spectra = torch.fft.rfft(windows[references], length).conj() * torch.fft.rfft(sound, length)
    products = torch.fft.irfft(spectra, length)[:, : len(windows)]
    energies = torch.nn.functional.avg_pool1d(sound.square()[None], size, 1) * size
    distances = energies - 2 * products.abs()
    offsets = (torch.arange(len(windows)) - references[:, None]).abs()
    distances[offsets > RADIUS * size] = torch.inf
    distances[offsets == 0] = -torch.inf  # in silence, other windows are equally near
    count = min(MEMBERS, RADIUS * size + 1, len(windows))
    places: Tensor = distances.topk(count, 1, largest=False).indices
    return places


def _amplitudes(white: Doubles, pilot: Doubles, size: int) -> Doubles:
    """Return a sound in white noise of variance 1, with amplitudes estimated from the pilot."""
    window = torch.hann_window(4 * size, dtype=torch.float64).sqrt()
    spectrum, power = _spectrum(white, window), 2 * size  # the power of white noise in this window
    prior = (_spectrum(pilot, window).abs().square() / power).clamp_min(FLOOR)
    posterior = spectrum.abs().square() / power
    restored = spectrum * torch.from_numpy(log_amplitude_gain(prior.numpy(), posterior.numpy()))
    sound = torch.istft(restored, 4 * size, size, window=window, length=len(white))
    return np.asarray(sound.numpy(), np.float64)


def log_amplitude_gain(prior: Doubles, posterior: Doubles) -> Doubles:
    """Return exp(E[log amplitude]) of a Gaussian signal in Gaussian noise over the observed
    amplitude.

    `prior` is the signal's power over the noise power, and `posterior` the observed power over the
    noise power.
    """
    from scipy.special import exp1

    kept = prior / (1 + prior)
    # a bin without power has no output at any gain
    half = 0.5 * exp1(np.maximum(kept * posterior, 1e-10))
    return np.asarray(np.minimum(kept * np.exp(half), 1.0))
