"""Images as bytes, with the splits and classes of their source: folders of pictures, CIFAR-10's
batches, .npz archives and MNIST's idx files. Nothing is unpickled. Pictures of a folder are cropped
and resized once, cached by content, and then memory-mapped.
"""

import gzip
import hashlib
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from distvae.config import ImageData
from distvae.data import folders
from distvae.data.dataset import Array, Labels, LazyRows
from distvae.data.folders import SPLITS, hinting_at_broken, split_of_word
from distvae.data.pictures import UNREAD, Form, opened, plain_head, refuse_deep
from distvae.data.signals import read_plain_picture
from distvae.files.paths import PICTURES, require_memory
from distvae.files.refusal import Refusal
from distvae.files.untrusted import decoding, require_regular_file
from distvae.numerics.noise import order
from distvae.system import available_cores, reserve_space

if TYPE_CHECKING:
    from PIL.Image import Image

Bytes = NDArray[np.uint8]
Places = NDArray[np.intp]
DRAWING = -4
"""The epoch of the seed whose order divides images."""


@dataclass(frozen=True)
class Published:
    """The number of images of a published data set."""

    name: str
    train: int
    test: int

    def short_of(self, counts: Mapping[str, int]) -> str:
        """Return a note if there are fewer images than were published, otherwise ""."""
        if sum(counts.values()) >= self.train + self.test:
            return ""
        have = " + ".join(f"{count:,}" for count in counts.values())
        return f"{have} of {self.name}'s {self.train:,} + {self.test:,} images"


@dataclass(frozen=True)
class Source:
    """All images of a source, split after split."""

    layout: str
    """The kind of source that was recognised, in words."""
    pixels: Bytes
    """(N, channels, height, width), in memory or mapped."""
    counts: dict[str, int]
    """The images of each split that the source names, broken ones included: train | val | test, or
    '' where it names none.
    """
    labels: Labels | None
    """(N,) the class of each, where the source has classes."""
    digest: str
    """Changes with the content."""
    published: Published | None = None
    """The published data whose images the source should hold."""
    others: tuple[str, ...] = ()
    """Notes on files that are not read."""
    skipped: tuple[int, ...] = ()
    """The places of broken images among all images. Pixels, labels and files lack these images."""
    files: tuple[str, ...] = ()
    """The file of each image, relative to the source, if each image has a file."""

    @property
    def note(self) -> str:
        """Return a note on missing images and on files that are not read, otherwise ""."""
        short = self.published.short_of(self.counts) if self.published else ""
        return "; ".join(filter(None, (short, *self.others)))

    def divide(self, config: ImageData) -> dict[str, Places]:
        """Return which images belong to which split. Broken images are left out after the images
        were divided, so that whole images stay in their splits.
        """
        parts = divide_images(self.counts, config)
        if not self.skipped:
            return parts
        whole = np.ones(sum(self.counts.values()), bool)
        whole[list(self.skipped)] = False
        number = np.cumsum(whole) - 1
        left = {id(part): number[part[whole[part]]] for part in parts.values()}
        filled = [name for name, part in parts.items() if len(part)]
        if lost := next((name for name in filled if not len(left[id(parts[name])])), None):
            raise Refusal(f"data.skip_broken: leaves no image in {lost}; one or more expected")
        return {name: left[id(part)] for name, part in parts.items()}

    def drawn_from(self, config: ImageData) -> tuple[object, ...]:
        """Return the counts and the broken images, if the split was drawn and depends on them."""
        if config.split == "loose":
            return ()
        drawn = config.sizes or config.holdout or set(self.counts) <= {"", "train"}
        return (self.counts, self.skipped) if self.skipped and drawn else ()


class Scaled(LazyRows):
    """Some images of a source as flat rows, scaled to [0, 1] when they are indexed."""

    def __init__(self, pixels: Bytes, places: Places) -> None:
        self.pixels, self.places = pixels.reshape(len(pixels), -1), places
        self.shape = (len(places), self.pixels.shape[1])

    def __getitem__(self, rows: slice | NDArray[np.integer], /) -> Array:
        return self.pixels[self.places[rows]].astype(np.float32) / np.float32(255)


