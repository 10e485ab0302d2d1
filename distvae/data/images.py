"""Images: CIFAR-10's batches, an .npz archive or a folder of pictures, whichever is at a path; and
idx files.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import numpy as np

from distvae.config import DataConfig, IdxData, ImageData
from distvae.data import folders
from distvae.data.dataset import Array, Dataset, FileOrArray, Labels
from distvae.data.family import DataFamily, Survey, Values, checked_config, count_rows, register
from distvae.data.image_files import (
    CELEBA,
    MNIST_AT,
    Places,
    Source,
    divide_images,
    find_cifar,
    find_idx,
    find_pictures,
    read_archive,
    read_cifar,
    read_folder,
    read_idx_files,
    read_to_form,
    scaled_rows,
)
from distvae.data.pictures import UNREAD, Form, plain_head
from distvae.data.signals import read_plain_picture
from distvae.files.paths import PICTURES, SOUNDS, resolve_path
from distvae.files.refusal import Refusal
from distvae.files.untrusted import Plain
from distvae.numerics.arrays import AnyArray

Shape = tuple[int, ...]
"""(channels, height, width)."""


Settings = TypeVar("Settings", bound=DataConfig)


class ReadsImages(DataFamily[Settings]):
    """A family that makes rows of single pictures and of arrays of images."""

    values = Values(low=0.0, high=1.0)
    reads_media = True

    def rows_of(self, media: FileOrArray, shape: Shape) -> AnyArray:
        """Return a picture, one image or several images as rows, and an array of rows unchanged.

        A picture is cropped and resized as in training. Images have their channels last, or none.
        """
        if isinstance(media, Path):
            channels, height, width = shape
            media = read_to_form(media, Form(height, width, "L" if channels == 1 else "RGB"))
            return media.reshape(1, -1) / np.float32(255)
        if not _holds_images(media, shape):
            if media.ndim > 2 and len(shape) == 3:
                channels, *size = shape
                form = tuple(size) if channels == 1 else (*size, channels)
                raise Refusal(
                    f"x: an array of {media.shape}; images of {form}, as the run was trained on, or"
                    " a path, expected"
                )
            return media
        values = media / np.float32(255) if media.dtype == np.uint8 else media
        channels, height, width = shape
        return np.moveaxis(values.reshape(-1, height, width, channels), -1, 1).reshape(
            -1, channels * height * width
        )

    def media_of(self, rows: Array, media: FileOrArray, shape: Shape) -> Array:
        """Return rows as images, with the axes of the images that they were made of."""
        if not isinstance(media, Path) and not _holds_images(media, shape):
            return rows
        images = np.moveaxis(rows.reshape(-1, *shape), 1, -1)
        if isinstance(media, Path):
            return images[0] if shape[0] > 1 else images[0, ..., 0]
        return images.reshape(media.shape)


def _holds_images(array: AnyArray, shape: Shape) -> bool:
    """Return whether an array has one image or several, and not rows."""
    if len(shape) != 3:
        return False
    channels, *size = shape
    forms = [(*size, channels), *([tuple(size)] if channels == 1 else [])]
    return array.shape in forms or array.shape[1:] in forms


def describe_images(shape: Sequence[int], labels: Mapping[str, Labels] | None) -> dict[str, Plain]:
    """Return the facts of a survey: the shape of the images and the number of classes."""
    channels, height, width = shape
    classes: Plain = "none"
    if labels:
        classes = len({int(label) for part in labels.values() for label in part})
    return {"height": height, "width": width, "channels": channels, "classes": classes}


FORMAT = 1
"""Version of the preparation. Another version has another digest."""
EXPECTED = f"CIFAR-10's batches, an .npz archive, or pictures ({', '.join(PICTURES)}) expected"
RECIPES = {"CIFAR-10": "cifar10-vae", "CelebA": "celeba-vsc"}
"""Recipes for data sets that a survey recognises by name."""
SHOWN = 5
"""Sizes in a survey of pictures of many sizes."""
LARGEST = 128
"""Pixels of the longer side up to which pictures need not be made smaller to train on them."""


@register(ImageData)
class ImageFamily(ReadsImages[ImageData]):
    """Images from CIFAR-10's files, an archive, or a folder of pictures."""

    dividing = ("split", "sizes", "holdout", "test", "split_seed")

    def open(self, quiet: bool = False) -> Dataset:
        """Return images by split, flat and scaled to [0, 1] when they are indexed."""
        root = _root(self.config)
        source = _read_source(root, self.config, quiet)
        parts = source.divide(self.config)
        rows = scaled_rows(source.pixels, parts)
        name = f"{root.stem}: {source.note}" if source.note else root.stem
        digest, shape = self._digest(source), source.pixels.shape[1:]
        named = parts if source.files else {}
        files = {name: [source.files[place] for place in places] for name, places in named.items()}
        return Dataset(name, "image", digest, rows, root, pictures=files, shape=shape)

    def _digest(self, source: Source) -> str:
        """Return a digest of the images and their splits. It does not depend on broken images that
        are left out, unless they change the split of other images.
        """
        settings = asdict(self.config) | {"path": ""}
        del settings["skip_broken"]
        if self.config.split == "auto":  # digests are older than this setting
            del settings["split"]
        return folders.key_of([FORMAT, settings, source.digest, *source.drawn_from(self.config)])

    def labels(self) -> dict[str, Labels] | None:
        """Return the class of every image by split; None if the source has no classes."""
        source = _read_source(_root(self.config), self.config, quiet=True)
        if source.labels is None:
            return None
        return {name: source.labels[places] for name, places in source.divide(self.config).items()}

    @classmethod
    def survey(cls, path: str) -> Survey | None:
        """Return the survey of a path that holds images in any of these forms."""
        return cls.examine(path, decoded=False)

    @classmethod
    def examine(
        cls, path: str, settings: Sequence[str] = (), decoded: bool = True
    ) -> Survey | None:
        """Return the same survey under some settings, after every picture was decoded.

        A folder with at least as many recordings as pictures is left to speech.
        """
        root = Path(path)
        if root.is_file():
            return _survey_arrays(path, settings) if root.suffix.lower() == ".npz" else None
        recordings = folders.list_files(root, SOUNDS)
        if find_cifar(root) is not None or (not recordings and _find_archives(root)):
            return _survey_arrays(path, settings)
        if len(folders.list_files(root, PICTURES)) <= len(recordings):
            return None
        return _survey_pictures(path, decoded, settings)

    @classmethod
    def next_command(cls, survey: Survey) -> str:
        """Return the command that trains on the images, with the recipe of a known data set."""
        recipe = "images"
        for name, own_recipe in RECIPES.items():
            if survey.layout.startswith(name):
                recipe = own_recipe
        return f"distvae train {recipe} --data {survey.quoted_path}"


