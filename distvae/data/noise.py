"""The noise in data: white noise in rows, the noise of a picture, and noise that grows with
brightness.

Signals vary in some directions of a window, white noise equally in all. So the smallest eigenvalues
of the covariance of rows come from the noise alone. The largest set of them whose mean is at most
its median is taken (Chen, Zhu and Heng, "An efficient statistical method for image noise level
estimation", ICCV 2015).

Noise of a camera, of film and of JPEG is not white: neighbouring pixels share it. Its covariance is
measured on the flattest blocks of the picture, where there is little else. White noise has the
level of the finest detail of these blocks.

The noise of counts, cameras and scanners grows with brightness. A value is a count of events times
a gain, and Gaussian noise: its variance is `gain x + offset`. A square root makes this noise nearly
alike everywhere (Anscombe, 1948). The way back inverts the mean of the root, because its square
would be too dark (Makitalo and Foi, 2011).
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor

from distvae.data.dataset import Rows
from distvae.numerics.arrays import Doubles, Floats

READ_TOGETHER = 1024
"""Rows that are read together."""


def noise_floor(rows: Rows) -> float:
    """Return the standard deviation of the white noise in rows (N, D) without missing values; 0
    from too few rows to vary in D directions.
    """
    if len(rows) <= rows.shape[1]:
        return 0.0
    variances = np.linalg.eigvalsh(covariance(rows))
    counts = np.arange(1, len(variances) + 1)
    averages = variances.cumsum() / counts
    medians = (variances[(counts - 1) // 2] + variances[counts // 2]) / 2
    even = np.flatnonzero(averages <= medians)
    return float(np.sqrt(max(averages[even[-1]], 0.0)))


def covariance(rows: Rows) -> Doubles:
    """Return the covariance (D, D) of rows, which are read block by block."""
    total, products = np.zeros(rows.shape[1]), np.zeros((rows.shape[1], rows.shape[1]))
    for first in range(0, len(rows), READ_TOGETHER):
        block = rows[first : first + READ_TOGETHER].astype(np.float64)
        total += block.sum(0)
        products += block.T @ block
    mean = total / len(rows)
    covariance: Doubles = products / len(rows) - np.outer(mean, mean)
    return covariance


REACH = 6
"""Pixels over which noise may be correlated."""
BLOCK = 16
"""Pixels of a side of the blocks on which the covariance is measured."""
EVERY = 4
"""Pixels from one block to the next."""
FLATTEST = 0.05
"""The share of the blocks that are the flattest."""
AT_ONCE = 1024
"""Blocks whose spectra are in memory at once."""
SMOOTH = 3.0
"""The standard deviation of the blur after which flat blocks are found."""
FINE = np.outer([1, -4, 6, -4, 1], [1, -4, 6, -4, 1]) / 36
"""Weights of a covariance that give the variance of second differences in both directions.

They keep white noise unchanged, and take away most of a picture.
"""
WHITE = 0.12
"""The correlation of neighbouring pixels below which noise is white: flat blocks have texture."""
SPECTRUM = 65
"""Frequencies in each direction at which a spectrum is shown."""
UNEVEN = 2.0
"""The spread of the variances of flat blocks, relative to the spread of noise, that means texture.

Noise is alike everywhere. Texture is not.
"""
DOUBT = " (what neighbouring pixels share may be texture, and stays)"
DECAY = 3.2
"""The power of the correlation of neighbours that pixels two apart have at most, if it is noise.