def scaled_rows(pixels: Bytes, parts: Mapping[str, Places]) -> dict[str, Scaled]:
    """Return the rows of each split. Splits of the same images are the same rows."""
    distinct: dict[int, Scaled] = {}
    return {
        name: distinct.setdefault(id(places), Scaled(pixels, places))
        for name, places in parts.items()
    }


def divide_images(counts: Mapping[str, int], config: ImageData) -> dict[str, Places]:
    """Return which images belong to which split, as the source says or as the settings draw. With
    `loose`, images in no split are to test on.
    """
    total = sum(counts.values())
    if config.split == "loose":
        named = _assigned_splits({name or "test": count for name, count in counts.items()})
        return {name: named.get(name, np.arange(0)) for name in SPLITS}
    whole = config.sizes or set(counts) <= {"", "train"}
    parts = _drawn(total, config) if whole else _assigned_splits(counts)
    if "train" not in parts:
        raise Refusal(
            f"{', '.join(parts)} and no train; images to train on expected, or data.sizes to draw"
            " them"
        )
    if "test" not in parts:  # some training images are drawn to test on
        train = parts["train"]
        drawn = _drawn(len(train), config)
        parts |= {name: np.sort(train[places]) for name, places in drawn.items()}
    if "val" not in parts and config.holdout:
        train_count = len(parts["train"]) - config.holdout
        if train_count < 1:
            raise Refusal(
                f"data.holdout: {config.holdout} of {len(parts['train'])} training images; fewer"
                " expected"
            )
        parts |= {"train": parts["train"][:train_count], "val": parts["train"][train_count:]}
    if "val" not in parts:
        return parts | {"val": parts["test"]}
    return {name: parts[name] for name in SPLITS}


def _assigned_splits(counts: Mapping[str, int]) -> dict[str, Places]:
    ends = np.cumsum(list(counts.values()))
    return {
        name: np.arange(end - counts[name], end) for name, end in zip(counts, ends, strict=True)
    }


def _drawn(total: int, config: ImageData) -> dict[str, Places]:
    """Return the first and the last images of an order drawn with the seed."""
    test = max(1, round(config.test * total))
    train, test = config.sizes or (total - test, test)
    if train < 1 or train + test > total:
        field = "data.sizes" if config.sizes else "data.test"
        raise Refusal(
            f"{field}: {train} + {test} of {total} images; one or more of each, of no more in all,"
            " expected"
        )
    places = order(config.split_seed, DRAWING, total)
    return {"train": places[:train], "test": places[total - test :]}


FORMAT = 1
"""Version of the cached files. Another version decodes the pictures again."""
TAKEN = 6
"""Bytes of memory for a pixel while a picture is resized: colours before and after."""
PARTITION = "list_eval_partition.txt"
CELEBA = Published("CelebA", 182_637, 19_962)
"""Its 162,770 images to train on and 19,867 to validate on count together."""
SPLIT_OF = {"0": "train", "1": "val", "2": "test"}


class Picture(NamedTuple):
    """A picture file with its split and its class. Either may be empty."""

    file: str
    split: str
    class_name: str


def read_folder(root: Path, config: ImageData, quiet: bool) -> Source:
    """Return the pictures of a folder by split, from the cache or decoded now."""
    found, layout = find_pictures(root)
    splits, skip = {each.file: each.split for each in found}, config.skip_broken
    broken, skipped = folders.leave_out_broken(root, splits, read_plain_picture, skip, quiet)
    kept = [each for each in found if each.file not in broken]
    key, pixels = _read_pixels(root, kept, config, quiet)
    return Source(
        layout,
        pixels,
        dict(Counter(each.split for each in found)),
        _labels(kept),
        folders.key_of([key, kept]),
        CELEBA if layout.startswith("CelebA") else None,
        tuple(filter(None, (folders.describe_unread(root, UNREAD), skipped))),
        tuple(place for place, each in enumerate(found) if each.file in broken),
        tuple(each.file for each in kept),
    )


