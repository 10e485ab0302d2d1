"""Images in an .npz archive of NumPy arrays. Nothing is unpickled."""

import hashlib
from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile

from distvae.data.dataset import Labels
from distvae.data.images.cifar import CIFAR10
from distvae.data.images.source import Bytes, Published, Source
from distvae.data.signals import PEAK
from distvae.files.memory import require_memory
from distvae.files.refusal import Refusal
from distvae.files.untrusted import decoding, require_regular_file

KNOWN_DATASETS = {
    "cifar10": (CIFAR10, (3, 32, 32)),
    "fashionmnist": (Published("Fashion-MNIST", 60_000, 10_000), (1, 28, 28)),
    "mnist": (Published("MNIST", 60_000, 10_000), (1, 28, 28)),
}
"""Published data by a word of a file's name, with the shape that its images must have.

The first that fits counts.
"""
COPIES = 3
"""Copies of an archive's arrays that memory holds while it is read."""
EXPECTED = "arrays x_train and x_test, with y_train and y_test or not, or x alone, expected"


def read_archive(path: Path) -> Source:
    """Return the images of an archive."""
    arrays = _arrays(path)
    splits = {name: f"x_{name}" for name in ("train", "val", "test") if f"x_{name}" in arrays}
    splits = splits or ({"": "x"} if "x" in arrays else {})
    if not splits:
        raise Refusal(f"{path}: holds {', '.join(sorted(arrays)) or 'no arrays'}; {EXPECTED}")
    images = {name: _images(path, key, arrays[key]) for name, key in splits.items()}
    if len(shapes := {part.shape[1:] for part in images.values()}) > 1:
        raise Refusal(
            f"{path}: images of {' and '.join(map(str, sorted(shapes)))}; one size expected"
        )
    pixels = np.concatenate(list(images.values()))
    labels = _labels(path, arrays, images, splits)
    digest = hashlib.sha256(np.ascontiguousarray(pixels).data)
    digest.update(b"" if labels is None else labels.data)
    counts = {name: len(part) for name, part in images.items()}
    published = _published(path, pixels)
    layout = "images in an .npz" if published is None else f"{published.name} in an .npz"
    return Source(layout, pixels, counts, labels, digest.hexdigest(), published)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    expected = "an undamaged .npz of plain arrays"
    require_regular_file(path, expected)
    with (
        decoding(path, expected),
        path.open("rb") as stream,
        NpzFile(stream, allow_pickle=False) as archive,
    ):
        sizes = (
            []
            if archive.zip is None
            else [int(member.file_size) for member in archive.zip.infolist()]
        )
        require_memory(path, COPIES * sum(sizes), "its arrays")
        members = {name: archive[name] for name in archive.files}
    return {name: member for name, member in members.items() if isinstance(member, np.ndarray)}


def _images(path: Path, name: str, array: np.ndarray) -> Bytes:
    """Return (N, height, width) or (N, height, width, channels) as (N, channels, height, width)."""
    pixels = array[..., None] if array.ndim == 3 else array
    if pixels.ndim != 4 or pixels.shape[-1] not in (1, 3):
        raise Refusal(
            f"{path}: '{name}' has shape {array.shape}; (images, height, width) or (images, height,"
            " width, 3) expected"
        )
    if not pixels.size:
        raise Refusal(
            f"{path}: '{name}' has no images, but shape {array.shape}; one or more of a pixel or"
            " more expected"
        )
    if pixels.dtype != np.uint8:
        raise Refusal(f"{path}: '{name}' holds {array.dtype}; bytes expected{_way(name, array)}")
    return np.ascontiguousarray(np.moveaxis(pixels, -1, 1))


def _way(name: str, array: np.ndarray) -> str:
    """Return how to make bytes of other numbers, where their values tell."""
    if array.dtype.kind not in "biuf":
        return ""
    largest = array.max()
    if not (array.min() >= 0 and largest <= PEAK):
        return f", with values from 0 to {PEAK:g}"
    scaled = f"({name} * 255)" if largest <= 1 else name
    return f"; convert with {scaled}.round().astype('uint8')"


def _labels(
    path: Path, arrays: dict[str, np.ndarray], images: dict[str, Bytes], splits: dict[str, str]
) -> Labels | None:
    """Return the classes of all images, or None if there are none."""
    names = {split: key.replace("x", "y", 1) for split, key in splits.items()}
    if not any(name in arrays for name in names.values()):
        return None
    found = []
    for split, name in names.items():
        label = arrays.get(name)
        if label is None or label.shape != (len(images[split]),) or label.dtype.kind not in "iu":
            raise Refusal(
                f"{path}: '{name}' has no whole number for each image of '{splits[split]}'; one"
                " expected"
            )
        found.append(label.astype(np.int64))
    return np.concatenate(found)


def _published(path: Path, pixels: Bytes) -> Published | None:
    name = "".join(letter for letter in path.stem.lower() if letter.isalnum())
    fitting = (
        known
        for word, (known, shape) in KNOWN_DATASETS.items()
        if word in name and pixels.shape[1:] == shape
    )
    return next(fitting, None)
