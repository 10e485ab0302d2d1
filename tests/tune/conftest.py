"""Data, a sweep and an MLflow server that tests of sweeps share."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from filelock import FileLock

from tests.tune.sweeps import STEADY, Sweep, figures


@pytest.fixture(scope="package", autouse=True)
def nowhere() -> Iterator[None]:
    """An MLflow server that refuses at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        yield


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a few small random images in MNIST's format."""
    folder = tmp_path_factory.mktemp("images")
    for name, count in (("train", 64), ("t10k", 32)):
        pixels = np.random.default_rng(count).integers(0, 256, (count, 5, 5), np.uint8)
        header = struct.pack(">4B3I", 0, 0, 8, 3, *pixels.shape)
        (folder / f"{name}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
    return folder


@pytest.fixture(scope="session")
def steady(
    images: Path, shared_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[str], dict[int, Any]]:
    """A sweep's words without its folder, and its figures when nothing disturbs it."""
    file = tmp_path_factory.mktemp("steady") / "steady.yaml"
    file.write_text(yaml.safe_dump(STEADY, sort_keys=False))
    words = [str(file), str(images)]
    whole = shared_folder / "steady"
    with FileLock(f"{whole}.lock"):
        if not whole.is_dir():
            Sweep(*words, str(whole), "train.epochs=40", "--keep-tune").finish()
    return words, figures(whole)
