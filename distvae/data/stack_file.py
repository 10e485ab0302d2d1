"""TIFFs that hold several pictures of one size: videos, and volumes of microscopes."""

import re
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np

from distvae.data.deep import is_deep_colour
from distvae.data.picture_file import opened
from distvae.data.signals import CONVERTED, Stored, stored_values
from distvae.files.kinds import TIFF
from distvae.files.memory import require_memory
from distvae.files.output import atomic_file
from distvae.files.refusal import Refusal

MOST = 2**20
"""The most pictures of a file."""
DESCRIPTION = 0x010E
KEPT = (DESCRIPTION, 0x011A, 0x011B, 0x0128, 0x0131, 0x0132)
"""Tags of the first picture that are kept: description, resolution and its unit, software, date."""
PIXELS = re.compile(r"<(?:\w+:)?Pixels\b[^>]*>")
"""The element of OME's description that has the sizes of the axes."""
IMAGEJ = {"C": "channels", "Z": "slices", "T": "frames"}
"""ImageJ's names of the axes, of which the first changes fastest from picture to picture."""
COPIES = 2
"""Copies of the stored values in memory: read, and to be written."""
LARGE = 2**32 - 2**25
"""Bytes of pixels from which the file says places with 64 bits."""


class Stack(NamedTuple):
    """The pictures of a file, and what it says about them."""

    pages: list[Stored]
    tags: dict[int, object]
    profile: bytes | None
    series: list[list[int]]
    """Pages that are neighbours in time, or else in depth."""


def read_stack(path: Path) -> Stack | None:
    """Return the pictures of a TIFF that holds several, otherwise None."""
    if path.suffix.lower() not in TIFF:
        return None
    with opened(path, most=MOST) as image:
        count, size, mode = int(getattr(image, "n_frames", 1)), image.size, image.mode
        if count == 1:
            return None
        if is_deep_colour(image):
            raise Refusal(
                f"{path}: {count} pictures of 16-bit colour; channels as pictures of their own"
                " expected"
            )
        depth = 1 if mode in ("L", "1", "P") else 2 if mode.startswith("I") else 4
        needed = COPIES * count * prod(size) * len(image.getbands()) * depth
        require_memory(path, needed, f"{count} pictures")
        found = getattr(image, "tag_v2", {})
        tags = {tag: _raw(found[tag]) for tag in KEPT if tag in found}
        profile = None if mode in CONVERTED else image.info.get("icc_profile")
        pages: list[Stored] = []
        for number in range(count):
            image.seek(number)
            if (image.size, image.mode) != (size, mode):
                raise Refusal(
                    f"{path}: picture {number + 1} of {count} has another size or kind than the"
                    " first; one for all expected"
                )
            pages.append(stored_values(path, image))
    description = tags.get(DESCRIPTION, b"")
    text = description.decode("latin-1") if isinstance(description, bytes) else ""
    return Stack(pages, tags, profile, neighbours(text, count))


def _raw(value: object) -> object:
    """Return a tag's value; a text as the bytes of its file, which Pillow would write as ASCII."""
    return value.encode("latin-1", "replace") if isinstance(value, str) else value


def neighbours(description: str, count: int) -> list[list[int]]:
    """Return the pictures that differ in time alone, or else in depth, by what a file says."""
    names, sizes = _axes(description)
    if prod(sizes) != count:
        return [list(range(count))]
    numbers = np.arange(count).reshape(sizes[::-1])  # the first axis changes fastest
    extent = dict(zip(names, sizes, strict=True))
    axis = len(names) - 1 - names.index("T" if extent["T"] > 1 else "Z")
    found: list[list[int]] = (
        np.moveaxis(numbers, axis, -1).reshape(-1, numbers.shape[axis]).tolist()
    )
    return found


def _axes(description: str) -> tuple[str, list[int]]:
    """Return the axes of pages, the one that changes fastest first, and their sizes."""
    if pixels := PIXELS.search(description):
        told = dict(re.findall(r'\b(DimensionOrder|Size[CZT])\s*=\s*"(\w+)"', pixels[0]))
        names = told.get("DimensionOrder", "")[2:]
        samples = re.search(r'\bSamplesPerPixel\s*=\s*"(\d+)"', description)
        each = int(samples[1]) if samples else 1
        sizes = [int(size) if (size := told.get(f"Size{n}", "")).isdecimal() else 0 for n in names]
        if sorted(names) == ["C", "T", "Z"]:
            sizes[names.index("C")] //= max(each, 1)
            return names, sizes
    if description.startswith("ImageJ="):
        told = dict(re.findall(r"^(channels|slices|frames)=(\d+)\s*$", description, re.MULTILINE))
        return "".join(IMAGEJ), [int(told.get(name, 1)) for name in IMAGEJ.values()]
    return "", [0]


def write_stack(path: Path, pages: Sequence[Stored], stack: Stack) -> None:
    """Write pictures with what the file of a stack says about them."""
    from PIL import Image
    from PIL.TiffImagePlugin import AppendingTiffWriter

    tags, is_large = stack.tags, sum(page.nbytes for page in pages) > LARGE
    with atomic_file(path) as temporary, AppendingTiffWriter(temporary, new=True) as file:
        for page in pages:
            image = Image.fromarray(page[..., 0] if page.shape[2:] == (1,) else page)
            image.save(file, "TIFF", tiffinfo=tags, icc_profile=stack.profile, big_tiff=is_large)
            file.newFrame()
            tags = {}
