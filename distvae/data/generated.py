"""Generated data: bars under noise, whose hidden causes are known (Foeldiak 1990), sprites, whose
factors are known, and sparse combinations of known atoms.

A sprite shows one shape on a dark square, drawn from five factors. A pixel's value is the share of
the pixel that the shape covers, from the signed distance of its middle to the outline, so that a
shift by a fraction of a pixel changes the picture. No two data points have all five factors in
common.
"""

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distvae.config import AtomsData, BarsData, DataConfig, SpritesData
from distvae.data.dataset import Array, Combinations, Dataset, Factors, Labels
from distvae.data.family import DataFamily, family_of, register
from distvae.data.folders import key_of
from distvae.data.images import ReadsImages
from distvae.files.paths import require_memory
from distvae.numerics.arrays import Doubles
from distvae.numerics.noise import order

FORMAT = 2
"""Version of the drawing of sprites. Another version has another digest."""
LEVELS = {"shape": 3, "scale": 6, "rotation": 10, "x": 16, "y": 16}
RADIUS = 0.25
"""Radius of the circle around the largest shape, in sides of the picture."""
TURN = math.pi / 2
"""The range of the rotation. A quarter turn would give a square again."""
DRAWING = -6
"""The epoch of the seed whose order says which combinations of factors are drawn."""
BLOCK = 1024
"""Pictures or rows that are drawn together."""
SPLITS = "train", "val", "test"
COMBINATIONS = Combinations(
    impossible=((0, 1), (-1, 0)),
    possible=((1, 2, 3, 5, 6), (2, 3, 4, 5, 6), (2, 3), (3, 5), (4, 6)),
)
"""Combinations of correlated bars: two that are never seen together, two with more bars than usual,
and three usual ones.
"""
BYTES_PER_VALUE = 24
"""Memory for a value while images are made: noise and sums in float64, and the float32 result."""


@register(BarsData)
class BarsFamily(DataFamily[BarsData]):
    """Generated pictures of bars under noise."""

    @property
    def probability(self) -> float:
        """Probability that a bar is active."""
        return self.config.active / (2 * self.config.size)

    @property
    def variance(self) -> float:
        """Variance of the noise."""
        return self.config.variance

    def open(self, quiet: bool = False) -> Dataset:
        """Return images of superimposed bars under noise, the same images for every split."""
        config = self.config
        require_memory(
            f"data.rows: {config.rows}",
            BYTES_PER_VALUE * config.rows * config.dims,
            "images and their noise",
            "a smaller number",
        )
        chance, causes = np.random.default_rng(config.seed), self.causes()
        drawn = chance.random((config.rows, len(causes)))
        active = (drawn < config.active / len(causes)).astype(np.float32)
        noise = chance.normal(0, np.sqrt(config.variance), (config.rows, causes.shape[1]))
        x = (self.visible(active) @ causes + noise).astype(np.float32)
        facts = json.dumps(asdict(config) | {"path": ""}).encode()
        digest = hashlib.sha256(facts + x.tobytes()).hexdigest()
        splits = {"train": x, "val": x, "test": x}
        return Dataset("bars", "image", digest, splits, Path(), shape=config.shape)

    def causes(self) -> Array:
        """Return (2 * size, size^2): every bar alone."""
        return all_bars(self.config.size)

    def visible(self, active: Array) -> Array:
        """Return (N, 2 * size): the bars that can be seen when some are active."""
        if not self.config.correlated:
            return active
        seen = active.copy()
        seen[:, 1] *= 1 - active[:, 0]
        seen[:, 0] *= 1 - active[:, -1]
        return seen

    def combinations(self) -> Combinations | None:
        """Return combinations of correlated bars; None for independent or too few bars."""
        largest = max(max(bars) for bars in (*COMBINATIONS.impossible, *COMBINATIONS.possible))
        if not self.config.correlated or self.config.size <= largest / 2:
            return None
        return COMBINATIONS


@register(SpritesData)
class SpritesFamily(ReadsImages[SpritesData]):
    """Generated pictures of one shape each."""

    def open(self, quiet: bool = False) -> Dataset:
        """Return the pictures by split."""
        splits = {}
        for name, levels in self._levels().items():
            starts = range(0, len(levels), BLOCK)
            blocks = [draw_sprites(levels[k : k + BLOCK], self.config.size) for k in starts]
            splits[name] = np.concatenate(blocks).reshape(len(levels), -1)
        digest = key_of([FORMAT, asdict(self.config) | {"path": ""}])
        return Dataset("sprites", "image", digest, splits, Path(), shape=self.config.shape)

    def labels(self) -> dict[str, Labels] | None:
        """Return the shape in every picture by split."""
        return {name: levels[:, 0] for name, levels in self._levels().items()}

    def factors(self) -> Factors:
        """Return the level of every factor of every picture. Only the shape has no order."""
        return Factors(tuple(LEVELS), tuple(name != "shape" for name in LEVELS), self._levels())

    def _levels(self) -> dict[str, Labels]:
        """Return the levels of each split, in an order of all combinations that the seed draws."""
        config, counts = self.config, tuple(LEVELS.values())
        chosen = order(config.seed, DRAWING, math.prod(counts))[: config.rows]
        levels = np.stack(np.unravel_index(chosen, counts), -1).astype(np.int64)
        val, test = config.held_out
        ends = [config.rows - val - test, config.rows - test]
        return dict(zip(("train", "val", "test"), np.split(levels, ends), strict=True))


