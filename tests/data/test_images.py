"""Images by what a path contains: CIFAR-10 in its versions, archives, folders of pictures."""

import contextlib
import os
import pickle
import pickletools
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps

from distvae.config import ImageData
from distvae.data import labels_of, open_dataset
from distvae.data.images import arrays as cifar
from distvae.data.images.source import divide_images
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
    names = enumerate(cifar.NAMES)
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


def test_both_versions_of_cifar_are_the_same_images(tmp_path: Path, python: Path) -> None:
    whole = batches()
    train = np.concatenate([whole[name][0] for name in cifar.NAMES[:5]])
    found = opened(python)
    np.testing.assert_array_equal(np.round(255 * found["train"]), train)
    np.testing.assert_array_equal(np.round(255 * found["test"]), whole["test_batch"][0])
    labels = labels_of(ImageData(path=str(python), holdout=3))
    assert labels is not None
    assert [*labels["train"], *labels["val"]] == [
        label for name in cifar.NAMES[:5] for label in whole[name][1]
    ]
    assert labels["test"].tolist() == whole["test_batch"][1]


def test_the_binary_version_has_the_same_digest_as_pythons(
    root: Path, python: Path, binary: Path
) -> None:
    both = {}
    for version, folder in {"python": python / "cifar-10-batches-py", "binary": binary}.items():
        both[version] = cifar.read_cifar(version, folder)
    assert both["python"].digest == both["binary"].digest
    np.testing.assert_array_equal(both["python"].pixels, both["binary"].pixels)


def test_a_part_of_cifar_says_so(binary: Path) -> None:
    dataset = open_dataset(ImageData(path=str(binary)))
    assert dataset.name == "recordings: 20 + 4 of CIFAR-10's 50,000 + 10,000 images"
    assert dataset.shape == (3, 32, 32)
    assert dataset.dims == 3072


class Bomb:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch exploded",)


def wrapped(kind: str) -> bytes:
    """Pickles that are no batches: programs, arrays of objects, lies about sizes, and noise."""
    pixels, labels = batches()["data_batch_1"]
    good = by_python_2({b"data": pixels, b"labels": labels})
    return {
        "bomb": pickle.dumps({b"data": Bomb()}),
        "objects": by_python_2(
            {b"data": np.array([[1, "a"], [2, "b"]], object), b"labels": labels}
        ),
        "floats": by_python_2({b"data": pixels.astype(np.float32), b"labels": labels}),
        "narrow": by_python_2({b"data": pixels[:, :99], b"labels": labels}),
        "fewer labels": by_python_2({b"data": pixels, b"labels": labels[1:]}),
        "class ten": by_python_2({b"data": pixels, b"labels": [10] * ROWS}),
        "no data": by_python_2({b"labels": labels}),
        "a list": by_python_2([1, 2]),
        "cut": good[:-9],
        "empty": b"",
        "text": b"not a pickle",
    }[kind]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("bomb", "asks for posix.system, which no batch of CIFAR-10 needs"),
        ("objects", "'data' is no array of bytes in rows of 3072"),
        ("floats", "'data' is no array of bytes in rows of 3072"),
        ("narrow", "'data' is no array of bytes in rows of 3072"),
        ("fewer labels", "3 labels, the largest 3; 4 of 0 to 9 expected"),
        ("class ten", "4 labels, the largest 10; 4 of 0 to 9 expected"),
        ("no data", "no batch of CIFAR-10: it holds b'labels'"),
        ("a list", "no batch of CIFAR-10: it holds nothing"),
        ("cut", "damaged, or no pickle"),
        ("empty", "damaged, or no pickle"),
        ("text", "damaged, or no pickle"),
    ],
)
def test_a_wrong_pickle_is_refused_and_never_run(
    python: Path, monkeypatch: pytest.MonkeyPatch, kind: str, words: str
) -> None:
    monkeypatch.chdir(python)
    (python / "cifar-10-batches-py" / "data_batch_1").write_bytes(wrapped(kind))
    with pytest.raises(Refusal, match="data_batch_1: ") as refusal:
        open_dataset(ImageData(path=str(python)))
    assert words in str(refusal.value)
    assert not (python / "exploded").exists()


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
        images, classes = cifar.read_pickled_batch(path)
        assert images.shape == (len(classes), 3, 32, 32)


