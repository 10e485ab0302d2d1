"""Every kind of data keeps the laws of data families."""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from distvae.config import (
    AtomsData,
    BarsData,
    CropData,
    DataConfig,
    IdxData,
    ImageData,
    PatchData,
    RowsData,
    SpeechData,
    SpritesData,
)
from distvae.config.schema import FAMILIES
from distvae.data import DataFamily
from distvae.data.family import DATA, MODULES, all_families
from distvae.data.ingest import ingest
from distvae.data.signals import PICTURE
from tests.laws.data_laws import LAWS


def speech(root: Path) -> DataConfig:
    for speaker in "abcd":
        noise = np.random.default_rng(ord(speaker)).uniform(-0.5, 0.5, 4000)
        (root / speaker).mkdir()
        soundfile.write(root / speaker / "1.wav", noise, 8000)
    return SpeechData(path=str(root), rate=8000, window=256, hop=64)


def idx(root: Path) -> DataConfig:
    for part, count in {"train": 8, "t10k": 4}.items():
        shape = struct.pack(">BBBB3I", 0, 0, 8, 3, count, 4, 5)
        pixels = np.random.default_rng(count).integers(0, 256, 20 * count, np.uint8)
        (root / f"{part}-images-idx3-ubyte").write_bytes(shape + pixels.tobytes())
        labels = struct.pack(">BBBBI", 0, 0, 8, 1, count) + bytes(range(count))
        (root / f"{part}-labels-idx1-ubyte").write_bytes(labels)
    return IdxData(path=str(root))


def images(root: Path) -> DataConfig:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 3), np.uint8)
    np.savez(root / "a.npz", x_train=pixels[:8], x_test=pixels[8:])
    return ImageData(path=str(root / "a.npz"))


def crops(root: Path) -> DataConfig:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 20), np.uint8)
    Image.fromarray(pixels).save(root / "a.png")
    return CropData(path=str(root), window=(3, 3), sizes=(50, 10, 10))


def rows(root: Path) -> DataConfig:
    np.save(root / "a.npy", np.random.default_rng(0).normal(size=(100, 3)))
    ingest([root / "a.npy"], root / "rows", quiet=True)
    return RowsData(path=str(root / "rows"))


CASES: dict[str, Callable[[Path], DataConfig]] = {
    "speech": speech,
    "idx": idx,
    "images": images,
    "atoms": lambda _: AtomsData(atoms=20, active=2, rows=20),
    "bars": lambda _: BarsData(rows=20),
    "sprites": lambda _: SpritesData(rows=20, size=16),
    "patches": lambda _: PatchData(path=PICTURE, stride=8, drop=0.1),
    "crops": crops,
    "rows": rows,
}


@pytest.fixture(scope="module", params=CASES)
def config(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DataConfig]:
    """The settings of a kind of data, written once for all laws."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISTVAE_CACHE", str(tmp_path_factory.mktemp("cache")))
        made = CASES[request.param](tmp_path_factory.mktemp("data"))
        assert made.kind == request.param
        yield made


@pytest.mark.parametrize("law", LAWS)
def test_every_kind_of_data_keeps_the_law(
    config: DataConfig, law: Callable[[DataConfig], None]
) -> None:
    law(config)


def test_every_kind_of_data_is_there_and_has_an_object_behind_it() -> None:
    assert set(CASES) == set(MODULES) <= set(FAMILIES["data"])
    assert all(issubclass(family, DataFamily) for family in all_families())
    for config in DATA:
        assert FAMILIES["data"][config.kind] is config
