import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from distvae.config import IdxData
from distvae.data import labels_of, open_dataset
from distvae.files.refusal import Refusal

Bytes = NDArray[np.uint8]


def encode(values: Bytes) -> bytes:
    return (
        struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()
    )


def images(count: int, seed: int) -> Bytes:
    return np.random.default_rng(seed).integers(0, 256, (count, 5, 4), dtype=np.uint8)


@pytest.fixture
def folder(root: Path) -> Path:
    (root / "train-images-idx3-ubyte").write_bytes(encode(images(10, 0)))
    (root / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(encode(images(6, 1))))
    (root / "train-labels.idx1-ubyte").write_bytes(encode(np.arange(10, dtype=np.uint8)))
    (root / "t10k-labels-idx1-ubyte").write_bytes(encode(np.arange(6, dtype=np.uint8)))
    return root


def test_images_are_flat_and_between_zero_and_one(folder: Path) -> None:
    dataset = open_dataset(IdxData(path=str(folder)))
    assert (dataset.unit, dataset.dims) == ("image", 20)
    assert dataset.splits["train"].dtype == np.float32
    np.testing.assert_array_equal(
        np.round(dataset.splits["train"][:] * 255).reshape(10, 5, 4), images(10, 0)
    )
    np.testing.assert_array_equal(
        np.round(dataset.splits["test"][:] * 255).reshape(6, 5, 4), images(6, 1)
    )
    assert dataset.splits["train"][:].max() <= 1


def test_validation_is_on_the_test_images_unless_some_are_held_out(folder: Path) -> None:
    whole, held = (
        open_dataset(IdxData(path=str(folder), holdout=holdout)).splits for holdout in (0, 3)
    )
    np.testing.assert_array_equal(whole["val"], whole["test"])
    np.testing.assert_array_equal(np.concatenate([held["train"], held["val"]]), whole["train"])
    assert len(held["val"]) == 3


@pytest.mark.parametrize(
    ("holdout", "names"), [(0, ["train", "test"]), (3, ["train", "test", "val"])]
)
def test_all_is_every_image_once(folder: Path, holdout: int, names: list[str]) -> None:
    dataset = open_dataset(IdxData(path=str(folder), holdout=holdout))
    assert dataset.split_names("all") == names
    assert sum(len(dataset.splits[name]) for name in names) == 10 + 6


def test_labels_that_are_not_one_for_each_image_are_refused(folder: Path) -> None:
    (folder / "t10k-labels-idx1-ubyte").write_bytes(encode(np.arange(5, dtype=np.uint8)))
    with pytest.raises(
        Refusal, match=r"t10k-labels-idx1-ubyte: 5 labels, and t10k-images.* has 6 images"
    ):
        labels_of(IdxData(path=str(folder)))


def test_labels_follow_their_images(folder: Path) -> None:
    labels = labels_of(IdxData(path=str(folder), holdout=3))
    assert labels is not None
    assert labels["train"].dtype == np.int64
    assert labels["train"].tolist() == list(range(7))
    assert labels["val"].tolist() == [7, 8, 9]
    assert labels["test"].tolist() == list(range(6))


def test_the_digest_follows_content_and_holdout_but_not_compression(folder: Path) -> None:
    first = open_dataset(IdxData(path=str(folder))).digest
    assert open_dataset(IdxData(path=str(folder), holdout=1)).digest != first
    plain = folder / "train-images-idx3-ubyte"
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    assert open_dataset(IdxData(path=str(folder))).digest == first
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(encode(images(10, 2))))
    assert open_dataset(IdxData(path=str(folder))).digest != first


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "begins with ; 00000803 expected"),
        (b"not idx at all", "begins with 6e6f7420; 00000803 expected"),
        (encode(np.zeros(4, np.uint8)), "begins with 00000801; 00000803 expected"),
        (encode(images(10, 0))[:9], "truncated in its header"),
        (encode(images(10, 0))[:-1], "199 values; 10 x 5 x 4 announced"),
        (encode(images(10, 0)) + b"x", "more values; 10 x 5 x 4 announced"),
        (encode(np.zeros((0, 5, 4), np.uint8)), "0 values; 0 x 5 x 4 announced"),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_a_wrong_file_is_refused_by_name(
    folder: Path, content: bytes, words: str, compressed: bool
) -> None:
    (folder / "train-images-idx3-ubyte").unlink()
    name = "train-images-idx3-ubyte.gz" if compressed else "train-images-idx3-ubyte"
    (folder / name).write_bytes(gzip.compress(content) if compressed else content)
    with pytest.raises(Refusal) as refusal:
        open_dataset(IdxData(path=str(folder)))
    assert f"{name}: {words}" in str(refusal.value)


@pytest.mark.parametrize(
    "damage", [lambda c: c[:-9], lambda c: b"junk" + c, lambda c: c[:20] + bytes(8) + c[28:]]
)
def test_damaged_gzip_is_refused_by_name(folder: Path, damage: object) -> None:
    path = folder / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(
        Refusal,
        match=(
            r"t10k-images-idx3-ubyte\.gz: (cannot be read .*; a whole gzip file|more values; 0 x 0"
            r" x 4 announced)"
        ),
    ):
        open_dataset(IdxData(path=str(folder)))


def test_images_of_two_sizes_are_refused(folder: Path) -> None:
    (folder / "train-images-idx3-ubyte").write_bytes(encode(np.zeros((10, 4, 4), np.uint8)))
    with pytest.raises(Refusal, match="one size expected"):
        open_dataset(IdxData(path=str(folder)))


def test_holding_out_every_image_is_refused(folder: Path) -> None:
    with pytest.raises(Refusal, match=r"data\.holdout: 10 of 10"):
        open_dataset(IdxData(path=str(folder), holdout=10))


def test_missing_files_are_refused_with_the_names_looked_for(root: Path) -> None:
    with pytest.raises(
        Refusal, match=r"train-images-idx3-ubyte, train-images-idx3-ubyte\.gz.*MNIST's are at https"
    ):
        open_dataset(IdxData(path=str(root)))


def test_without_a_folder_the_variable_is_named() -> None:
    with pytest.raises(Refusal, match=r"data\.path: empty, and \$DISTVAE_DATA is not set"):
        open_dataset(IdxData())


@pytest.mark.slow
def test_mnist_is_as_known(monkeypatch: pytest.MonkeyPatch, real_data: Path) -> None:
    if not (real_data / "mnist").is_dir():
        pytest.skip("no mnist folder in the data")
    monkeypatch.setenv("DISTVAE_DATA", os.fspath(real_data))
    dataset, labels = open_dataset(IdxData()), labels_of(IdxData())
    assert {name: rows.shape for name, rows in dataset.splits.items()} == {
        "train": (60000, 784),
        "val": (10000, 784),
        "test": (10000, 784),
    }
    assert dataset.splits["train"][:].mean() == pytest.approx(0.1307, abs=5e-5)
    assert labels is not None
    assert labels["train"][:5].tolist() == [5, 0, 4, 1, 9]