Of noise blurred by a Gaussian it is 4, of what photographs show 2 to 3.
"""
PROBE = (1981, 1135)
"""The seed of noise that is drawn. Noise that somebody added with a seed of 0 is independent of it.
"""
ROUNDING = 1e-12
"""The least variance of noise, relative to the picture: blocks of one colour have none."""
CONDITION = 3e-3
"""The least variance of a direction of a window that is whitened, relative to the largest."""


@dataclass(frozen=True)
class PictureNoise:
    """Gaussian noise, of each channel of a picture."""

    covariance: Doubles
    """(channels, 2 r + 1, 2 r + 1), by the offset between two pixels; in the middle the variance.
    """
    is_doubtful: bool = False
    """True if neighbouring pixels share something that is rather texture."""

    @classmethod
    def white(cls, levels: Floats) -> "PictureNoise":
        """Return white noise with a standard deviation for each channel."""
        return cls(np.square(np.asarray(levels, np.float64))[:, None, None])

    @classmethod
    def estimate(cls, pictures: Iterable[Floats]) -> "PictureNoise":
        """Return the noise of pictures (channels, height, width) without missing values."""
        found = [[_covariance(plane) for plane in planes] for planes in pictures]
        noise = cls(np.mean([[covariance for covariance, _ in each] for each in found], 0))
        is_shared = noise.correlation >= WHITE
        is_uneven = np.median([each[0][1] for each in found]) > UNEVEN
        is_texture = is_uneven or noise.decays_slowly
        if is_shared and not is_texture:
            return noise
        near = slice(REACH - 2, REACH + 3)
        fine = (noise.covariance[:, near, near] * FINE).sum((1, 2))
        return replace(cls.white(np.sqrt(np.maximum(fine, 0.0))), is_doubtful=is_shared)

    @property
    def levels(self) -> Doubles:
        """The standard deviation of each channel."""
        middle = self.covariance.shape[-1] // 2
        return np.sqrt(np.maximum(self.covariance[:, middle, middle], 0.0))

    @property
    def correlation(self) -> float:
        """The mean correlation of neighbouring pixels in the first channel, whose noise is seen."""
        first, middle = self.covariance[0], self.covariance.shape[-1] // 2
        if not middle or first[middle, middle] <= 0:
            return 0.0
        neighbours = (first[middle, middle + 1] + first[middle + 1, middle]) / 2
        return float(neighbours / first[middle, middle])

    @property
    def decays_slowly(self) -> bool:
        """True if pixels two apart are more correlated than pixels of blurred noise."""
        first, middle = self.covariance[0], self.covariance.shape[-1] // 2
        apart = (first[middle, middle + 2] + first[middle + 2, middle]) / 2
        limit = max(self.correlation, 0.0) ** DECAY + 0.03
        return bool(apart > limit * first[middle, middle])

    @property
    def is_white(self) -> bool:
        """True if pixels share no noise."""
        return bool(self.covariance.shape[-1] == 1)

    def __str__(self) -> str:
        """Return a description of the noise."""
        levels = ", ".join(f"{level:.3g}" for level in self.levels)
        if self.is_white:
            return f"white noise of {levels}{self.doubt}"
        return f"grain of {levels}, {self.kind}"

    @property
    def kind(self) -> str:
        """Return how neighbouring pixels share it, in a few words."""
        return f"neighbouring pixels correlated by {self.correlation:.2f}"

    @property
    def doubt(self) -> str:
        """Return what cannot be told, in a few words."""
        return DOUBT if self.is_doubtful else ""

    def scaled(self, factor: float) -> "PictureNoise":
        """Return the noise of a picture whose values are multiplied by a factor."""
        return replace(self, covariance=self.covariance * factor**2)

    def spectrum(self) -> Doubles:
        """Return the power of the noise of the first channel, white noise of its level having 1.

        Frequencies go from -1/2 to 1/2 cycles per pixel in each direction.
        """
        covariance = self.covariance[0] / max(self.levels[0] ** 2, 1e-300)
        middle = len(covariance) // 2
        padded = np.zeros((SPECTRUM, SPECTRUM))
        padded[: len(covariance), : len(covariance)] = covariance
        power = np.fft.fft2(np.roll(padded, (-middle, -middle), (0, 1))).real
        spectrum: Doubles = np.fft.fftshift(np.maximum(power, 0.0))
        return spectrum

    def drawn(self, shape: tuple[int, ...]) -> Doubles:
        """Return noise of the channels of a picture (channels, height, width), always the same."""
        _, height, width = shape
        spread, middle = np.zeros(shape), self.covariance.shape[-1] // 2
        for y, x in np.ndindex(self.covariance.shape[1:]):
            spread[:, (y - middle) % height, (x - middle) % width] += self.covariance[:, y, x]
        gain = np.sqrt(np.maximum(np.fft.fft2(spread).real, 0.0))
        white = np.random.default_rng(PROBE).standard_normal(shape)
        return np.fft.ifft2(gain * np.fft.fft2(white)).real

    def whiteners(self, size: int) -> tuple[Tensor, Tensor]:
        """Return matrices (channels, D, D) that make the noise of windows white, and back."""
        levels, directions = np.linalg.eigh(
            np.stack([_of_window(c, size) for c in self.covariance])
        )
        levels = np.maximum(levels, CONDITION * levels[:, -1:])[:, None]
        pair = [(directions * levels**power) @ directions.mT for power in (-0.5, 0.5)]
        white, back = (torch.from_numpy(matrix.astype(np.float32)) for matrix in pair)
        return white, back


def blur(plane: Floats, width: float) -> Doubles:
    """Return a channel convolved with a Gaussian of a standard deviation in pixels."""
    reach = int(4 * width + 0.5)
    kernel = np.exp(-0.5 * np.square(np.arange(-reach, reach + 1) / width))
    found = np.asarray(plane, np.float64)
    for axis in (0, 1):
        edges = [(reach, reach) if each == axis else (0, 0) for each in (0, 1)]
        padded = np.pad(found, edges, "symmetric")
        found = sliding_window_view(padded, 2 * reach + 1, axis) @ (kernel / kernel.sum())
    return found


def structure(plane: Floats) -> Doubles:
    """Return the variance of each block of a channel once fine detail is blurred away."""
    block = min(BLOCK, *plane.shape)
    blurred = sliding_window_view(blur(plane, SMOOTH), (block, block))[::EVERY, ::EVERY]
    return np.stack([row.var((1, 2)) for row in blurred])  # a row at a time, for memory


def _covariance(plane: Floats) -> tuple[Doubles, float]:
    """Return the covariance of the noise of a channel, from its flattest blocks without planes,
    and how unlike the blocks are, relative to blocks of pure noise.
    """
    block = min(BLOCK, *plane.shape)
    smooth = structure(plane)
    count = max(8, round(FLATTEST * smooth.size))
    rows, columns = np.divmod(np.argsort(smooth, axis=None, kind="stable")[:count], smooth.shape[1])
    blocks = sliding_window_view(np.asarray(plane, np.float64), (block, block))[::EVERY, ::EVERY]
    offsets, flat, mixed = _planes_removed(block)
    rest = blocks[rows, columns].reshape(len(rows), -1)
    bent = (rest - (rest @ flat) @ flat.T).reshape(-1, block, block)
    strengths = np.square(bent).mean((1, 2))
    middle = np.median(strengths)
    spread = 1.4826 * np.median(np.abs(strengths - middle))
    even = bent[strengths <= middle + 3 * spread]  # a few blocks with texture do not count
    spectrum = np.zeros((2 * block, block + 1))
    for start in range(0, len(even), AT_ONCE):
        some = even[start : start + AT_ONCE]
        spectrum += np.square(np.abs(np.fft.rfft2(some, (2 * block, 2 * block)))).sum(0)
    products = np.fft.irfft2(spectrum / len(even))
    sums = [products[y, x] * (1 if (y, x) == (0, 0) else 2) for y, x in offsets]
    covariance = np.zeros((2 * REACH + 1, 2 * REACH + 1))
    if middle < ROUNDING * plane.var():
        return covariance, 0.0
    for (y, x), value in zip(offsets, np.linalg.solve(mixed, sums), strict=True):
        covariance[REACH + y, REACH + x] = covariance[REACH - y, REACH - x] = value
    expected = np.sqrt(2 * np.square(covariance).sum() / block**2)
    return covariance, float(spread / max(expected, 1e-300))


@lru_cache(maxsize=4)
def _planes_removed(block: int) -> tuple[list[tuple[int, int]], Doubles, Doubles]:
    """Return offsets, a basis of planes on a block, and what removing planes does to covariances.

    With E_k the pairs of pixels at offset k and P the projection, an entry is sum(E_k * P E_l P).
    """
    offsets = [
        (y, x)
        for y in range(REACH + 1)
        for x in range(-REACH, REACH + 1)
        if (y > 0 or x >= 0) and y + abs(x) <= REACH
    ]
    y, x = (axis.ravel() for axis in np.mgrid[:block, :block])
    flat, _ = np.linalg.qr(np.stack([np.ones(block**2), y, x], 1))
    down, across = y[:, None] - y, x[:, None] - x
    pairs = np.stack(
        [((down == a) & (across == b)) | ((down == -a) & (across == -b)) for a, b in offsets]
    ).astype(np.float32)
    projection = np.eye(block**2) - flat @ flat.T
    projected = projection @ pairs @ projection
    return offsets, flat, np.tensordot(pairs, projected, ((1, 2), (1, 2)))


def _of_window(covariance: Doubles, size: int) -> Doubles:
    """Return the covariance (D, D) of the pixels of a window."""
    reach, steps = covariance.shape[-1] // 2, np.arange(size)
    down = steps[:, None, None, None] - steps[None, None, :, None]
    across = steps[None, :, None, None] - steps[None, None, None, :]
    is_near = (np.abs(down) <= reach) & (np.abs(across) <= reach)
    near = covariance[np.clip(down, -reach, reach) + reach, np.clip(across, -reach, reach) + reach]
    return np.where(is_near, near, 0.0).reshape(size**2, size**2)


EVENTS = np.linspace(0, 10, 400) ** 2
"""Expected events of the table of means; beyond it a series stands for it."""
NODES = 60
"""Points of the quadrature over Gaussian noise."""
ROUNDS = 30
"""Weighted fits of a line, each with less weight for blocks far from the one before."""
LEVELS = 12
"""Groups of blocks, by brightness."""
FLATTEST_OF_GROUP = 0.1
"""The share of a group that is flattest: where there is least texture."""
SECOND = np.array([1.0, -2.0, 1.0]) / 6**0.5
"""Second differences keep the variance of white noise, and take away most of a picture."""
CERTAIN = 7.0
"""Standard errors from which growth is not chance, or texture."""
LEAST = 1e-3
"""The least expected variance, relative to the largest, and the least spread about it."""
ROUNDING_OF_FIT = 1e-10
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
        if variance.min() <= ROUNDING_OF_FIT * x.var():
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
        is_noisy = gain * x.mean() > ROUNDING_OF_FIT * x.var()
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
            some = group[flat[: max(4, int(FLATTEST_OF_GROUP * len(group)))]]
            found.append((x[some].mean(), np.median(variance[some])))
    return np.array(found).T


def _blocks(plane: Floats) -> Floats:
    size = min(BLOCK, *plane.shape)
    return sliding_window_view(plane, (size, size))[::EVERY, ::EVERY]
