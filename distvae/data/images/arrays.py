"""Images in arrays: CIFAR-10's batches in the binary version or in Python's pickles, and .npz
archives. Nothing is unpickled.
"""

import hashlib
import pickletools
from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile

from distvae.data.dataset import Labels
from distvae.data.images.source import Bytes, Published, Source
from distvae.data.signals import PEAK
from distvae.files.memory import require_memory
from distvae.files.refusal import Refusal
from distvae.files.untrusted import decoding, require_regular_file

CIFAR10 = Published("CIFAR-10", 50_000, 10_000)
PUBLISHED_AT = "CIFAR-10 is at https://www.cs.toronto.edu/~kriz/cifar.html"
SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32
NAMES = [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]
VERSIONS = {"python": ("cifar-10-batches-py", ""), "binary": ("cifar-10-batches-bin", ".bin")}
"""The folder and the suffix of the batches in each version."""
NUMBERS = ("BININT", "BININT1", "BININT2")
"""The instructions of a pickle that stand for whole numbers."""
KNOWN_DATASETS = {
    "cifar10": (CIFAR10, SHAPE),
    "fashionmnist": (Published("Fashion-MNIST", 60_000, 10_000), (1, 28, 28)),
    "mnist": (Published("MNIST", 60_000, 10_000), (1, 28, 28)),
}
"""Published data by a word of an archive's name, with the shape of its images. The first match
counts.
"""
COPIES = 3
"""Copies of an archive's arrays in memory while it is read."""
EXPECTED = "arrays x_train and x_test, with y_train and y_test or not, or x alone, expected"


def find_cifar(root: Path) -> tuple[str, Path] | None:
    """Return the version and the folder of CIFAR-10's batches, which are in the given folder or
    in a folder below it; None without batches.
    """
    for version, (folder, suffix) in VERSIONS.items():
        for place in (root, root / folder):
            if any((place / f"{name}{suffix}").is_file() for name in NAMES):
                return version, place
    return None


def read_cifar(version: str, folder: Path) -> Source:
    """Return the images of all batches, the training images first."""
    paths = [folder / f"{name}{VERSIONS[version][1]}" for name in NAMES]
    if absent := [path.name for path in paths if not path.is_file()]:
        raise Refusal(
            f"{folder}: lacks {', '.join(absent)}; all six batches expected; {PUBLISHED_AT}"
        )
    read = {"python": read_pickled_batch, "binary": _read_binary_batch}[version]
    batches = [read(path) for path in paths]
    pixels = np.concatenate([batch for batch, _ in batches])
    labels = np.concatenate([label for _, label in batches])
    counts = {"train": len(pixels) - len(batches[-1][0]), "test": len(batches[-1][0])}
    digest = hashlib.sha256(pixels.data)
    digest.update(labels.data)
    return Source(
        f"CIFAR-10, {version} version", pixels, counts, labels, digest.hexdigest(), CIFAR10
    )


def _read_binary_batch(path: Path) -> tuple[Bytes, Labels]:
    """Return images and labels of a file of records, each a label and an image's three planes."""
    content = np.frombuffer(_content(path), np.uint8)
    if not len(content) or len(content) % (1 + PIXELS):
        raise Refusal(
            f"{path}: {len(content)} bytes; records of 1 + {PIXELS} bytes expected: a truncated"
            " file?"
        )
    records = content.reshape(-1, 1 + PIXELS)
    return _checked(path, records[:, 1:], records[:, 0].astype(np.int64))


def read_pickled_batch(path: Path) -> tuple[Bytes, Labels]:
    """Return images and labels of a pickled dictionary.

    A pickle is a program, which could do anything. It is not run: the labels are the numbers that
    follow the text `labels`, and the pixels are the bytes of an array in C's order (u1, False).
    """
    strings, labels, pixels, before = [""], list[int](), b"", ""
    try:
        for operation, argument, _ in pickletools.genops(_content(path)):
            text = argument.decode("latin-1") if isinstance(argument, bytes) else argument
            if isinstance(text, str) and operation.name.endswith(("STRING", "BYTES", "UNICODE")):
                if len(text) >= PIXELS and before == "NEWFALSE" and "u1" in strings:
                    pixels = text.encode("latin-1")
                strings.append(text[:PIXELS])
            elif (
                isinstance(argument, int) and operation.name in NUMBERS and strings[-1] == "labels"
            ):
                labels.append(argument)
            before = operation.name
    except Refusal:
        raise
    except Exception as error:  # a damaged pickle may raise any exception
        raise Refusal(
            f"{path}: damaged, or no pickle ({error or type(error).__name__}); a batch expected"
        ) from error
    if not pixels or len(pixels) % PIXELS:
        raise Refusal(
            f"{path}: no batch of CIFAR-10: no array of bytes in rows of {PIXELS}; one expected, or"
            f" the binary version; {PUBLISHED_AT}"
        )
    rows = np.frombuffer(pixels, np.uint8).reshape(-1, PIXELS)
    return _checked(path, rows, np.array(labels, np.int64))


def _content(path: Path) -> bytes:
    with decoding(path, "a batch of CIFAR-10"):
        return path.read_bytes()


def _checked(path: Path, rows: Bytes, labels: Labels) -> tuple[Bytes, Labels]:
    """Return images and their labels; refuse labels that do not fit."""
    if len(labels) != len(rows) or not ((labels >= 0) & (labels <= 9)).all():
        raise Refusal(
            f"{path}: {len(labels)} labels, the largest {labels.max(initial=-1)}; {len(rows)} of 0"
            " to 9 expected"
        )
    return rows.reshape(-1, *SHAPE), labels


def read_archive(path: Path) -> Source:
    """Return the images of an .npz archive."""
    arrays = _read_arrays(path)
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
    words = "".join(letter for letter in path.stem.lower() if letter.isalnum())
    published = None
    for word, (known, shape) in KNOWN_DATASETS.items():
        if published is None and word in words and pixels.shape[1:] == shape:
            published = known
    layout = "images in an .npz" if published is None else f"{published.name} in an .npz"
    return Source(layout, pixels, counts, labels, digest.hexdigest(), published)


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    expected = "an undamaged .npz of plain arrays"
    require_regular_file(path, expected)
    with (
        decoding(path, expected),
        path.open("rb") as stream,
        NpzFile(stream, allow_pickle=False) as archive,
    ):
        members = [] if archive.zip is None else archive.zip.infolist()
        require_memory(path, COPIES * sum(each.file_size for each in members), "its arrays")
        found = {name: archive[name] for name in archive.files}
    return {name: array for name, array in found.items() if isinstance(array, np.ndarray)}


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
    """Return how to make bytes of other numbers, if their values show it."""
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