def _root(config: ImageData) -> Path:
    path = resolve_path(config.path, "data.path")
    if config.path and path.suffix.lower() == ".npz":
        if not path.is_file():
            raise Refusal(f"data.path: {config.path} is no file; an .npz archive expected")
        return path
    expected = f"{EXPECTED}; docs/data.md says where to get them"
    return folders.find_data_folder(config.path, "images", expected)


def _find_archives(root: Path) -> list[Path]:
    """Return the .npz archives of a folder that are not hidden."""
    return sorted(path for path in root.glob("*.npz") if not path.name.startswith("."))


def _read_source(root: Path, config: ImageData, quiet: bool = False) -> Source:
    """Return all images at a path. Refuse a size or colour that arrays of images do not have."""
    archives = [root] if root.suffix.lower() == ".npz" else []
    if not archives and (found := find_cifar(root)) is not None:
        source = read_cifar(found)
    else:
        archives = archives or _find_archives(root)
        if len(archives) > 1:
            raise Refusal(
                f"{root}: holds {', '.join(path.name for path in archives)}; name one of them in"
                " data.path"
            )
        if not archives and not folders.list_files(root, PICTURES):
            raise Refusal(f"{root}: holds no images known here; {EXPECTED}")
        if not archives:
            return read_folder(root, config, quiet)
        source = read_archive(archives[0])
    channels, *size = source.pixels.shape[1:]
    colour = {1: "grey", 3: "rgb"}[channels]
    if config.size not in (None, tuple(size)):
        raise Refusal(
            f"data.size: {list(config.size)}, and {root} has images of {size}; that or null"
            " expected"
        )
    if config.colour not in ("keep", colour):
        raise Refusal(
            f"data.colour: '{config.colour}', and {root} has images in {colour}; that or keep"
            " expected"
        )
    return source


def _survey_arrays(path: str, settings: Sequence[str]) -> Survey:
    config: ImageData = checked_config("images", path, settings)
    source, family = _read_source(Path(path), config), ImageFamily(config)
    dataset = family.open()
    facts, counts = describe_images(dataset.shape, family.labels()), count_rows(dataset, "images")
    wrong = _incomplete(source.note)
    return Survey(path, source.layout, "images", counts, facts, wrong, settings=tuple(settings))


