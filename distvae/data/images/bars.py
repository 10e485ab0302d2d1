"""Bars (Foeldiak 1990): generated images whose hidden causes are known."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from distvae.config import BarsData
from distvae.data.dataset import Array, Combinations, Dataset
from distvae.files.memory import require_memory

COMBINATIONS = Combinations(
    impossible=((0, 1), (-1, 0)),
    possible=((1, 2, 3, 5, 6), (2, 3, 4, 5, 6), (2, 3), (3, 5), (4, 6)),
)
"""Combinations of correlated bars: two that are never seen together, two with more bars than usual,
and three usual ones.
"""
BYTES_PER_VALUE = 24
"""Memory for a value while images are made: noise and sums in float64, and the float32 result."""


def all_bars(size: int) -> Array:
    """Return (2 * size, size^2): every vertical and every horizontal bar."""
    square = np.eye(size, dtype=np.float32)
    vertical, horizontal = (
        np.repeat(square[:, None], size, 1),
        np.repeat(square[:, :, None], size, 2),
    )
    return np.concatenate([vertical, horizontal]).reshape(2 * size, size * size)


def visible_bars(active: Array, correlated: bool) -> Array:
    """Return (rows, 2 * size) zeros and ones: the active bars that can be seen."""
    if not correlated:
        return active
    hidden = active.copy()
    hidden[:, 1] *= 1 - active[:, 0]
    hidden[:, 0] *= 1 - active[:, -1]
    return hidden


def open_bars(config: BarsData) -> Dataset:
    """Return images of superimposed bars under noise, the same ones for every split."""
    require_memory(
        f"data.rows: {config.rows}",
        BYTES_PER_VALUE * config.rows * config.dims,
        "images and their noise",
        "a smaller number",
    )
    chance = np.random.default_rng(config.seed)
    causes = all_bars(config.size)
    active = (chance.random((config.rows, len(causes))) < config.active / len(causes)).astype(
        np.float32
    )
    noise = chance.normal(0, np.sqrt(config.variance), (config.rows, causes.shape[1]))
    x = (visible_bars(active, config.correlated) @ causes + noise).astype(np.float32)
    digest = hashlib.sha256(
        json.dumps(asdict(config) | {"path": ""}).encode() + x.tobytes()
    ).hexdigest()
    return Dataset(
        "bars", "image", digest, {"train": x, "val": x, "test": x}, Path(), shape=config.shape
    )