def _read_pixels(
    root: Path, found: Sequence[Picture], config: ImageData, quiet: bool
) -> tuple[str, Bytes]:
    """Return the cache key of the pictures, and their pixels."""
    paths = [root / each.file for each in found]
    hinting = hinting_at_broken(root, config.skip_broken)
    form = _form(paths, config, hinting(plain_head), quiet)
    at_once = min(len(paths), available_cores())
    require_memory(
        f"data.size: {list(form[:2])}",
        TAKEN * at_once * math.prod(form[:2]),
        "pictures of that size",
        "a smaller number",
    )
    names = [each.file for each in found]
    key = folders.key_of([FORMAT, form, list(zip(names, folders.digests(paths), strict=True))])
    folder = folders.cache_folder() / "pictures" / key
    read = hinting(read_to_form)
    folders.build_once(folder, lambda part: _decode(part / "pixels.npy", paths, form, read, quiet))
    return key, np.load(folder / "pixels.npy", mmap_mode="r")


def find_pictures(root: Path) -> tuple[list[Picture], str]:
    """Return every picture below a folder, split after split, and the kind of the folder."""
    names = folders.list_files(root, PICTURES)
    above = (root, root / "Eval", root.parent, root.parent / "Eval")
    partition = next((p / PARTITION for p in above if (p / PARTITION).is_file()), None)
    found = (
        [_foldered(name) for name in names]
        if partition is None
        else _read_partition(partition, names)
    )
    if len({each.split == "" for each in found}) > 1:
        lost = next(each.file for each in found if not each.split)
        raise Refusal(
            f"{root / lost}: in no split, and others are; all in train, val or test, or none,"
            " expected"
        )
    by_split = sorted(found, key=lambda each: ("", *SPLITS).index(each.split))
    return by_split, "a folder of pictures" if partition is None else "CelebA, by its own partition"


def _foldered(file: str) -> Picture:
    """Return a picture with the split that its top folder names and the class of the next
    folder.
    """
    *above, _ = PurePosixPath(file).parts
    split = split_of_word(above[0]) if above else None
    below = above[1:] if split else above
    return Picture(file, split or "", below[0] if below else "")


