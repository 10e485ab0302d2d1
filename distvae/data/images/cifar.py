"""CIFAR-10 as published: five batches to train on and one to test on, in the binary version or in
Python's pickles.

A pickle can run any program when it is read. Of these nothing runs: the few names that arrays are
pickled under stand for records of our own, which only keep what they are given, and any other name
is refused.
"""

import hashlib
import io
import pickle
import pickletools
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np

from distvae.data.dataset import Labels
from distvae.data.images.source import Bytes, Published, Source
from distvae.files.refusal import Refusal

CIFAR10 = Published("CIFAR-10", 50_000, 10_000)
PUBLISHED_AT = "CIFAR-10 is at https://www.cs.toronto.edu/~kriz/cifar.html"
SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32
NAMES = [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]
FOLDERS = {"python": "cifar-10-batches-py", "binary": "cifar-10-batches-bin"}
SUFFIX = {"python": "", "binary": ".bin"}


def find(root: Path) -> tuple[str, Path] | None:
    """Return the version and the folder of the batches, which is the given folder or one in it;
    None without batches.
    """
    for version, folder in FOLDERS.items():
        for place in (root, root / folder):
            if any((place / f"{name}{SUFFIX[version]}").is_file() for name in NAMES):
                return version, place
    return None


def read_cifar(version: str, folder: Path) -> Source:
    """Return the images of all batches, the training images first."""
    paths = [folder / f"{name}{SUFFIX[version]}" for name in NAMES]
    if absent := [path.name for path in paths if not path.is_file()]:
        raise Refusal(
            f"{folder}: lacks {', '.join(absent)}; all six batches expected; {PUBLISHED_AT}"
        )
    batches = [_READERS[version](path) for path in paths]
    pixels = np.concatenate([batch for batch, _ in batches])
    labels = np.concatenate([label for _, label in batches])
    counts = {"train": len(pixels) - len(batches[-1][0]), "test": len(batches[-1][0])}
    digest = hashlib.sha256(pixels.data)
    digest.update(labels.data)
    return Source(
        f"CIFAR-10, {version} version", pixels, counts, labels, digest.hexdigest(), CIFAR10
    )


def _binary(path: Path) -> tuple[Bytes, Labels]:
    """Return images and labels of a file of records, each a label and an image's three planes."""
    content = np.frombuffer(_content(path), np.uint8)
    if not len(content) or len(content) % (1 + PIXELS):
        raise Refusal(
            f"{path}: {len(content)} bytes; records of 1 + {PIXELS} bytes expected: a truncated"
            " file?"
        )
    records = content.reshape(-1, 1 + PIXELS)
    return records[:, 1:].reshape(-1, *SHAPE), _checked(
        path, records[:, 0].astype(np.int64), len(records)
    )


def _python(path: Path) -> tuple[Bytes, Labels]:
    """Return images and labels of a pickled dictionary."""
    batch = _unpickled(path)
    pixels, labels = batch.get(b"data"), batch.get(b"labels")
    if not isinstance(pixels, _Array) or not isinstance(labels, list):
        raise Refusal(
            f"{path}: no batch of CIFAR-10: {_described(batch)}; an array 'data' and 'labels'"
            " expected"
        )
    images = pixels.bytes_of(path)
    if not all(type(label) is int for label in labels):
        raise Refusal(f"{path}: labels that are no whole numbers; 0 to 9 expected")
    return images, _checked(path, np.array(labels, np.int64), len(images))


def _described(batch: Mapping[object, object]) -> str:
    return f"it holds {', '.join(sorted(str(name) for name in batch)) or 'nothing'}"


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Refusal(f"{path}: {error.strerror}; a readable file expected") from error


def _checked(path: Path, labels: Labels, images: int) -> Labels:
    if len(labels) != images or not ((labels >= 0) & (labels <= 9)).all():
        raise Refusal(
            f"{path}: {len(labels)} labels, the largest {labels.max(initial=-1)}; {images} of 0 to"
            " 9 expected"
        )
    return labels


class _Array:
    """An array as a pickle describes it. It is checked before an array is made."""

    def __init__(self, *given: object) -> None:
        self.state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state

    def bytes_of(self, path: Path) -> Bytes:
        """Return the images if the array holds bytes, as many as its shape says."""
        match self.state:
            case (_, (int(count), int(width)), _Kind(code="u1"), False, bytes(raw)):
                if count > 0 and width == PIXELS and len(raw) == count * width:
                    return np.frombuffer(raw, np.uint8).reshape(count, *SHAPE)
        raise Refusal(
            f"{path}: 'data' is no array of bytes in rows of {PIXELS}; that of CIFAR-10 expected"
        )


class _Kind:
    """The type of the values of an array, as a pickle describes it."""

    __match_args__ = ("code",)

    def __init__(self, code: object = None, *rest: object) -> None:
        self.code = code.decode("latin1") if isinstance(code, bytes) else code

    def __setstate__(self, state: object) -> None:
        """Ignore byte order and alignment, which single bytes do not have."""


_KNOWN = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Array for core in ("core", "_core")},
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Kind,
}


TUPLES = {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "FROZENSET"}
MAX_TUPLES = 12
"""Tuples of a batch. Tuples of one another, as a key, take time that doubles with each."""
MAX_MEMO = 2**20
"""The place of a remembered value. The memory for all places before it is reserved."""


def _refuse_bombs(path: Path, content: bytes) -> None:
    """Refuse a pickle that would take more time or memory than its size says."""
    tuples = 0
    for operation, argument, _ in pickletools.genops(content):
        tuples += operation.name in TUPLES
        in_memo = operation.name in ("PUT", "LONG_BINPUT") and (argument or 0) > MAX_MEMO
        if tuples > MAX_TUPLES or in_memo:
            raise Refusal(f"{path}: holds other things than a batch of CIFAR-10; one expected")


class _Inert(pickle.Unpickler):
    """An unpickler of numbers, text and containers. Arrays become records."""

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        super().__init__(stream, encoding="bytes")
        self.path = path

    def find_class(self, module: str, name: str) -> type:
        """Return the record that stands for a name; refuse every other name."""
        if (module, name) not in _KNOWN:
            raise Refusal(
                f"{self.path}: asks for {module}.{name}, which no batch of CIFAR-10 needs and which"
                f" might do harm; the binary version expected; {PUBLISHED_AT}"
            )
        return _KNOWN[module, name]


def _unpickled(path: Path) -> dict[object, object]:
    try:
        content = path.read_bytes()
        _refuse_bombs(path, content)
        batch = _Inert(io.BytesIO(content), path).load()
    except Refusal:
        raise
    except OSError as error:
        raise Refusal(f"{path}: {error.strerror}; a readable file expected") from error
    except Exception as error:  # what a damaged pickle raises is anything
        raise Refusal(
            f"{path}: damaged, or no pickle ({error or type(error).__name__}); a batch expected"
        ) from error
    return batch if isinstance(batch, dict) else {}


_READERS = {"python": _python, "binary": _binary}
