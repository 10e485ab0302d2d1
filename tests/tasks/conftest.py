"""Tiny trained runs, and nothing of the user's own data or cache."""

import gzip
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from distvae.config import Config, from_dict
from distvae.data import open_dataset
from distvae.data.synthesiser import RATE, utterance
from distvae.train.run import Run
from distvae.train.session import fit

SPEAKERS = {"train/ann": (0, 1), "val/bob": (1, 1), "test/cat": (2, 2), "test/dan": (3, 1)}
"""Folder of a speaker, who it is, and how many utterances there are."""


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DISTVAE_DATA", raising=False)
        patch.setenv("DISTVAE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few synthetic recordings in folders by split and speaker."""
    root = tmp_path_factory.mktemp("speech")
    for folder, (speaker, count) in SPEAKERS.items():
        (root / folder).mkdir(parents=True)
        for number in range(count):
            soundfile.write(root / folder / f"{number}.wav", utterance(speaker, number), RATE)
    return root


@pytest.fixture(scope="session")
def speech_config(speech: Path) -> Config:
    tree = {
        "data": {"path": str(speech), "window": 512, "hop": 128},
        "model": {"kind": "sdm", "latent": 6, "hidden": [16], "dictionary": "dct", "atoms": 8},
        "estep": {"hidden": [16]},
        "train": {"epochs": 1, "batch": 64, "warmup": 0, "device": "cpu"},
        "eval": {"metrics": ["stoi", "si_sdr", "isd"], "processes": 1},
    }
    return from_dict(tree)


@pytest.fixture(scope="session")
def speech_run(speech_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(speech_config, tmp_path_factory.mktemp("runs") / "speech")


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small random images and their labels in idx files."""
    root, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for name, count in {"train": 96, "t10k": 40}.items():
        pixels, labels = random.integers(0, 256, (count, 6, 6)), random.integers(0, 10, count)
        for file, values in {"images-idx3": pixels, "labels-idx1": labels}.items():
            header = bytes((0, 0, 8, values.ndim)) + np.array(values.shape, ">u4").tobytes()
            content = header + values.astype(np.uint8).tobytes()
            (root / f"{name}-{file}-ubyte.gz").write_bytes(gzip.compress(content))
    return root


@pytest.fixture(scope="session")
def image_run(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    tree = {
        "data": {"kind": "idx", "path": str(images)},
        "model": {"kind": "vsc", "latent": 5, "hidden": [12], "likelihood": "bernoulli"},
        "estep": {"hidden": [12], "input": "raw"},
        "train": {"epochs": 2, "batch": 16, "device": "cpu"},
    }
    return trained(from_dict(tree), tmp_path_factory.mktemp("runs") / "images")


@pytest.fixture(scope="session")
def bars_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    tree = {
        "data": {"kind": "bars", "size": 2, "rows": 40},
        "model": {"kind": "tvae", "latent": 5, "hidden": [6]},
        "estep": {"states": 8, "parents": 3, "children": 2, "block": 16},
        "train": {"epochs": 2, "batch": 8, "device": "cpu"},
    }
    return trained(from_dict(tree), tmp_path_factory.mktemp("runs") / "bars")


def trained(config: Config, folder: Path) -> Run:
    """Train a model and return its run."""
    list(fit(config, open_dataset(config.data, quiet=True), folder, recipe="tiny"))
    return Run.open(folder)