@register(AtomsData)
class AtomsFamily(DataFamily[AtomsData]):
    """Sparse combinations of atoms that are known (Barin Pacela et al., arXiv 2603.28744).

    A row of training or validation has the first atom and atoms of the first half, or any atoms but
    the first, with equal probability. A test row has the first atom and atoms of the second half.
    """

    def open(self, quiet: bool = False) -> Dataset:
        """Return the rows by split."""
        config = self.config
        require_memory(
            f"data.rows: {config.rows}",
            len(SPLITS) * config.rows * (4 * config.dims + 16 * config.active),
            "rows and their coefficients",
            "a smaller number",
        )
        atoms, splits = self.atoms(), {}
        for name, codes in self.codes().items():
            starts = range(0, config.rows, BLOCK)
            splits[name] = np.concatenate([codes.dense(k, k + BLOCK) @ atoms for k in starts])
        digest = key_of([FORMAT, asdict(config) | {"path": ""}])
        return Dataset("atoms", "row", digest, splits, Path())

    def atoms(self) -> Array:
        """Return the atoms (n, D), of norm 1."""
        config = self.config
        drawn = self._chance(0).normal(size=(config.atoms, config.dims))
        norms: Doubles = np.linalg.norm(drawn, axis=1, keepdims=True)
        return (drawn / norms).astype(np.float32)

    def codes(self) -> "dict[str, SparseCodes]":
        """Return the coefficients of the rows by split."""
        config, found = self.config, {}
        half = config.atoms - config.atoms // 2
        for number, name in enumerate(SPLITS, 1):
            chance = self._chance(number)
            place = np.empty((config.rows, config.active), np.int64)
            for start in range(0, config.rows, BLOCK):
                part = place[start : start + BLOCK]
                key = chance.random((len(part), config.atoms), np.float32)
                has_first = chance.random(len(part)) < (1.0 if name == "test" else 0.5)
                key[:, 0] = np.where(has_first, -1, 2)
                left_out = slice(1, half) if name == "test" else slice(half, None)
                key[has_first, left_out] = 2
                part[:] = np.argpartition(key, config.active - 1)[:, : config.active]
            value = chance.random(place.shape, np.float32)
            found[name] = SparseCodes(place, value, config.atoms)
        return found

    def _chance(self, number: int) -> np.random.Generator:
        return np.random.default_rng([self.config.seed, number])


@dataclass(frozen=True)
class SparseCodes:
    """Codes with the same number of values in each row."""

    place: NDArray[np.int64]
    """(N, k) the places of the values."""
    value: Array
    """(N, k) the values."""
    size: int
    """The number of places."""

    def dense(self, start: int, stop: int) -> Array:
        """Return some rows with their zeros."""
        place, value = self.place[start:stop], self.value[start:stop]
        rows = np.zeros((len(place), self.size), np.float32)
        np.put_along_axis(rows, place, value, 1)
        return rows


def causes_of(config: DataConfig) -> BarsFamily | None:
    """Return the data as a superposition of known causes, or None if it is something else."""
    family = family_of(config)
    return family if isinstance(family, BarsFamily) else None


def all_bars(size: int) -> Array:
    """Return (2 * size, size^2): every vertical and every horizontal bar."""
    square = np.eye(size, dtype=np.float32)
    vertical, horizontal = (
        np.repeat(square[:, None], size, 1),
        np.repeat(square[:, :, None], size, 2),
    )
    return np.concatenate([vertical, horizontal]).reshape(2 * size, size * size)


def draw_sprites(levels: Labels, size: int) -> Array:
    """Return (N, size, size) values between 0 and 1 for levels (N, 5)."""
    shape, *others = levels.T
    scale, rotation, x, y = (
        (level / (count - 1))[:, None, None]
        for level, count in zip(others, list(LEVELS.values())[1:], strict=True)
    )
    radius, margin = size * RADIUS * (1 + scale) / 2, size * RADIUS + 1
    angle = rotation * TURN * (1 - 1 / LEVELS["rotation"])
    middle = np.arange(size) + 0.5
    across = middle[None, None, :] - margin - x * (size - 2 * margin)
    down = middle[None, :, None] - margin - y * (size - 2 * margin)
    along = across * np.cos(angle) + down * np.sin(angle)
    beside = down * np.cos(angle) - across * np.sin(angle)
    pictures = np.empty((len(levels), size, size), np.float32)
    for k, distance in enumerate(SHAPES.values()):
        chosen = shape == k
        pictures[chosen] = np.clip(
            0.5 - distance(along[chosen], beside[chosen], radius[chosen]), 0, 1
        )
    return pictures


def _ellipse(x: Doubles, y: Doubles, radius: Doubles) -> Doubles:
    """Return an approximate signed distance to an ellipse half as wide as long: its implicit
    function over the length of the gradient.
    """
    value, slope = np.hypot(x, 2 * y) / radius, np.hypot(x, 4 * y) / radius**2
    # The gradient is zero at the centre.
    return np.where(slope > 0, value * (value - 1) / np.maximum(slope, 1e-9), -radius)


def _polygon(corners: int) -> Callable[[Doubles, Doubles, Doubles], Doubles]:
    """Return the signed distance to a regular polygon in a circle of the radius: the largest
    distance to the lines of its sides.
    """
    normals = 2 * math.pi * np.arange(corners) / corners

    def distance(x: Doubles, y: Doubles, radius: Doubles) -> Doubles:
        apart = [x * math.cos(normal) + y * math.sin(normal) for normal in normals]
        return np.asarray(np.max(apart, axis=0) - radius * math.cos(math.pi / corners))

    return distance


SHAPES = {"ellipse": _ellipse, "square": _polygon(4), "triangle": _polygon(3)}
"""The signed distance to the outline of each shape, along and beside its axis."""
