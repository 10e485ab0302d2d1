"""Images by what a path contains: idx files, batches of CIFAR-10, archives, folders of pictures."""

import contextlib
import gzip
import os
import pickle
import pickletools
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps

from distvae.config import IdxData, ImageData
from distvae.data import labels_of, open_dataset
from distvae.data.image_files import NAMES, divide_images, read_cifar, read_pickled_batch
from distvae.files.refusal import Refusal

Bytes = NDArray[np.uint8]
ROWS = 4


def noise(*shape: int, seed: int = 0) -> Bytes:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def opened(path: Path, **settings: Any) -> dict[str, NDArray[np.float32]]:
    return {
        name: rows[:]
        for name, rows in open_dataset(ImageData(path=str(path), **settings)).splits.items()
    }


def batches(seed: int = 0) -> dict[str, tuple[Bytes, list[int]]]:
    names = enumerate(NAMES)
    return {
        name: (noise(ROWS, 3072, seed=seed + k), [(k + row) % 10 for row in range(ROWS)])
        for k, name in names
    }


def by_python_2(value: object) -> bytes:
    """The pickle that Python 2 wrote: its texts are what Python 3 calls bytes, and NumPy was called
    otherwise.
    """
    written = pickle.dumps(value, 3).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    older = {"BINBYTES": b"T", "SHORT_BINBYTES": b"U"}
    places = {
        place: older[op.name] for op, _, place in pickletools.genops(written) if op.name in older
    }
    return b"".join(places.get(k, written[k : k + 1]) for k in range(len(written)))


@pytest.fixture
def python(root: Path) -> Path:
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    for name, (pixels, labels) in batches().items():
        (folder / name).write_bytes(
            by_python_2({b"data": pixels, b"labels": labels, b"batch_label": name.encode()})
        )
    return root


@pytest.fixture
def binary(root: Path) -> Path:
    for name, (pixels, labels) in batches().items():
        records = np.concatenate([np.array(labels, np.uint8)[:, None], pixels], 1)
        (root / f"{name}.bin").write_bytes(records.tobytes())
    return root


def test_both_versions_of_cifar_are_the_same_images(python: Path, binary: Path) -> None:
    whole = batches()
    train = np.concatenate([whole[name][0] for name in NAMES[:5]])
    found, folder = opened(python), python / "cifar-10-batches-py"
    both = [read_cifar("python", folder), read_cifar("binary", binary)]
    assert both[0].digest == both[1].digest
    np.testing.assert_array_equal(both[0].pixels, both[1].pixels)
    np.testing.assert_array_equal(np.round(255 * found["train"]), train)
    np.testing.assert_array_equal(np.round(255 * found["test"]), whole["test_batch"][0])
    labels = labels_of(ImageData(path=str(python), holdout=3))
    assert labels is not None
    assert [*labels["train"], *labels["val"]] == [
        label for name in NAMES[:5] for label in whole[name][1]
    ]
    assert labels["test"].tolist() == whole["test_batch"][1]


def test_a_part_of_cifar_says_so(binary: Path) -> None:
    dataset = open_dataset(ImageData(path=str(binary)))
    assert dataset.name == "recordings: 20 + 4 of CIFAR-10's 50,000 + 10,000 images"
    assert dataset.shape == (3, 32, 32)
    assert dataset.dims == 3072


class Bomb:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch exploded",)


@given(
    damage=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=8)
)
def test_a_damaged_pickle_is_read_or_refused(
    damage: list[tuple[int, int]], tmp_path_factory: Any
) -> None:
    pixels, labels = batches()["data_batch_1"]
    content = bytearray(by_python_2({b"labels": list(labels), b"data": pixels[:1]}))
    for place, value in damage:
        content[place % 150] = value  # where the instructions are
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(bytes(content))
    with contextlib.suppress(Refusal):
        images, classes = read_pickled_batch(path)
        assert images.shape == (len(classes), 3, 32, 32)