@pytest.mark.parametrize("name", ["data_batch_3.bin", "test_batch.bin"])
def test_a_missing_batch_is_named(binary: Path, name: str) -> None:
    (binary / name).unlink()
    with pytest.raises(
        Refusal, match=f"lacks {name}; all six batches expected; CIFAR-10 is at https"
    ):
        open_dataset(ImageData(path=str(binary)))


def test_a_truncated_batch_is_refused(binary: Path) -> None:
    path = binary / "data_batch_2.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(
        Refusal, match=r"data_batch_2\.bin: 12291 bytes; records of 1 \+ 3072 bytes expected"
    ):
        open_dataset(ImageData(path=str(binary)))


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


def test_only_arrays_of_an_archive_are_looked_at(root: Path) -> None:
    np.savez(root / "some.npz", x=noise(9, 4, 4))
    with zipfile.ZipFile(root / "some.npz", "a") as archive:
        archive.writestr("readme.txt", "words")
    assert open_dataset(ImageData(path=str(root))).dims == 16
    with zipfile.ZipFile(root / "some.npz", "w") as archive:
        archive.writestr("x", "words")
    with pytest.raises(Refusal, match=r"some\.npz: holds no arrays; arrays x_train and x_test"):
        open_dataset(ImageData(path=str(root)))


def test_what_is_no_archive_is_refused(root: Path) -> None:
    for content in (b"", b"PK\x03\x04 and no more", b"text"):
        (root / "some.npz").write_bytes(content)
        with pytest.raises(Refusal, match=r"some\.npz: cannot be read"):
            open_dataset(ImageData(path=str(root)))


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


def test_images_to_train_and_validate_on_give_some_of_the_first_to_test_on() -> None:
    parts = divide_images({"train": 40, "val": 10}, ImageData(test=0.2, split_seed=1))
    assert {name: len(places) for name, places in parts.items()} == {
        "train": 32,
        "val": 10,
        "test": 8,
    }
    assert min(parts["val"]) == 40
    assert sorted({*parts["train"], *parts["test"]}) == list(range(40))
    assert list(parts["test"]) != list(range(32, 40))


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


def test_pictures_of_two_sizes_are_refused_with_what_to_set(folder: Path) -> None:
    with pytest.raises(Refusal, match=r"set data\.size=\[height, width\]"):
        open_dataset(ImageData(path=str(folder)))


def test_a_damaged_picture_is_named_and_leaves_no_cache(folder: Path, cache: Path) -> None:
    file = folder / "test" / "cat" / "3.png"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(Refusal, match=r"3\.png: cannot be read"):
        open_dataset(ImageData(path=str(folder), size=(4, 4)))
    assert not list(cache.glob("pictures/*/pixels.npy"))


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


def test_the_small_sets_at_hand_say_what_they_are_a_part_of(real_data: Path) -> None:
    if not (real_data / "cifar10").is_dir() or not (real_data / "fashion_mnist").is_dir():
        pytest.skip("no cifar10 and fashion_mnist folders in the data")
    cifar10 = open_dataset(ImageData(path=str(real_data / "cifar10")))
    assert cifar10.name == "cifar10: 4,000 + 1,000 of CIFAR-10's 50,000 + 10,000 images"
    assert {name: rows.shape for name, rows in cifar10.splits.items()} == {
        "train": (4000, 3072),
        "val": (1000, 3072),
        "test": (1000, 3072),
    }
    fashion = ImageData(path=str(real_data / "fashion_mnist"))
    assert (
        open_dataset(fashion).name == "fashion_mnist: 900 of Fashion-MNIST's 60,000 + 10,000 images"
    )
    assert labels_of(fashion) is None
