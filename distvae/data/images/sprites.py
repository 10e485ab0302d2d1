"""Sprites: one shape on a dark square, drawn from five factors that are known.

A pixel's value is the share of it that the shape covers, from the signed distance of its middle to
the outline, so that a shift by a fraction of a pixel changes the picture. No two data points have
all five factors in common.
"""

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from distvae.config import SpritesData
from distvae.data.dataset import Array, Dataset, Factors, Labels
from distvae.numerics.array_types import Doubles
from distvae.numerics.noise import order

FORMAT = 2  # of the drawing; a change gives another digest
LEVELS = {"shape": 3, "scale": 6, "rotation": 10, "x": 16, "y": 16}
RADIUS = 0.25
"""Radius of the circle around the largest shape, in sides of the picture."""
TURN = math.pi / 2
"""The range of the rotation: under a quarter turn even a square's tells."""
DRAWING = -6  # the epoch of the seed whose order says which combinations there are
BLOCK = 1024


def open_sprites(config: SpritesData) -> Dataset:
    """Return the pictures by split."""
    splits = {name: _drawn(part, config.size) for name, part in _divided(config).items()}
    facts = json.dumps([FORMAT, asdict(config) | {"path": ""}])
    return Dataset(
        "sprites",
        "image",
        hashlib.sha256(facts.encode()).hexdigest(),
        splits,
        Path(),
        shape=config.shape,
    )


def factors(config: SpritesData) -> Factors:
    """Return the level of every factor of every picture. Only the shape has no order."""
    return Factors(tuple(LEVELS), tuple(name != "shape" for name in LEVELS), _divided(config))


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
"""The signed distance to the outline of each, along and beside its own axis."""


def _divided(config: SpritesData) -> dict[str, Labels]:
    """Return the levels of each split: the first combinations of an order drawn with the seed."""
    counts = tuple(LEVELS.values())
    chosen = order(config.seed, DRAWING, math.prod(counts))[: config.rows]
    levels = np.stack(np.unravel_index(chosen, counts), -1).astype(np.int64)
    val, test = config.held_out
    train, held, judged = np.split(levels, [config.rows - val - test, config.rows - test])
    return {"train": train, "val": held, "test": judged}


def _drawn(levels: Labels, size: int) -> Array:
    blocks = (
        draw_sprites(levels[start : start + BLOCK], size) for start in range(0, len(levels), BLOCK)
    )
    return np.concatenate(list(blocks)).reshape(len(levels), -1)
