"""Noise whose variance grows with brightness, like the noise of counts, cameras and scanners.

A value is a count of events times a gain, and Gaussian noise: its variance is `gain x + offset`. A
square root makes this noise nearly alike everywhere (Anscombe, 1948). The way back inverts the mean
of the root, because its square would be too dark (Makitalo and Foi, 2011).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from distvae.data.picture_noise import BLOCK, EVERY, structure
from distvae.numerics.array_types import Doubles, Floats

EVENTS = np.linspace(0, 10, 400) ** 2
"""Expected events of the table of means; beyond it a series stands for it."""
NODES = 60
"""Points of the quadrature over Gaussian noise."""
ROUNDS = 30
"""Weighted fits of a line, each with less weight for blocks far from the one before."""
LEVELS = 12
"""Groups of blocks, by brightness."""
FLATTEST = 0.1
"""The share of a group that is flattest: where there is least texture."""
SECOND = np.array([1.0, -2.0, 1.0]) / 6**0.5
"""Second differences keep the variance of white noise, and take away most of a picture."""
CERTAIN = 7.0
"""Standard errors from which growth is not chance, or texture."""
LEAST = 1e-3
"""The least expected variance, relative to the largest, and the least spread about it."""
ROUNDING = 1e-10
"""The largest variance of rounding, relative to the variance of the picture."""
RATIO = 1.5
"""The variance of bright blocks relative to dark ones from which it matters."""
NEAR = 0.4
"""How far a gain may be from the step between values, relative to it, to be it."""


@dataclass(frozen=True)
class NoiseGrowth:
    """Noise of variance `gain x + offset`, where x is what the picture shows without it."""

    gain: float
    offset: float

    @classmethod
    def estimate(cls, pictures: Iterable[Floats]) -> "NoiseGrowth | None":
        """Return how the noise of pictures (height, width, channels) grows, or None."""
        found = [_levels(picture) for picture in pictures if min(picture.shape[:2]) >= 2 * BLOCK]
        if not found:
            return None
        x, variance = np.concatenate(found, 1)
        if variance.min() <= ROUNDING * x.var():
            return None
        line = np.stack([x, np.ones(len(x))], 1)
        weights = np.ones(len(x)) / np.median(variance)
        for _ in range(ROUNDS):
            scaled = line * weights[:, None]
            (gain, offset), *_ = np.linalg.lstsq(scaled, variance * weights)
            expected = np.maximum(line @ (gain, offset), LEAST * variance.max())
            rest = np.abs(variance / expected - 1)
            spread = 1.4826 * np.median(rest) + LEAST
            weights = np.sqrt(np.minimum(1, 1.5 * spread / np.maximum(rest, LEAST))) / expected
        errors = spread * np.sqrt(np.diag(np.linalg.inv(scaled.T @ scaled)))
        if gain < CERTAIN * errors[0] or expected.max() < RATIO * expected.min():
            return None
        if -2 * errors[1] < offset < 0:  # counts alone: nothing says that their dark is not 0
            gain, offset = _gain(x, variance), 0.0
        return cls(float(gain), float(offset))

    @classmethod
    def counts(cls, pictures: Iterable[Floats]) -> "NoiseGrowth":
        """Return the noise of counts times a gain, which is learned.

        It is the step between values if that is near: counts are then stored as they are.
        """
        found, step = [], np.inf
        for picture in pictures:
            found.append(_levels(picture))
            step = np.diff(np.unique(picture)).min(initial=step)
        x, variance = np.concatenate(found, 1)
        gain, step = _gain(x, variance), float(step)
        is_noisy = gain * x.mean() > ROUNDING * x.var()
        return cls(gain if is_noisy and abs(gain / step - 1) > NEAR else step, 0.0)

    def __str__(self) -> str:
        """Return a description of the noise."""
        found = f"noise that grows with brightness: variance {self.gain:.3g} x"
        sign = "-" if self.offset < 0 else "+"
        return f"{found} {sign} {abs(self.offset):.3g}" if self.offset else found

    @property
    def spread(self) -> float:
        """The variance of the Gaussian noise, in squared events."""
        return max(self.offset, 0.0) / self.gain**2

    @property
    def dark(self) -> float:
        """The value of no event."""
        return max(-self.offset, 0.0) / self.gain

    def scaled(self, factor: float) -> "NoiseGrowth":
        """Return noise whose variance is multiplied by a factor."""
        return NoiseGrowth(self.gain * factor, self.offset * factor)

    def stabilised(self, values: Floats, share: float = 1.0) -> Doubles:
        """Return values, with a share of this noise, whose noise has nearly variance 1."""
        inside = (values - self.dark) / self.gain + 3 / 8 * share**2 + self.spread
        stable: Doubles = 2 * np.sqrt(np.maximum(inside, 0.0)) / share
        return stable

    def back(self, means: Floats, share: float = 1.0) -> Doubles:
        """Return the values whose noise, or a share of it, gives these means when stabilised."""
        table = self.means(EVENTS, share)
        near = np.interp(means, table, EVENTS)
        far = share**2 * ((means / 2) ** 2 - 1 / 8) - self.spread
        found: Doubles = self.gain * np.where(means > table[-1], far, near) + self.dark
        return found

    def means(self, events: Doubles, share: float = 1.0) -> Doubles:
        """Return the mean of the stabilised values, given expected events."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(NODES if self.spread else 1)
        counts = np.arange(events.max() + 12 * events.max() ** 0.5 + 30)
        logs = np.concatenate([[0.0], np.cumsum(np.log(counts[1:]))])
        rates = np.maximum(events, 1e-300)[:, None]
        chances = np.exp(counts * np.log(rates) - rates - logs)
        total = np.zeros(len(events))
        for node, weight in zip(nodes, weights / weights.sum(), strict=True):
            noisy = share * (counts + node * self.spread**0.5) + (1 - share) * rates
            values = self.gain * noisy + self.dark
            total += weight * (chances * self.stabilised(values, share)).sum(1)
        return total


def _gain(x: Doubles, variance: Doubles) -> float:
    """Return the variance of counts relative to their means."""
    return float(np.median(variance[x > 0] / x[x > 0]))


def _levels(picture: Floats) -> Doubles:
    """Return mean and variance (2, groups) of the flat blocks of each channel, by brightness."""
    found = []
    for plane in np.moveaxis(picture, -1, 0):
        finest = sliding_window_view(sliding_window_view(plane, 3, 0) @ SECOND, 3, 1) @ SECOND
        inner = plane[1:-1, 1:-1]
        x, variance = (_blocks(each).mean((2, 3)).ravel() for each in (inner, finest**2))
        uneven = structure(inner).ravel()
        for group in np.array_split(np.argsort(x, kind="stable"), min(LEVELS, len(x))):
            flat = np.argsort(uneven[group], kind="stable")
            some = group[flat[: max(4, int(FLATTEST * len(group)))]]
            found.append((x[some].mean(), np.median(variance[some])))
    return np.array(found).T


def _blocks(plane: Floats) -> Floats:
    size = min(BLOCK, *plane.shape)
    return sliding_window_view(plane, (size, size))[::EVERY, ::EVERY]
