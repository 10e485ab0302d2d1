"""Images by what a path contains: idx files, batches of CIFAR-10, archives, folders of pictures."""

import gzip
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps

from distvae.config import DataConfig, IdxData, ImageData
from distvae.data import labels_of, open_dataset
from distvae.data.family import survey
from distvae.data.image_files import BATCHES, divide_images
from distvae.files.refusal import Refusal
from distvae.train.run import Run
from tests.called import Called

Bytes = NDArray[np.uint8]
ROWS = 4


def noise(*shape: int, seed: int = 0) -> Bytes:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def opened(path: Path, **settings: Any) -> dict[str, NDArray[np.float32]]:
    return {
        name: rows[:]
        for name, rows in open_dataset(ImageData(path=str(path), **settings)).splits.items()
    }


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


def test_pictures_are_cropped_to_their_centre_and_resized_and_folders_are_classes(
    folder: Path,
) -> None:
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
    labels = labels_of(ImageData(path=str(folder), size=(6, 6)))
    assert labels is not None
    assert labels["train"].tolist() == labels["test"].tolist() == [0, 1, 1]
    Image.new("L", (5, 5)).save(folder / "train" / "loose.png")
    assert labels_of(ImageData(path=str(folder), size=(6, 6))) is None


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


LABELS = [[(k + row) % 10 for row in range(ROWS)] for k in range(len(BATCHES))]


@pytest.fixture
def binary(root: Path) -> Path:
    for k, name in enumerate(BATCHES):
        records = [np.array(LABELS[k], np.uint8)[:, None], noise(ROWS, 3072, seed=k)]
        (root / name).write_bytes(np.concatenate(records, 1).tobytes())
    return root


def test_batches_of_cifar_are_images_with_classes_and_a_part_of_them_says_so(binary: Path) -> None:
    config = ImageData(path=str(binary), holdout=3)
    dataset, labels = open_dataset(config), labels_of(config)
    assert dataset.name == "recordings: 20 + 4 of CIFAR-10's 50,000 + 10,000 images"
    assert (dataset.shape, dataset.dims) == ((3, 32, 32), 3072)
    rows = [dataset.splits[name][:] for name in ("train", "val", "test")]
    expected = [noise(ROWS, 3072, seed=k) for k in range(len(BATCHES))]
    np.testing.assert_array_equal(np.round(255 * np.concatenate(rows)), np.concatenate(expected))
    assert labels is not None
    found = [*labels["train"], *labels["val"], *labels["test"]]
    assert found == np.concatenate(LABELS).tolist()


@pytest.mark.parametrize("folder", ["", "cifar-10-batches-py"])
def test_pickles_of_cifar_are_refused_and_not_opened(root: Path, folder: str) -> None:
    (root / folder).mkdir(exist_ok=True)
    (root / folder / "test_batch").write_bytes(pickle.dumps({"data": print}))
    for ask in (lambda: open_dataset(ImageData(path=str(root))), lambda: survey(str(root))):
        with pytest.raises(Refusal, match=r"pickles, .*the binary version expected: .*\.tar\.gz"):
            ask()