def test_an_archive_keeps_its_images_and_labels(root: Path) -> None:
    train, test = noise(7, 5, 4, 3), noise(3, 5, 4, 3, seed=1)
    np.savez_compressed(
        root / "some.npz", x_train=train, x_test=test, y_train=np.arange(7), y_test=np.arange(3)
    )
    for path in (root, root / "some.npz"):
        dataset = open_dataset(ImageData(path=str(path)))
        assert dataset.shape == (3, 5, 4)
        seen = dataset.splits["train"][:].reshape(7, 3, 5, 4)
        np.testing.assert_array_equal(np.round(255 * np.moveaxis(seen, 1, -1)), train)
    labels = labels_of(ImageData(path=str(root)))
    assert labels is not None
    assert labels["train"].tolist() == list(range(7))


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"a": noise(3)}, "holds a; arrays x_train and x_test"),
        ({"x": noise(3, 4)}, r"'x' has shape \(3, 4\); \(images, height, width\) or"),
        ({"x": noise(3, 4, 4, 2)}, r"'x' has shape \(3, 4, 4, 2\); \(images, height, width\) or"),
        ({"x": noise(3, 4, 4)[:0]}, r"'x' has no images, but shape \(0, 4, 4\)"),
        ({"x": noise(3, 4, 4) - 128.0}, "'x' holds float64; bytes expected, with values from 0"),
        ({"x": noise(3, 4, 4).astype(str)}, "'x' holds <U3; bytes expected$"),
        ({"x_train": noise(3, 4, 4), "x_test": noise(3, 5, 4)}, "one size expected"),
        (
            {"x_train": noise(3, 4, 4), "y_train": np.arange(2)},
            "'y_train' has no whole number for each image",
        ),
        ({"x": np.array([{}, {}])}, "cannot be read .*Object arrays cannot be loaded"),
    ],
)
def test_a_wrong_archive_is_refused(root: Path, arrays: dict[str, Any], words: str) -> None:
    np.savez(root / "some.npz", **arrays)
    with pytest.raises(Refusal, match=words):
        open_dataset(ImageData(path=str(root)))


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        (noise(3, 4, 4) / 255, noise(3, 4, 4)),
        (noise(3, 4, 4).astype(np.float32), noise(3, 4, 4)),
        (noise(3, 4, 4).astype(np.int64), noise(3, 4, 4)),
        (noise(3, 4, 4) > 127, np.where(noise(3, 4, 4) > 127, 255, 0)),
    ],
)
def test_the_conversion_that_a_refusal_names_gives_the_images(
    root: Path, numbers: Any, expected: Any
) -> None:
    np.savez(root / "some.npz", x_train=numbers)
    with pytest.raises(Refusal, match=r"'x_train' holds .*; bytes expected; convert with") as found:
        open_dataset(ImageData(path=str(root)))
    converted = eval(str(found.value).partition("convert with ")[2], {"x_train": numbers})
    assert converted.dtype == np.uint8
    np.testing.assert_array_equal(converted, expected)


def test_images_without_splits_are_divided_by_the_seed(root: Path) -> None:
    np.savez(root / "some.npz", x=noise(20, 2, 2))
    whole = np.round(
        255 * np.concatenate([part for name, part in opened(root).items() if name != "val"])
    )
    assert sorted(map(tuple, whole)) == sorted(map(tuple, noise(20, 4)))
    assert {name: len(rows) for name, rows in opened(root).items()} == {
        "train": 17,
        "val": 3,
        "test": 3,
    }
    assert not np.array_equal(opened(root)["test"], opened(root, split_seed=1)["test"])


@given(
    counts=st.dictionaries(st.sampled_from(["train", "val", "test"]), st.integers(1, 30)).filter(
        lambda c: "train" in c
    )
    | st.integers(3, 90).map(lambda n: {"": n}),
    holdout=st.integers(0, 3),
    seed=st.integers(0, 9),
)
def test_no_image_is_in_two_splits(counts: dict[str, int], holdout: int, seed: int) -> None:
    config = ImageData(holdout=holdout, split_seed=seed)
    try:
        parts = divide_images(counts, config)
    except Refusal:  # too few images to divide
        reject()
    assert not set(parts["train"]) & set(parts["val"])
    assert not set(parts["train"]) & set(parts["test"])
    assert sorted({*parts["train"], *parts["val"], *parts["test"]}) == list(
        range(sum(counts.values()))
    )
    assert parts["test"] is parts["val"] or not set(parts["val"]) & set(parts["test"])


