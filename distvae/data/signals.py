"""Pictures, stacks of pictures and sounds as arrays of numbers, read from files and written back in
their format.
"""

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from distvae.data import audio
from distvae.data.dataset import Array
from distvae.data.pictures import (
    CONVERTED,
    Stored,
    exif_of,
    is_deep_colour,
    opened,
    plain_head,
    stored_values,
    write_deep,
)
from distvae.data.synthesiser import RATE, utterance
from distvae.files.paths import (
    DEEP_PICTURES,
    PICTURES,
    SOUNDS,
    TIFF,
    TRANSPARENT,
    atomic_file,
    require_memory,
)
from distvae.files.refusal import Refusal
from distvae.numerics.arrays import Doubles, Floats

WRITTEN = (".wav", ".flac")
"""The kinds of sound that are written: both keep every sample."""
PEAK = 255.0
"""The largest value of a picture, of any depth."""
LOSSY_PICTURES = (".jpg", ".jpeg")
KEPT = ("PCM_", "FLOAT", "DOUBLE", "ULAW", "ALAW", "ALAC_")
"""How the names of the encodings begin in which a sound is written again. Other encodings would
lose something once more.
"""
LONGEST_EXIF = 65_533
"""Bytes of a JPEG's EXIF."""
FLOATS = 32
"""Bits of the values of a picture of floats."""
PICTURE, SOUND = "built-in picture", "built-in sound"
"""The paths that stand for the built-in signals."""
SIDE = 96
"""Pixels of a side of the built-in picture."""
SECOND = slice(8000, 16000)
"""Half a second in the middle of a built-in recording."""
MOST = 2**20
"""The most pictures of a file."""
DESCRIPTION = 0x010E
TAGS = (DESCRIPTION, 0x011A, 0x011B, 0x0128, 0x0131, 0x0132)
"""Tags of a stack's first picture that are kept: description, resolution and its unit, software,
date.
"""
PIXELS = re.compile(r"<(?:\w+:)?Pixels\b[^>]*>")
"""The element of OME's description that has the sizes of the axes."""
IMAGEJ = {"C": "channels", "Z": "slices", "T": "frames"}
"""ImageJ's names of the axes. The first axis changes fastest from picture to picture."""
COPIES = 2
"""Copies of a stack's values in memory: read, and to be written."""
LARGE = 2**32 - 2**25
"""Bytes of pixels from which a TIFF needs places of 64 bits."""


@dataclass(frozen=True)
class Signal:
    """The content of a picture or sound file. Pictures have values from 0 to 255 at any depth, or
    floats as they are in the file; sounds have values from -1 to 1.
    """

    values: Doubles
    """(height, width, channels) or (samples, channels)."""
    bits: int = 8
    """Bits of a picture's values in its file."""
    alpha: NDArray[np.uint16] | None = None
    """(height, width) the transparency of a picture, as in the file."""
    profile: bytes | None = None
    """The ICC profile of a picture's colours."""
    exif: bytes | None = None
    """The notes of a camera."""
    rate: int | None = None
    """Sampling rate of a sound in Hz; None for a picture."""
    encoding: str = "PCM_16"
    """Encoding of a sound's samples in its file, in libsndfile's words."""

    @property
    def has_floats(self) -> bool:
        """True for a picture of floats."""
        return self.bits == FLOATS

    @property
    def black(self) -> float:
        """The value that is drawn as black: 0, or the smallest of floats."""
        return float(np.nanmin(self.values)) if self.has_floats else 0.0

    @property
    def peak(self) -> float:
        """The largest possible value. Floats have no limit, and give the range that they span."""
        if self.has_floats:
            return float(np.nanmax(self.values)) - self.black
        return PEAK if self.rate is None else 1.0

    @property
    def step(self) -> float:
        """The difference between neighbouring values of a picture's file; 0 for floats."""
        return 0.0 if self.has_floats else PEAK / ((1 << self.bits) - 1)

    def with_values(self, values: Floats, rate: int | None = None) -> "Signal":
        """Return this signal with other values, at another rate if one is given."""
        rate = self.rate if rate is None else rate
        return dataclasses.replace(self, values=np.asarray(values, np.float64), rate=rate)

    def noisy(self, sigma: float, seed: int) -> "Signal":
        """Return this signal with white noise added, unclipped."""
        return self.with_values(
            self.values + sigma * np.random.default_rng(seed).standard_normal(self.values.shape)
        )