def damaged(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda root: (root / name).write_bytes(change((root / name).read_bytes()))


WRONG_IMAGES: dict[str, tuple[Callable[[Path], object], dict[str, Any]]] = {
    r"data\.size: \[8, 8\], and .* has images of \[32, 32\]": (bool, {"size": (8, 8)}),
    r"data\.colour: 'grey', and .* has images in rgb": (bool, {"colour": "grey"}),
    r"data\.holdout: 20 of 20 training images": (bool, {"holdout": 20}),
    r"data\.sizes: 20 \+ 5 of 24 images": (bool, {"sizes": (20, 5)}),
    r"12291 bytes; records of 1 \+ 3072 bytes expected": (
        damaged("data_batch_2.bin", lambda content: content[:-1]),
        {},
    ),
    r"a label of 255; labels of 0 to 9": (
        damaged("data_batch_4.bin", lambda content: b"\xff" + content[1:]),
        {},
    ),
    r"lacks data_batch_3\.bin; all six batches expected; CIFAR-10 is at https": (
        lambda root: (root / "data_batch_3.bin").unlink(),
        {},
    ),
}


@pytest.mark.parametrize("words", WRONG_IMAGES)
def test_what_batches_do_not_have_is_refused(binary: Path, words: str) -> None:
    change, settings = WRONG_IMAGES[words]
    change(binary)
    with pytest.raises(Refusal, match=words):
        open_dataset(ImageData(path=str(binary), **settings))


def test_an_archive_keeps_its_images_and_labels_or_is_divided_by_the_seed(root: Path) -> None:
    train, test = noise(7, 5, 4, 3), noise(3, 5, 4, 3, seed=1)
    arrays = {"x_train": train, "x_test": test, "y_train": np.arange(7), "y_test": np.arange(3)}
    np.savez_compressed(root / "some.npz", **arrays)  # type: ignore[arg-type]
    for path in (root, root / "some.npz"):
        dataset = open_dataset(ImageData(path=str(path)))
        assert dataset.shape == (3, 5, 4)
        seen = dataset.splits["train"][:].reshape(7, 3, 5, 4)
        np.testing.assert_array_equal(np.round(255 * np.moveaxis(seen, 1, -1)), train)
    labels = labels_of(ImageData(path=str(root)))
    assert labels is not None
    assert labels["train"].tolist() == list(range(7))
    np.savez(root / "some.npz", x=noise(20, 2, 2))
    found = opened(root)
    assert {name: len(rows) for name, rows in found.items()} == {"train": 17, "val": 3, "test": 3}
    whole = np.round(255 * np.concatenate([found["train"], found["test"]]))
    assert sorted(map(tuple, whole)) == sorted(map(tuple, noise(20, 4)))
    assert not np.array_equal(found["test"], opened(root, split_seed=1)["test"])


WRONG_ARRAYS: dict[str, dict[str, Any]] = {
    "holds a; arrays x_train and x_test": {"a": noise(3)},
    r"'x' has shape \(3, 4, 4, 2\); \(images, height, width\) or": {"x": noise(3, 4, 4, 2)},
    r"'x' has no images, but shape \(0, 4, 4\)": {"x": noise(3, 4, 4)[:0]},
    r"'x' holds float64; bytes .* \(x \* 255\)\.round\(\)": {"x": noise(3, 4, 4) / 255},
    "one size expected": {"x_train": noise(3, 4, 4), "x_test": noise(3, 5, 4)},
    "'y_train' has no whole number for each image": {
        "x_train": noise(3, 4, 4),
        "y_train": np.arange(2),
    },
    "cannot be read .*Object arrays cannot be loaded": {"x": np.array([{}, {}])},
    "holds no images known here; CIFAR-10's batches, an .npz archive": {},
}


@pytest.mark.parametrize("words", WRONG_ARRAYS)
def test_a_wrong_archive_is_refused(root: Path, words: str) -> None:
    if WRONG_ARRAYS[words]:
        np.savez(root / "some.npz", **WRONG_ARRAYS[words])
    with pytest.raises(Refusal, match=words):
        open_dataset(ImageData(path=str(root)))


@settings(max_examples=25)
@given(
    counts=st.dictionaries(st.sampled_from(["train", "val", "test"]), st.integers(4, 30)).filter(
        lambda c: "train" in c
    )
    | st.integers(5, 90).map(lambda n: {"": n}),
    holdout=st.integers(0, 1),
    seed=st.integers(0, 9),
)
def test_no_image_is_in_two_splits(counts: dict[str, int], holdout: int, seed: int) -> None:
    parts = divide_images(counts, ImageData(holdout=holdout, split_seed=seed))
    distinct = {id(part): part for part in parts.values()}
    assert sorted(np.concatenate([*distinct.values()])) == list(range(sum(counts.values())))
    drawn = divide_images({"train": 50, "val": 20, "test": 30}, ImageData(sizes=(60, 25)))
    assert (len(drawn["train"]), len(drawn["test"]), max(drawn["train"]) >= 50) == (60, 25, True)


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


WRONG_IDX: dict[str, tuple[str, bytes]] = {
    "begins with 6e6f7420; 00000803 expected": ("train-images-idx3-ubyte", b"not idx at all"),
    "truncated in its header": ("train-images-idx3-ubyte", TEN[:9]),
    "199 values; 10 x 5 x 4 announced": ("train-images-idx3-ubyte", TEN[:-1]),
    "more values; 10 x 5 x 4 announced": ("train-images-idx3-ubyte", TEN + b"x"),
    "0 values; 0 x 5 x 4 announced": ("train-images-idx3-ubyte", encode(noise(0, 5, 4))),
    "one size expected": ("train-images-idx3-ubyte", encode(noise(10, 4, 4))),
    r"\[10, 5\] labels to train on and to test on, of \[10, 6\] images": (
        "t10k-labels-idx1-ubyte",
        encode(np.arange(5, dtype=np.uint8)),
    ),
}


@pytest.mark.parametrize("words", WRONG_IDX)
def test_wrong_idx_files_are_refused(idx_files: Path, words: str) -> None:
    name, content = WRONG_IDX[words]
    (idx_files / name).write_bytes(content)
    read = labels_of if "labels" in name else open_dataset
    with pytest.raises(Refusal, match=words):
        read(IdxData(path=str(idx_files)))


def test_what_is_missing_is_refused_with_where_to_get_it(idx_files: Path) -> None:
    (idx_files / "train-images-idx3-ubyte").unlink()
    refused: list[tuple[DataConfig, str]] = [
        (IdxData(path=str(idx_files)), r"lacks train-images-idx3-ubyte or .*MNIST's are at https"),
        (IdxData(), r"data\.path: empty, and \$DISTVAE_DATA is not set"),
        (ImageData(), r"data\.path: empty"),
        (ImageData(path=str(idx_files / "gone.npz")), r"data\.path: .*gone\.npz is no file"),
    ]
    for config, words in refused:
        with pytest.raises(Refusal, match=words):
            open_dataset(config)


@pytest.mark.parametrize("form", ["folder", "npz", "idx"])
def test_the_recipe_of_images_finds_their_size_and_kind(
    form: str, tmp_path: Path, call: Called, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (12, 9, 7), dtype=np.uint8)
    (tmp_path / "data").mkdir()
    if form == "folder":
        for number, image in enumerate(pixels):
            Image.fromarray(image).save(tmp_path / "data" / f"{number}.png")
    elif form == "npz":
        np.savez(tmp_path / "data" / "all.npz", x_train=pixels, x_test=pixels[:4])
    else:
        for split, images in ("train", pixels), ("t10k", pixels[:4]):
            head = struct.pack(">HBBIII", 0, 8, 3, len(images), 9, 7)
            (tmp_path / "data" / f"{split}-images-idx3-ubyte").write_bytes(head + images.tobytes())
    words = ["--data", "data", "train.epochs=1", "model.hidden=[8]", "model.channels=[2]"]
    words += ["estep.hidden=[8]", "estep.channels=[2]", "--no-track", "--no-evaluate"]
    code, out, said = call("train", "images", *words)
    assert code == 0, said
    assert "images of 9 x 7 pixels; into runs/images" in out + said
    run = Run.open(Path("runs/images"))
    assert run.config.data.kind == ("idx" if form == "idx" else "images")
    assert run.dims == 63
