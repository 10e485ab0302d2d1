"""Small data and small models that every test of training shares."""

from pathlib import Path
from typing import Any

import numpy as np

from distvae.config import Config, from_dict
from distvae.data.dataset import Dataset

DIMS = 12
SHAPE = (1, 3, 4)


def config(**sections: dict[str, Any]) -> Config:
    """A model small enough to train in milliseconds; sections are laid over it."""
    amortised = "kind" not in sections.get("estep", {})
    has_net = sections.get("model", {}).get("kind") != "ssc"
    tree: dict[str, dict[str, Any]] = {
        "model": {"latent": 4} | ({"hidden": [8]} if has_net else {}),
        "estep": {"hidden": [8]} if amortised else {},
        "train": {"epochs": 4, "batch": 16, "warmup": 5, "device": "cpu"},
    }
    for section, fields in sections.items():
        tree[section] = tree.get(section, {}) | fields
    return from_dict(tree)


def dataset(rows: int = 100, seed: int = 0) -> Dataset:
    """Powers whose scale varies from row to row and from value to value."""
    chance = np.random.default_rng(seed)
    scale = np.exp(chance.normal(size=(rows, 2)) @ chance.normal(size=(2, DIMS)))
    x = (scale * chance.exponential(size=(rows, DIMS))).astype(np.float32)
    splits = {"train": x[: rows // 2], "val": x[rows // 2 : -10], "test": x[-10:]}
    return Dataset("tiny", "frame", f"tiny-{rows}-{seed}", splits, Path(), shape=SHAPE)