def read_signal(path: Path) -> Signal:
    """Return the picture or sound in a file."""
    if path.suffix.lower() in PICTURES:
        return read_picture(path)
    if path.suffix.lower() in SOUNDS:
        return read_sound(path)
    if path.is_dir():
        raise Refusal(f"{path}: a folder; a picture or a sound expected")
    raise Refusal(
        f"{path}: '{path.suffix}' is no kind of file read here; {', '.join(PICTURES + SOUNDS)}"
        " expected"
    )


def suffixes_for(signal: Signal) -> tuple[str, ...]:
    """Return the kinds of file that can hold a signal, apart from its transparency."""
    if signal.rate is not None:
        # what the header of FLAC can hold
        fits = signal.rate <= 65_535 or (signal.rate <= 655_350 and signal.rate % 10 == 0)
        return WRITTEN if fits and signal.values.shape[-1] <= 8 else WRITTEN[:1]
    if signal.has_floats:
        return TIFF
    if signal.bits > 8:
        return DEEP_PICTURES
    unfit = (".webp", ".ppm") if signal.values.shape[-1] == 1 else (".pgm",)
    return tuple(suffix for suffix in PICTURES if suffix not in unfit)


def write(path: Path, signal: Signal) -> None:
    """Write a signal in its depth or encoding, clipped to the range of that depth."""
    if signal.rate is not None:
        write_sound(path, signal)
        return
    kept = signal if holds_transparency(path, signal) else dataclasses.replace(signal, alpha=None)
    values = as_stored(kept)
    with atomic_file(path) as temporary:
        if signal.bits == 16 and values.shape[-1] > 1:
            write_deep(temporary, values.astype(np.uint16), signal.profile, signal.exif)
        else:
            _save(temporary, values, signal)


def read_sound(path: Path) -> Signal:
    """Return all channels of a sound, at its own rate."""
    values, rate = audio.decode(path)
    if not len(values):
        raise Refusal(f"{path}: holds no samples")
    return Signal(values.astype(np.float64), rate=rate, encoding=audio.encoding(path))


def write_sound(path: Path, signal: Signal) -> None:
    """Write samples in their encoding if the kind of file has it, otherwise in 24 bits."""
    import soundfile

    values = signal.values if _unbounded(path, signal) else signal.values.clip(-1, 1)
    with atomic_file(path) as temporary:
        soundfile.write(temporary, values, signal.rate, subtype=_encoding(path, signal))


def clipped(path: Path, signal: Signal) -> int:
    """Return the number of samples of a sound beyond the range of its file."""
    held = signal.rate is None or _unbounded(path, signal)
    return 0 if held else int((np.abs(signal.values) > 1).sum())


def _unbounded(path: Path, signal: Signal) -> bool:
    return _encoding(path, signal) in ("FLOAT", "DOUBLE")


def _encoding(path: Path, signal: Signal) -> str:
    import soundfile

    kind = {".wav": "WAV", ".flac": "FLAC"}[path.suffix.lower()]
    kept = signal.encoding.startswith(KEPT) and soundfile.check_format(kind, signal.encoding)
    return signal.encoding if kept else "PCM_24"


def read_picture(path: Path) -> Signal:
    """Return the channels of a picture, with its transparency apart from them."""
    with opened(path) as image:
        profile = None if image.mode in CONVERTED else image.info.get("icc_profile")
        return picture_of(stored_values(path, image), profile, exif_of(image))


def read_plain_picture(path: Path) -> Signal:
    """Return a picture of at most 8 bits; refuse any other picture."""
    plain_head(path)
    return read_picture(path)


