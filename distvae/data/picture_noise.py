"""The noise of a picture: its level and how neighbouring pixels share it.

Noise of a camera, of film and of JPEG is not white. Its covariance is measured on the flattest
blocks of the picture, where there is little else. White noise has the level of
the finest detail of these blocks.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor

from distvae.numerics.array_types import Doubles, Floats

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