def test_a_full_disk_is_refused_before_pictures_are_decoded(
    root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for k in range(6):
        Image.fromarray(noise(40, 40, 3, seed=k)).save(root / f"{k}.png")
    full = os.statvfs_result((512, 512, 9, 9, 9, 0, 0, 0, 0, 255))
    monkeypatch.setattr(os, "fstatvfs", lambda file: full)
    with pytest.raises(Refusal, match="No space left on device"):
        opened(root)
    monkeypatch.undo()
    monkeypatch.setenv("DISTVAE_CACHE", str(cache))
    assert len(opened(root)["train"]) == 5


def test_sizes_are_drawn_from_all_images() -> None:
    parts = divide_images({"train": 50, "val": 20, "test": 30}, ImageData(sizes=(60, 25)))
    assert (len(parts["train"]), len(parts["test"])) == (60, 25)
    assert max(parts["train"]) >= 50
    with pytest.raises(Refusal, match=r"data\.sizes: 90 \+ 25 of 100 images"):
        divide_images({"train": 50, "test": 50}, ImageData(sizes=(90, 25)))


@pytest.fixture
def folder(root: Path) -> Path:
    """Pictures of several sizes and kinds, in folders by split and class."""
    for k, (split, kind) in enumerate(
        (s, c) for s in ("train", "test") for c in ("cat", "dog", "dog")
    ):
        place = root / split / kind
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(12 + k, 9 + 2 * k, 3, seed=k)).save(
            place / f"{k}.{'png' if k % 2 else 'jpg'}"
        )
    return root


def test_pictures_are_cropped_to_their_centre_and_resized(folder: Path) -> None:
    dataset = open_dataset(ImageData(path=str(folder), size=(6, 6)))
    assert dataset.shape == (3, 6, 6)
    files = sorted((folder / "train").rglob("*.*"))
    for row, file in zip(dataset.splits["train"][:], files, strict=True):
        picture = Image.open(file)
        side = min(picture.size)
        left, top = ((n - side) / 2 for n in picture.size)
        centre = picture.crop((round(left), round(top), round(left) + side, round(top) + side))
        expected = np.moveaxis(np.asarray(centre.resize((6, 6), Image.Resampling.BILINEAR)), -1, 0)
        np.testing.assert_array_equal(np.round(255 * row).reshape(3, 6, 6), expected)


def test_the_classes_are_the_folders(folder: Path) -> None:
    labels = labels_of(ImageData(path=str(folder), size=(4, 4)))
    assert labels is not None
    assert labels["train"].tolist() == labels["test"].tolist() == [0, 1, 1]
    Image.new("L", (5, 5)).save(folder / "train" / "loose.png")
    assert labels_of(ImageData(path=str(folder), size=(4, 4))) is None


def test_the_cache_is_by_content(folder: Path, cache: Path, tmp_path: Path) -> None:
    config = ImageData(path=str(folder), size=(4, 4), colour="grey")
    first = open_dataset(config)
    moved = folder.rename(tmp_path / "moved")
    again = open_dataset(ImageData(path=str(moved), size=(4, 4), colour="grey"))
    assert again.digest == first.digest
    assert len(list((cache / "pictures").glob("*/pixels.npy"))) == 1
    Image.fromarray(noise(12, 9, 3, seed=99)).save(moved / "train" / "cat" / "0.jpg")
    assert (
        open_dataset(ImageData(path=str(moved), size=(4, 4), colour="grey")).digest != first.digest
    )


