"""Images and labels in idx files, the format of MNIST."""

import gzip
import hashlib
import math
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from distvae.config import IdxData
from distvae.data import folders
from distvae.data.dataset import Array, Dataset, Labels
from distvae.data.family import Survey, register
from distvae.data.images import ReadsImages, describe_images
from distvae.files.paths import require_memory
from distvae.files.refusal import Refusal
from distvae.files.untrusted import decoding, require_regular_file

Bytes = NDArray[np.uint8]
Value = TypeVar("Value", np.uint8, np.float32)

FORMAT = 1
"""Version of the preparation. Another version has another digest."""
COPIES = 6
"""Bytes of memory for a value: one as in the file, four as a float, one for a copy."""
PARTS = ("train", "t10k")
"""The beginning of the names of files, to train on and to test on."""
_SOURCE = "MNIST's are at https://storage.googleapis.com/cvdf-datasets/mnist/"


@register(IdxData)
class IdxFamily(ReadsImages[IdxData]):
    """Images in idx files."""

    dividing = ("split", "holdout")

    def open(self, quiet: bool = False) -> Dataset:
        """Return images by split, flattened and scaled to [0, 1]."""
        root, config = _root(self.config), self.config
        train, test = (read_idx(_file(root, f"{part}-images", 3), 3) for part in PARTS)
        if train.shape[1:] != test.shape[1:]:
            raise Refusal(
                f"{root}: images of {train.shape[1:]} to train on, of {test.shape[1:]} to test on;"
                " one size expected"
            )
        digest = hashlib.sha256(f"{FORMAT} {config.holdout} {train.shape}".encode())
        if config.split == "loose":
            digest.update(b"loose")
        digest.update(train.data)
        digest.update(test.data)
        splits = _divided(_scaled(train), _scaled(test), config)
        shape = (1, *train.shape[1:])
        return Dataset(root.name, "image", digest.hexdigest(), splits, root, shape=shape)

    def labels(self) -> dict[str, Labels] | None:
        """Return the class of every image by split; None if there are no files of labels."""
        root = _root(self.config)
        if not any(path.is_file() for part in PARTS for path in _paths(root, f"{part}-labels", 1)):
            return None
        train, test = (_classes(root, part) for part in PARTS)
        found = _divided(train, test, self.config)
        return {name: part.astype(np.int64) for name, part in found.items()}

    @classmethod
    def survey(cls, path: str) -> Survey | None:
        """Return the survey of a folder of idx files."""
        if not any(Path(path).glob("*-images[-.]idx3-ubyte*")):
            return None
        family = cls(IdxData(path=path))
        dataset = family.open()
        labels, problem = None, ""
        try:
            labels = family.labels()
        except Refusal as refusal:
            problem = f"none: {refusal}"
        facts = describe_images(dataset.shape, labels)
        if problem:
            del facts["classes"]
            facts["labels"] = problem
        counts: dict[str, dict[str, float]] = {
            split: {"images": len(dataset.splits[split])} for split in ("train", "test")
        }
        return Survey(path, "idx files", "idx", counts, facts)

    @classmethod
    def next_command(cls, survey: Survey) -> str:
        """Return the command that trains on the images."""
        return f"distvae train mnist-vae --data {survey.quoted_path}"


def _classes(root: Path, part: str) -> Bytes:
    path, images = _file(root, f"{part}-labels", 1), _file(root, f"{part}-images", 3)
    found, count = read_idx(path, 1), len(read_idx(images, 3))
    if len(found) != count:
        raise Refusal(
            f"{path}: {len(found)} labels, and {images.name} has {count} images; one for each"
            " expected"
        )
    return found


def read_idx(path: Path, dims: int) -> Bytes:
    """Return the array of bytes in an idx file, checked against its header."""
    unpacked = path.suffix == ".gz"
    require_regular_file(path, "an undamaged idx file")
    expected = "a whole gzip file of idx" if unpacked else "an undamaged idx file"
    with (
        decoding(path, expected),
        gzip.open(path) if unpacked else path.open("rb") as stream,
    ):
        shape = _shape(path, stream.read(4 + 4 * dims), dims)
        require_memory(path, COPIES * math.prod(shape), f"{' x '.join(map(str, shape))} values")
        # Read one byte more than announced, to notice a longer file.
        content = stream.read(math.prod(shape) + 1)
    if len(content) != math.prod(shape) or 0 in shape:
        found = f"{len(content)} values" if len(content) <= math.prod(shape) else "more values"
        raise Refusal(f"{path}: {found}; {' x '.join(map(str, shape))} announced")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _shape(path: Path, header: bytes, dims: int) -> tuple[int, ...]:
    if header[:4] != bytes((0, 0, 8, dims)):
        raise Refusal(
            f"{path}: begins with {header[:4].hex()}; 000008{dims:02x} expected, idx of bytes in"
            f" {dims} dimensions"
        )
    if len(header) < 4 + 4 * dims:
        raise Refusal(f"{path}: truncated in its header")
    return tuple(np.frombuffer(header, ">u4", dims, 4).tolist())


def _root(config: IdxData) -> Path:
    return folders.find_data_folder(
        config.path, "mnist", f"a folder of idx files expected; {_SOURCE}"
    )


def _file(root: Path, name: str, dims: int) -> Path:
    paths = _paths(root, name, dims)
    for path in paths:
        if path.is_file():
            return path
    names = ", ".join(path.name for path in paths)
    raise Refusal(
        f"{root}: has none of {names}; 'distvae data check' says how other images are read;"
        f" {_SOURCE}"
    )


def _paths(root: Path, name: str, dims: int) -> list[Path]:
    """Return where the file of an array may be."""
    ends = [f"{dot}idx{dims}-ubyte{suffix}" for dot in "-." for suffix in ("", ".gz")]
    return [root / f"{name}{end}" for end in ends]


def _divided(
    train: NDArray[Value], test: NDArray[Value], config: IdxData
) -> dict[str, NDArray[Value]]:
    """Return the rows by split. The last `holdout` training rows validate. Without any held out,
    the test rows validate, as the same array.
    """
    if config.split == "loose":
        return {"train": train, "val": train[:0], "test": test}
    train_count = len(train) - config.holdout
    if train_count < 1:
        raise Refusal(
            f"data.holdout: {config.holdout} of {len(train)} training images; fewer expected"
        )
    return {
        "train": train[:train_count],
        "test": test,
        "val": train[train_count:] if config.holdout else test,
    }


def _scaled(images: Bytes) -> Array:
    return images.reshape(len(images), -1).astype(np.float32) / np.float32(255)
