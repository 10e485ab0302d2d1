"""Data and a sweep that tests of sweeps share."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from filelock import FileLock

from tests.tune.sweeps import STEADY, Sweep, figures


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a few small random images in MNIST's format."""
    folder = tmp_path_factory.mktemp("images")
    write_images(folder)
    return folder


def write_images(folder: Path) -> None:
    """Write a few small random images in MNIST's format."""
    for name, count in (("train", 64), ("t10k", 32)):
        pixels = np.random.default_rng(count).integers(0, 256, (count, 5, 5), np.uint8)
        header = struct.pack(">4B3I", 0, 0, 8, 3, *pixels.shape)
        (folder / f"{name}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())


@pytest.fixture(scope="session")
def steady(
    shared_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[str], dict[int, Any]]:
    """A sweep's words without its folder, and its figures when nothing disturbs it."""
    folder = tmp_path_factory.mktemp("steady")
    write_images(folder)
    (folder / "steady.yaml").write_text(yaml.safe_dump(STEADY, sort_keys=False))
    words = [str(folder / "steady.yaml"), str(folder)]
    whole = shared_folder / "steady"
    with FileLock(f"{whole}.lock"):
        if not whole.is_dir():
            undisturbed = Sweep(*words, str(whole), "train.epochs=40", "--keep-tune")
            said = undisturbed.process.communicate(timeout=300)[1]
            assert undisturbed.process.returncode == 0, said
    return words, figures(whole)