def test_grey_colour_turned_and_transparent_pictures_are_as_pillow_has_them(root: Path) -> None:
    Image.fromarray(noise(6, 4)).save(root / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    Image.fromarray(noise(4, 6)).save(root / "b.jpg", quality=95, exif=exif)
    Image.fromarray(noise(6, 4, 2)).save(root / "c.png")
    dataset = open_dataset(ImageData(path=str(root), test=0.3))
    assert dataset.shape == (1, 6, 4)
    rows = {
        tuple(np.round(255 * row).astype(int))
        for part in dataset.splits.values()
        for row in part[:]
    }
    turned = np.asarray(ImageOps.exif_transpose(Image.open(root / "b.jpg")))
    assert rows == {
        tuple(noise(6, 4).ravel()),
        tuple(turned.ravel()),
        tuple(noise(6, 4, 2)[..., 0].ravel()),
    }
    Image.fromarray(noise(6, 4, 3)).save(root / "d.png")
    assert open_dataset(ImageData(path=str(root), test=0.3)).shape == (3, 6, 4)


def test_celeba_is_divided_by_its_own_partition(root: Path) -> None:
    (root / "img_align_celeba").mkdir()
    (root / "Eval").mkdir()
    for k in range(6):
        Image.fromarray(noise(8, 8, 3, seed=k)).save(root / "img_align_celeba" / f"{k:06}.jpg")
    lines = "".join(f"{k:06}.jpg {split}\n" for k, split in enumerate([0, 2, 0, 1, 0, 2]))
    (root / "Eval" / "list_eval_partition.txt").write_text(lines)
    for path in (root, root / "img_align_celeba"):
        dataset = open_dataset(ImageData(path=str(path)))
        assert {name: len(rows) for name, rows in dataset.splits.items()} == {
            "train": 3,
            "val": 1,
            "test": 2,
        }
        assert "3 + 1 + 2 of CelebA's" in dataset.name
    (root / "img_align_celeba" / "7.jpg").write_bytes(
        (root / "img_align_celeba" / "000000.jpg").read_bytes()
    )
    with pytest.raises(Refusal, match=r"7\.jpg: not in .*list_eval_partition"):
        open_dataset(ImageData(path=str(root)))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"size": (8, 8)}, r"data\.size: \[8, 8\], and .* has images of \[32, 32\]"),
        ({"colour": "grey"}, r"data\.colour: 'grey', and .* has images in rgb"),
        ({"holdout": 20}, r"data\.holdout: 20 of 20 training images"),
    ],
)
def test_what_batches_do_not_have_is_refused(
    binary: Path, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(Refusal, match=words):
        open_dataset(ImageData(path=str(binary), **settings))


def test_a_folder_without_images_and_no_folder_are_refused(root: Path) -> None:
    with pytest.raises(
        Refusal, match=r"holds no images known here; CIFAR-10's batches, an \.npz archive"
    ):
        open_dataset(ImageData(path=str(root)))
    with pytest.raises(Refusal, match=r"data\.path: empty"):
        open_dataset(ImageData())
    with pytest.raises(Refusal, match=r"data\.path: .*gone\.npz is no file"):
        open_dataset(ImageData(path=str(root / "gone.npz")))


def encode(values: Bytes) -> bytes:
    return (
        struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()
    )


@pytest.fixture
def idx_files(root: Path) -> Path:
    (root / "train-images-idx3-ubyte").write_bytes(encode(noise(10, 5, 4)))
    compressed = gzip.compress(encode(noise(6, 5, 4, seed=1)))
    (root / "t10k-images-idx3-ubyte.gz").write_bytes(compressed)
    (root / "train-labels.idx1-ubyte").write_bytes(encode(np.arange(10, dtype=np.uint8)))
    (root / "t10k-labels-idx1-ubyte").write_bytes(encode(np.arange(6, dtype=np.uint8)))
    return root


@pytest.mark.parametrize("holdout", [0, 3])
def test_images_of_idx_are_flat_and_between_zero_and_one(idx_files: Path, holdout: int) -> None:
    config = IdxData(path=str(idx_files), holdout=holdout)
    dataset, labels = open_dataset(config), labels_of(config)
    assert labels is not None
    names = ["train", "test", "val"] if holdout else ["train", "test"]
    assert dataset.split_names("all") == names
    train, val, test = (dataset.splits[name][:] for name in ("train", "val", "test"))
    given = [*train, *val] if holdout else train
    np.testing.assert_array_equal(np.round(255 * np.array(given)), noise(10, 20))
    np.testing.assert_array_equal(np.round(255 * test), noise(6, 20, seed=1))
    assert len(val) == (holdout or len(test))
    assert train.dtype == np.float32
    assert train.max() <= 1
    assert labels["train"].tolist() == list(range(10 - holdout))
    assert labels["val"].tolist() == (list(range(7, 10)) if holdout else list(range(6)))


def test_the_digest_follows_content_and_holdout_but_not_compression(idx_files: Path) -> None:
    config = IdxData(path=str(idx_files))
    first = open_dataset(config).digest
    assert open_dataset(IdxData(path=str(idx_files), holdout=1)).digest != first
    plain = idx_files / "train-images-idx3-ubyte"
    packed = plain.with_suffix(".gz")
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    assert open_dataset(config).digest == first
    packed.write_bytes(gzip.compress(encode(noise(10, 5, 4, seed=2))))
    assert open_dataset(config).digest != first


TEN = encode(noise(10, 5, 4))
WRONG = {
    b"": "begins with ; 00000803 expected",
    b"not idx at all": "begins with 6e6f7420; 00000803 expected",
    encode(np.zeros(4, np.uint8)): "begins with 00000801; 00000803 expected",
    TEN[:9]: "truncated in its header",
    TEN[:-1]: "199 values; 10 x 5 x 4 announced",
    TEN + b"x": "more values; 10 x 5 x 4 announced",
    encode(np.zeros((0, 5, 4), np.uint8)): "0 values; 0 x 5 x 4 announced",
    encode(noise(10, 4, 4)): "one size expected",
}


@pytest.mark.parametrize("content", WRONG, ids=list(WRONG.values()))
def test_wrong_idx_files_are_refused(idx_files: Path, content: bytes) -> None:
    (idx_files / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(Refusal, match=WRONG[content]):
        open_dataset(IdxData(path=str(idx_files)))


def test_labels_and_missing_files_of_idx_are_refused(idx_files: Path) -> None:
    (idx_files / "t10k-labels-idx1-ubyte").write_bytes(encode(np.arange(5, dtype=np.uint8)))
    with pytest.raises(Refusal, match=r"t10k-labels-idx1-ubyte: 5 labels, .* has 6 images"):
        labels_of(IdxData(path=str(idx_files)))
    with pytest.raises(Refusal, match=r"data\.holdout: 10 of 10"):
        open_dataset(IdxData(path=str(idx_files), holdout=10))
    (idx_files / "train-images-idx3-ubyte").unlink()
    with pytest.raises(Refusal, match=r"train-images-idx3-ubyte\.gz.*MNIST's are at https"):
        open_dataset(IdxData(path=str(idx_files)))
    with pytest.raises(Refusal, match=r"data\.path: empty, and \$DISTVAE_DATA is not set"):
        open_dataset(IdxData())


PIXELS, LABELS = batches()["data_batch_1"]
BATCH = by_python_2({b"data": PIXELS, b"labels": LABELS})
NO_ARRAY = "no batch of CIFAR-10: no array of bytes in rows of 3072"
NO_BATCHES: dict[str, tuple[bytes, str]] = {
    "bomb": (pickle.dumps({b"data": Bomb()}), NO_ARRAY),
    "objects": (by_python_2({b"data": np.array([[1, "a"]], object), b"labels": LABELS}), NO_ARRAY),
    "floats": (by_python_2({b"data": PIXELS.astype(np.float32), b"labels": LABELS}), NO_ARRAY),
    "fewer labels": (
        by_python_2({b"data": PIXELS, b"labels": LABELS[1:]}),
        "3 labels, the largest",
    ),
    "class ten": (
        by_python_2({b"data": PIXELS, b"labels": [10] * ROWS}),
        "4 labels, the largest 10",
    ),
    "cut": (BATCH[:-9], "damaged, or no pickle"),
    "text": (b"not a pickle", "damaged, or no pickle"),
}


@pytest.mark.parametrize("kind", NO_BATCHES)
def test_a_wrong_pickle_is_refused_and_never_run(
    python: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(python)
    content, words = NO_BATCHES[kind]
    (python / "cifar-10-batches-py" / "data_batch_1").write_bytes(content)
    with pytest.raises(Refusal, match=f"data_batch_1: .*{words}"):
        open_dataset(ImageData(path=str(python)))
    assert not (python / "exploded").exists()


@pytest.mark.parametrize(
    ("batch", "change", "words"),
    [
        (2, lambda content: content[:-1], r"12291 bytes; records of 1 \+ 3072 bytes expected"),
        (3, None, r"lacks data_batch_3\.bin; all six batches expected; CIFAR-10 is at https"),
    ],
)
def test_a_truncated_or_missing_batch_is_refused(
    binary: Path, batch: int, change: Callable[[bytes], bytes] | None, words: str
) -> None:
    path = binary / f"data_batch_{batch}.bin"
    content = path.read_bytes()
    path.unlink()
    if change:
        path.write_bytes(change(content))
    with pytest.raises(Refusal, match=words):
        open_dataset(ImageData(path=str(binary)))


@pytest.mark.parametrize(
    ("damage", "settings", "words"),
    [
        (False, {}, r"set data\.size=\[height, width\]"),
        (True, {"size": (4, 4)}, r"3\.png: cannot be read"),
    ],
)
def test_pictures_that_cannot_be_used_are_refused_and_leave_no_cache(
    folder: Path, cache: Path, damage: bool, settings: dict[str, Any], words: str
) -> None:
    file = folder / "test" / "cat" / "3.png"
    file.write_bytes(file.read_bytes()[:200] if damage else file.read_bytes())
    with pytest.raises(Refusal, match=words):
        open_dataset(ImageData(path=str(folder), **settings))
    assert not list(cache.glob("pictures/*/pixels.npy"))
