"""Images of a source as bytes, with the splits and classes that it names."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distvae.config import ImageData
from distvae.data.dataset import Array, Labels, LazyRows
from distvae.data.folders import SPLITS
from distvae.files.refusal import Refusal
from distvae.numerics.noise import order

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


def divide_images(counts: Mapping[str, int], config: ImageData) -> dict[str, Places]:
    """Return which images belong to which split, as the source says or as the settings draw."""
    total = sum(counts.values())
    if config.split == "loose":
        return _loose(counts)
    whole = config.sizes or set(counts) <= {"", "train"}
    parts = _drawn(total, config) if whole else _assigned_splits(counts)
    if "train" not in parts:
        raise Refusal(
            f"{', '.join(parts)} and no train; images to train on expected, or data.sizes to draw"
            " them"
        )
    if "test" not in parts:
        parts |= _with_test(parts["train"], config)
    if "val" not in parts and config.holdout:
        train_count = len(parts["train"]) - config.holdout
        if train_count < 1:
            raise Refusal(
                f"data.holdout: {config.holdout} of {len(parts['train'])} training images; fewer"
                " expected"
            )
        parts |= {"train": parts["train"][:train_count], "val": parts["train"][train_count:]}
    if "val" not in parts:
        return {"train": parts["train"], "test": parts["test"], "val": parts["test"]}
    return {"train": parts["train"], "val": parts["val"], "test": parts["test"]}


def _loose(counts: Mapping[str, int]) -> dict[str, Places]:
    """Return the splits that the source names. Images in no split are to test on."""
    named = _assigned_splits({name or "test": count for name, count in counts.items()})
    return {name: named.get(name, np.arange(0)) for name in SPLITS}


def _assigned_splits(counts: Mapping[str, int]) -> dict[str, Places]:
    ends = np.cumsum(list(counts.values()))
    return {
        name: np.arange(end - counts[name], end) for name, end in zip(counts, ends, strict=True)
    }


def _with_test(train: Places, config: ImageData) -> dict[str, Places]:
    """Return training images divided into images to train on and drawn images to test on."""
    drawn = _drawn(len(train), config)
    return {name: np.sort(train[places]) for name, places in drawn.items()}


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