def picture_of(values: Stored, profile: bytes | None = None, exif: bytes | None = None) -> Signal:
    """Return the channels of a picture, with its transparency apart from them."""
    channels, bits = values[..., None] if values.ndim == 2 else values, 8 * values.itemsize
    if bits == FLOATS:
        return Signal(channels.astype(np.float64), bits, profile=profile, exif=exif)
    alpha = channels[..., -1].astype(np.uint16) if channels.shape[-1] in (2, 4) else None
    colours = channels[..., :-1] if alpha is not None else channels
    return Signal(colours * (255 / (2**bits - 1)), bits, alpha, profile, exif)


def holds_transparency(path: Path, signal: Signal) -> bool:
    """Return whether a kind of file holds the transparency of a picture, if it has any."""
    return signal.alpha is None or path.suffix.lower() in TRANSPARENT


def as_stored(signal: Signal) -> Stored:
    """Return the values of a picture as a file holds them, with its transparency."""
    if signal.has_floats:
        return signal.values.astype(np.float32)
    values = signal.values / signal.step
    np.clip(values.round(out=values), 0, 2**signal.bits - 1, out=values)
    if signal.alpha is not None:
        values = np.concatenate([values, signal.alpha[..., None]], -1)
    return values.astype(np.uint16) if signal.bits == 16 else values.astype(np.uint8)


def _save(path: Path, values: Stored, signal: Signal) -> None:
    from PIL import Image

    image = Image.fromarray(values[..., 0] if values.shape[-1] == 1 else values)
    options: dict[str, Any] = {"icc_profile": signal.profile}
    is_lossy = path.suffix.lower() in LOSSY_PICTURES
    if signal.exif and not (is_lossy and len(signal.exif) > LONGEST_EXIF):
        options["exif"] = signal.exif
    options |= {"quality": 95} if is_lossy else {"lossless": True}  # an option of WebP alone
    image.save(path, **options)


class Stack(NamedTuple):
    """The pictures of a TIFF that holds several pictures of one size, and its tags."""

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
        tags = {tag: found[tag] for tag in TAGS if tag in found}
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
    description = tags.get(DESCRIPTION, "")
    series = neighbours(description if isinstance(description, str) else "", count)
    for tag, value in tags.items():
        if isinstance(value, str):  # Pillow would write ASCII
            tags[tag] = value.encode("latin-1", "replace")
    return Stack(pages, tags, profile, series)


def neighbours(description: str, count: int) -> list[list[int]]:
    """Return groups of pictures that differ in time alone, or else in depth alone, by the axes in a
    file's description.
    """
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
    """Return the axes of pages, beginning with the axis that changes fastest, and their sizes."""
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
    """Write pictures with the tags of a stack."""
    from PIL import Image
    from PIL.TiffImagePlugin import AppendingTiffWriter

    tags, is_large = stack.tags, sum(page.nbytes for page in pages) > LARGE
    with atomic_file(path) as temporary, AppendingTiffWriter(temporary, new=True) as file:
        for page in pages:
            image = Image.fromarray(page[..., 0] if page.shape[2:] == (1,) else page)
            image.save(file, "TIFF", tiffinfo=tags, icc_profile=stack.profile, big_tiff=is_large)
            file.newFrame()
            tags = {}


def example(path: str) -> Signal | None:
    """Return the picture or sound that a name stands for, or None for any other name."""
    if path == PICTURE:
        return Signal(scene(SIDE)[..., None].astype(np.float64))
    if path == SOUND:
        return Signal(utterance(0, 0)[SECOND, None].astype(np.float64), rate=RATE)
    return None


def scene(side: int) -> Array:
    """Return a picture of overlapping discs of all sizes, which has edges and plain areas in
    natural proportions.
    """
    random = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side]
    picture = np.zeros((side, side), np.float32)
    for _ in range(1000):
        row, column = random.uniform(0, side, 2)
        radius = 4 / np.sqrt(random.uniform(1e-3, 1))
        picture[(y - row) ** 2 + (x - column) ** 2 < radius**2] = random.uniform(0, 255)
    return picture
