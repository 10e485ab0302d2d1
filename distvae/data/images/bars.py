"""Bars (Foeldiak 1990): the data whose hidden causes everyone can see."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from distvae.config import BarsData
from distvae.data.dataset import Array, Dataset
from distvae.files.memory import require_memory

TAKEN = 24
"""Bytes of each value while images are made: noise and sums in float64, and the float32 that is
kept.
"""


def parts(size: int) -> Array:
    """(2 * size, size^2): every vertical and every horizontal bar."""
    square = np.eye(size, dtype=np.float32)
    vertical, horizontal = (
        np.repeat(square[:, None], size, 1),
        np.repeat(square[:, :, None], size, 2),
    )
    return np.concatenate([vertical, horizontal]).reshape(2 * size, size * size)


def seen(active: Array, correlated: bool) -> Array:
    """(rows, 2 * size) of zeros and ones: the bars to be seen of those that are active."""
    if not correlated:
        return active
    hidden = active.copy()
    hidden[:, 1] *= 1 - active[:, 0]
    hidden[:, 0] *= 1 - active[:, -1]
    return hidden


def open_bars(config: BarsData) -> Dataset:
    """Images of superimposed bars under noise. They are judged on what they were trained on."""
    require_memory(
        f"data.rows: {config.rows}",
        TAKEN * config.rows * config.dims,
        "images and their noise",
        "a smaller number",
    )
    chance = np.random.default_rng(config.seed)
    causes = parts(config.size)
    active = (chance.random((config.rows, len(causes))) < config.active / len(causes)).astype(
        np.float32
    )
    noise = chance.normal(0, np.sqrt(config.variance), (config.rows, causes.shape[1]))
    x = (seen(active, config.correlated) @ causes + noise).astype(np.float32)
    digest = hashlib.sha256(
        json.dumps(asdict(config) | {"path": ""}).encode() + x.tobytes()
    ).hexdigest()
    return Dataset(
        "bars", "image", digest, {"train": x, "val": x, "test": x}, Path(), shape=config.shape
    )