def _survey_pictures(path: str, decoded: bool, settings: Sequence[str]) -> Survey:
    """Return what a folder of pictures holds, by their headers or, if they are to be decoded, by
    their pixels too.
    """
    root, config = Path(path), checked_config("images", path, settings)
    found, layout = find_pictures(root)
    split_of = {picture.file: picture.split for picture in found}
    seen = folders.inspect(
        root, split_of, plain_head, read_plain_picture, decoded, config.skip_broken
    )
    found = [picture for picture in found if picture.file not in seen.left_out]
    heads = seen.heads.values()
    sizes = Counter((head.height, head.width) for head in heads)
    classes = {picture.class_name for picture in found}
    has_classes = len(classes) > 1 and "" not in classes
    facts: dict[str, Plain] = {
        "sizes": len(sizes),
        "most frequent": {f"{h} x {w}": count for (h, w), count in sizes.most_common(SHOWN)},
        "grey": sum(head.mode == "L" for head in heads),
        "classes": len(classes) if has_classes else "none",
    }
    if seen.note:
        facts["left out"] = seen.note
    is_celeba = layout.startswith("CelebA")
    needed = [] if config.size or not sizes or is_celeba else _needed_size(sizes)

    counts = dict(Counter(each.split for each in found))
    missing = CELEBA.short_of(counts) if is_celeba else ""
    wrong = [*_incomplete(missing), *filter(None, [folders.describe_unread(root, UNREAD)])]
    splits: dict[str, dict[str, float]] = {}
    try:
        distinct: set[int] = set()
        for split, places in divide_images(counts, config).items():
            if id(places) not in distinct:  # validation and test may be the same images
                distinct.add(id(places))
                splits[split] = {"images": len(places)}
    except Refusal as refusal:
        wrong.append(str(refusal))
    needed_settings = (*needed, *settings)
    return Survey(
        path, layout, "images", splits, facts, tuple(wrong), seen.unreadable, needed_settings
    )


def _needed_size(sizes: "Counter[tuple[int, int]]") -> list[str]:
    """Return the setting of the most frequent size, smaller if it is large; nothing if all pictures
    have one size that is not large.
    """
    size = sizes.most_common(1)[0][0]
    factor = min(1, LARGEST / max(size))
    if len(sizes) == 1 and factor == 1:
        return []
    height, width = (max(1, round(factor * side)) for side in size)
    return [f"data.size=[{height},{width}]"]


def _incomplete(note: str) -> tuple[str, ...]:
    return (f"less than was published: {note}",) if note else ()


@register(IdxData)
class IdxFamily(ReadsImages[IdxData]):
    """Images and labels in idx files, the format of MNIST."""

    dividing = ("split", "holdout")

    def open(self, quiet: bool = False) -> Dataset:
        """Return images by split, flat and scaled to [0, 1] when they are indexed."""
        root, config = self._root(), self.config
        train, test = read_idx_files(root, "images", 3)
        if train.shape[1:] != test.shape[1:]:
            raise Refusal(
                f"{root}: images of {train.shape[1:]} to train on, of {test.shape[1:]} to test on;"
                " one size expected"
            )
        pixels = np.concatenate([train, test])[:, None]
        digest = hashlib.sha256(f"{FORMAT} {config.holdout} {train.shape}".encode())
        if config.split == "loose":
            digest.update(b"loose")
        digest.update(pixels.data)
        splits = scaled_rows(pixels, self._divide(len(train), len(test)))
        shape = pixels.shape[1:]
        return Dataset(root.name, "image", digest.hexdigest(), splits, root, shape=shape)

    def labels(self) -> dict[str, Labels] | None:
        """Return the class of every image by split; None if there are no files of labels."""
        root = self._root()
        if not find_idx(root, "labels", 1):
            return None
        images, labels = read_idx_files(root, "images", 3), read_idx_files(root, "labels", 1)
        counts = [list(map(len, parts)) for parts in (labels, images)]
        if counts[0] != counts[1]:
            raise Refusal(
                f"{root}: {counts[0]} labels to train on and to test on, of {counts[1]} images; one"
                " for each expected"
            )
        whole = np.concatenate(labels).astype(np.int64)
        return {name: whole[places] for name, places in self._divide(*counts[0]).items()}

    def _root(self) -> Path:
        expected = f"a folder of idx files expected; {MNIST_AT}"
        return folders.find_data_folder(self.config.path, "mnist", expected)

    def _divide(self, train: int, test: int) -> dict[str, Places]:
        config = ImageData(split=self.config.split, holdout=self.config.holdout)
        parts = divide_images({"train": train, "test": test}, config)
        return {name: parts[name] for name in ("train", "test", "val")}

    @classmethod
    def survey(cls, path: str) -> Survey | None:
        """Return the survey of a folder of idx files."""
        if not any(Path(path).glob("*-images[-.]idx3-ubyte*")):
            return None
        family = cls(IdxData(path=path))
        dataset, labels, wrong = family.open(), None, list[str]()
        try:
            labels = family.labels()
        except Refusal as refusal:
            wrong.append(str(refusal))
        counts: dict[str, dict[str, float]] = {
            split: {"images": len(dataset.splits[split])} for split in ("train", "test")
        }
        facts = describe_images(dataset.shape, labels)
        return Survey(path, "idx files", "idx", counts, facts, tuple(wrong))

    @classmethod
    def next_command(cls, survey: Survey) -> str:
        """Return the command that trains on the images."""
        return f"distvae train mnist-vae --data {survey.quoted_path}"