def _read_partition(partition: Path, names: Sequence[str]) -> list[Picture]:
    """Return the pictures that CelebA's partition file names, each with its split."""
    try:
        rows = [line.split() for line in partition.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal(
            f"{partition}: cannot be read ({error}); lines such as '000001.jpg 0' expected"
        ) from error
    if wrong := next((row for row in rows if len(row) != 2 or row[1] not in SPLIT_OF), None):
        raise Refusal(
            f"{partition}: '{' '.join(wrong)}'; lines such as '000001.jpg 0' expected, with 0, 1"
            " or 2"
        )
    known = {PurePosixPath(name).stem: SPLIT_OF[split] for name, split in rows}
    lost = next((name for name in names if PurePosixPath(name).stem not in known), None)
    if lost:
        raise Refusal(f"{lost}: not in {partition}; only the pictures that it names expected")
    return [Picture(name, known[PurePosixPath(name).stem], "") for name in names]


def _labels(found: Sequence[Picture]) -> Labels | None:
    """Return the class of each picture as a number; None if there are fewer than two classes or a
    picture has none.
    """
    kinds = sorted({each.class_name for each in found})
    if len(kinds) < 2 or "" in kinds:
        return None
    number = {kind: k for k, kind in enumerate(kinds)}
    return np.array([number[each.class_name] for each in found], np.int64)


def _form(
    paths: Sequence[Path], config: ImageData, head: Callable[[Path], Form], quiet: bool
) -> Form:
    """Return the size and colour of the settings, otherwise of all pictures."""
    asked = {"grey": "L", "rgb": "RGB"}.get(config.colour, "")
    if config.size and asked:
        return Form(*config.size, asked)
    found = folders.map_in_order(head, paths)
    heads = list(folders.with_progress(found, "Sizes of pictures", len(paths), quiet))
    mode = asked or ("L" if all(form.mode == "L" for form in heads) else "RGB")
    if config.size:
        return Form(*config.size, mode)
    first = heads[0]
    for path, form in zip(paths, heads, strict=True):
        if form[:2] != first[:2]:
            sizes = [f"{other.height} x {other.width}" for other in (form, first)]
            raise Refusal(
                f"{path}: {sizes[0]} pixels, and {paths[0]} has {sizes[1]}; set data.size=[height,"
                " width]"
            )
    return Form(first.height, first.width, mode)


def _decode(
    target: Path,
    paths: Sequence[Path],
    form: Form,
    read: Callable[[Path, Form], Bytes],
    quiet: bool,
) -> None:
    """Write all pictures to one array that can be mapped."""
    channels = len(form.mode) if form.mode == "RGB" else 1
    shape = (len(paths), channels, form.height, form.width)
    pixels = np.lib.format.open_memmap(target, mode="w+", dtype=np.uint8, shape=shape)
    with target.open("r+b") as file:
        reserve_space(file.fileno(), target.stat().st_size)
    decoded = folders.map_in_order(lambda path: read(path, form), paths)
    for place, image in enumerate(folders.with_progress(decoded, "Pictures", len(paths), quiet)):
        pixels[place] = image
    pixels.flush()


def read_to_form(path: Path, form: Form) -> Bytes:
    """Return (channels, height, width): the largest central part with the proportions of the form,
    resized.
    """
    from PIL import Image, ImageOps

    with opened(path) as image:
        refuse_deep(path, image)
        turned = ImageOps.exif_transpose(image)
        plain = (turned.convert("RGBA") if turned.has_transparency_data else turned).convert(
            form.mode
        )
        values = np.asarray(_fitted(plain, form, Image.Resampling.BILINEAR), np.uint8)
        return np.moveaxis(values if values.ndim == 3 else values[..., None], -1, 0)


def _fitted(image: "Image", form: Form, how: int) -> "Image":
    """Crop in whole pixels and resize, as torchvision's CenterCrop and Resize do."""
    width, height = image.size
    share = min(width / form.width, height / form.height)
    wide, high = round(form.width * share), round(form.height * share)
    left, top = round((width - wide) / 2), round((height - high) / 2)
    cropped = image.crop((left, top, left + wide, top + high))
    return (
        cropped
        if cropped.size == (form.width, form.height)
        else cropped.resize((form.width, form.height), how)
    )


CIFAR10 = Published("CIFAR-10", 50_000, 10_000)
PUBLISHED_AT = "CIFAR-10 is at https://www.cs.toronto.edu/~kriz/cifar.html"
SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32
PICKLED = [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]
BATCHES = [f"{name}.bin" for name in PICKLED]
COPIES = 3
"""Copies of an archive's arrays in memory while it is read."""
EXPECTED = "arrays x_train and x_test, with y_train and y_test or not, or x alone, expected"


def find_cifar(root: Path) -> Path | None:
    """Return the folder of CIFAR-10's batches, which is the given folder or a folder below it; None
    without batches. Refuse pickled batches.
    """
    for name in ("", "cifar-10-batches-bin", "cifar-10-batches-py"):
        place = root / name
        if any((place / batch).is_file() for batch in BATCHES):
            return place
        if any((place / batch).is_file() for batch in PICKLED):
            raise Refusal(
                f"{place}: CIFAR-10 as pickles, which are programs; the binary version expected:"
                " https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
            )
    return None


def read_cifar(folder: Path) -> Source:
    """Return the images of all batches, the training images first. A batch has records of a label
    and an image's three planes.
    """
    paths = [folder / name for name in BATCHES]
    if absent := [path.name for path in paths if not path.is_file()]:
        raise Refusal(
            f"{folder}: lacks {', '.join(absent)}; all six batches expected; {PUBLISHED_AT}"
        )
    records = []
    for path in paths:
        with decoding(path, "a batch of CIFAR-10"):
            content = np.frombuffer(path.read_bytes(), np.uint8)
        if not len(content) or len(content) % (1 + PIXELS):
            raise Refusal(
                f"{path}: {len(content)} bytes; records of 1 + {PIXELS} bytes expected: a truncated"
                " file?"
            )
        records.append(content.reshape(-1, 1 + PIXELS))
        if (largest := records[-1][:, 0].max()) > 9:
            raise Refusal(f"{path}: a label of {largest}; labels of 0 to 9 expected")
    whole, tests = np.concatenate(records), len(records[-1])
    pixels, labels = whole[:, 1:].reshape(-1, *SHAPE), whole[:, 0].astype(np.int64)
    counts = {"train": len(whole) - tests, "test": tests}
    digest = hashlib.sha256(np.ascontiguousarray(pixels).data)
    digest.update(labels.data)
    return Source("CIFAR-10, binary version", pixels, counts, labels, digest.hexdigest(), CIFAR10)


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
    labels = _archive_labels(path, arrays, images, splits)
    digest = hashlib.sha256(np.ascontiguousarray(pixels).data)
    digest.update(b"" if labels is None else labels.data)
    counts = {name: len(part) for name, part in images.items()}
    return Source("images in an .npz", pixels, counts, labels, digest.hexdigest())


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
        raise Refusal(
            f"{path}: '{name}' holds {array.dtype}; bytes from 0 to 255 expected; of values from 0"
            f" to 1, ({name} * 255).round().astype('uint8') makes them"
        )
    return np.ascontiguousarray(np.moveaxis(pixels, -1, 1))


def _archive_labels(
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


MNIST_AT = "MNIST's are at https://storage.googleapis.com/cvdf-datasets/mnist/"
PARTS = ("train", "t10k")
"""The beginning of the names of idx files, to train on and to test on."""
COPIES_OF_IDX = 6
"""Bytes of memory for a value: one as in the file, four as a float, one for a copy."""


def find_idx(root: Path, what: str, dims: int) -> list[Path]:
    """Return the files of images or labels that are there, of those to train on and to test on."""
    ends = [f"{dot}idx{dims}-ubyte{suffix}" for dot in "-." for suffix in ("", ".gz")]
    every = [[root / f"{part}-{what}{end}" for end in ends] for part in PARTS]
    found = [next((path for path in paths if path.is_file()), None) for paths in every]
    return [path for path in found if path is not None]


def read_idx_files(root: Path, what: str, dims: int) -> tuple[Bytes, Bytes]:
    """Return images or labels to train on and to test on; refuse a folder that lacks either."""
    paths = find_idx(root, what, dims)
    if len(paths) < len(PARTS):
        raise Refusal(
            f"{root}: lacks train-{what}-idx{dims}-ubyte or t10k-{what}-idx{dims}-ubyte, gzipped or"
            f" not; 'distvae data check' says how other images are read; {MNIST_AT}"
        )
    train, test = (read_idx(path, dims) for path in paths)
    return train, test


def read_idx(path: Path, dims: int) -> Bytes:
    """Return the array of bytes in an idx file, checked against its header."""
    unpacked = path.suffix == ".gz"
    require_regular_file(path, "an undamaged idx file")
    expected = "a whole gzip file of idx" if unpacked else "an undamaged idx file"
    with (
        decoding(path, expected),
        gzip.open(path) if unpacked else path.open("rb") as stream,
    ):
        header = stream.read(4 + 4 * dims)
        if header[:4] != bytes((0, 0, 8, dims)):
            raise Refusal(
                f"{path}: begins with {header[:4].hex()}; 000008{dims:02x} expected, idx of bytes"
                f" in {dims} dimensions"
            )
        if len(header) < 4 + 4 * dims:
            raise Refusal(f"{path}: truncated in its header")
        shape = tuple(np.frombuffer(header, ">u4", dims, 4).tolist())
        require_memory(
            path, COPIES_OF_IDX * math.prod(shape), f"{' x '.join(map(str, shape))} values"
        )
        # Read one byte more than announced, to notice a longer file.
        content = stream.read(math.prod(shape) + 1)
    if len(content) != math.prod(shape) or 0 in shape:
        found = f"{len(content)} values" if len(content) <= math.prod(shape) else "more values"
        raise Refusal(f"{path}: {found}; {' x '.join(map(str, shape))} announced")
    return np.frombuffer(content, np.uint8).reshape(shape)
