"""Pictures and sounds as arrays of numbers, read from files and written back in their format."""

import dataclasses
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from distvae.data import audio
from distvae.data.deep import read_deep, write_deep
from distvae.files.memory import require_memory
from distvae.files.output import atomic_file
from distvae.files.refusal import Refusal
from distvae.files.untrusted import decoding, require_regular_file

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURES = (".png", ".tif", ".tiff", ".jpg", ".jpeg")
UNREAD = (
    *(".gif", ".bmp", ".webp", ".heic", ".heif", ".avif", ".jp2", ".tga", ".psd", ".pgm", ".ppm"),
    ".dng",
)
"""Kinds of picture that are not read here; files of a folder that are left out are reported."""
SOUNDS = audio.SUFFIXES
WRITTEN = (".wav", ".flac")
"""The kinds of sound that are written: those that keep every sample."""
PEAK = 255.0
"""The largest value of a picture, of any depth."""
MAX_PIXELS = 2**27
"""Of a picture: a small file may stand for any number of them."""
COPIES = 3 * 8
"""Bytes that a pixel's values take while a picture is read: 64 bits each, and copies on the way."""
LOSSY_PICTURES = (".jpg", ".jpeg")
LOSSY = ("MPEG_LAYER_III", "VORBIS")
"""Encodings that a sound is not written in again: it would lose by it once more."""
GREY = ("1", "L", "LA", "La")
CONVERTED = ("CMYK", "LAB", "HSV", "YCbCr")
"""Ways of telling colours that are not kept, nor the profile that goes with them."""
ORIENTATION = 0x0112
"""The tag by which a camera notes how it was held."""
QUARTERS = range(5, 9)
"""Its values for pictures to be turned by a quarter."""
PHOTOGRAPH = "MPO"
"""A JPEG that other pictures follow, as cameras add a preview; the first one is read."""

Stored: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16]
"""Values of pixels as files hold them."""


@dataclass(frozen=True)
class Signal:
    """The content of a picture or sound file. Pictures have values from 0 to 255 at any depth,
    sounds from -1 to 1.
    """

    values: NDArray[np.float64]
    """(height, width, channels) or (samples, channels)."""
    bits: int = 8
    """Of a picture's values in its file."""
    alpha: NDArray[np.uint16] | None = None
    """(height, width), as in the file."""
    profile: bytes | None = None
    """Of a picture's colours (ICC)."""
    rate: int | None = None
    """Of a sound, in Hz."""
    encoding: str = "PCM_16"
    """Of a sound's samples in its file."""

    @property
    def peak(self) -> float:
        """The largest value there can be."""
        return PEAK if self.rate is None else 1.0

    @property
    def step(self) -> float:
        """The difference between neighbouring values of a picture's file."""
        return PEAK / ((1 << self.bits) - 1)

    def with_values(self, values: NDArray[np.floating], rate: int | None = None) -> "Signal":
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
    """Return the kinds of file that can hold a signal. JPEG has neither transparency nor more than
    8 bits, and FLAC limits channels and rates.
    """
    if signal.rate is not None:
        return WRITTEN if _fits_flac(signal.values.shape[-1], signal.rate) else WRITTEN[:1]
    return PICTURES if signal.alpha is None and signal.bits == 8 else PICTURES[:3]


def _fits_flac(channels: int, rate: int) -> bool:
    """Return True if the header of FLAC can hold this number of channels and this rate."""
    return channels <= 8 and (rate <= 65_535 or (rate <= 655_350 and rate % 10 == 0))


def write(path: Path, signal: Signal) -> None:
    """Write a signal in the depth it came in, and clip it to the range of that depth."""
    if signal.rate is None:
        write_picture(path, signal)
    else:
        write_sound(path, signal)


def read_sound(path: Path) -> Signal:
    """Return all channels of a sound, at its own rate."""
    values, rate = audio.decode(path)
    if not len(values):
        raise Refusal(f"{path}: holds no samples")
    return Signal(values.astype(np.float64), rate=rate, encoding=audio.encoding(path))


def write_sound(path: Path, signal: Signal) -> None:
    """Write samples in the encoding they came in, where the kind of file has it."""
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
    kept = signal.encoding not in LOSSY and soundfile.check_format(kind, signal.encoding)
    return signal.encoding if kept else "PCM_24"


def read_picture(path: Path) -> Signal:
    """Return the channels of a picture, with its transparency apart from them."""
    from PIL import ImageOps

    with opened(path) as image:
        deep = read_deep(path, image)
        values = _pixels(path, ImageOps.exif_transpose(image)) if deep is None else deep
        bits = 16 if values.dtype == np.uint16 else 8
        return _picture(
            values, bits, None if image.mode in CONVERTED else image.info.get("icc_profile")
        )


@contextmanager
def opened(path: Path) -> Iterator["Image"]:
    """Open the file of a picture. Refuse one that is damaged, too large or holds several pictures
    before its pixels are decoded.
    """
    from PIL import Image, UnidentifiedImageError

    require_regular_file(path, "an undamaged picture")
    # pictures that are too large are refused here
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    # from a stream: Pillow maps a named file to memory, and scrambles a TIFF that is to be turned
    with decoding(path, "an undamaged picture"), path.open("rb") as stream:
        try:
            file = Image.open(stream)
        except UnidentifiedImageError as error:
            raise Refusal(
                f"{path}: not a picture, or its beginning is damaged; an undamaged file expected"
            ) from error
        with file as image:
            _refuse_vast(path, image)
            frames = getattr(image, "n_frames", 1)
            if frames > 1 and image.format != PHOTOGRAPH:
                raise Refusal(f"{path}: holds {frames} pictures; one expected")
            yield image


def _refuse_vast(path: Path, image: "Image") -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise Refusal(
            f"{path}: {height:,} x {width:,} pixels; {MAX_PIXELS:,} in all at most expected, or a"
            " part of it"
        )
    require_memory(path, width * height * len(image.getbands()) * COPIES, "its pixels")


class Form(NamedTuple):
    """The size and colour mode of a picture."""

    height: int
    width: int
    mode: str


def head(path: Path) -> Form:
    """Return the size and mode of a picture from its header."""
    with opened(path) as image:
        return _form_of(image)


def plain_head(path: Path) -> Form:
    """Return the size and mode of a picture of at most 8 bits from its header; refuse any other."""
    with opened(path) as image:
        refuse_deep(path, image)
        return _form_of(image)


def _form_of(image: "Image") -> Form:
    # Pillow gives the size of a TIFF with this tag as turned
    upright = ORIENTATION in getattr(image, "tag_v2", ())
    turned = not upright and image.getexif().get(ORIENTATION) in QUARTERS
    width, height = image.size[::-1] if turned else image.size
    return Form(height, width, "L" if image.mode in GREY else "RGB")


def read_plain_picture(path: Path) -> "Signal":
    """Return a picture of at most 8 bits; refuse any other."""
    plain_head(path)
    return read_picture(path)


def refuse_deep(path: Path, image: "Image") -> None:
    """Refuse a picture of more than 8 bits."""
    if image.mode.startswith(("I", "F")):
        raise Refusal(
            f"{path}: a picture of more than 8 bits; 8 expected, or data.kind=crops, which takes it"
        )


def _picture(values: Stored, bits: int, profile: bytes | None) -> Signal:
    channels = values[..., None] if values.ndim == 2 else values
    alpha = channels[..., -1].astype(np.uint16) if channels.shape[-1] in (2, 4) else None
    colours = channels[..., :-1] if alpha is not None else channels
    return Signal(colours * (255 / (2**bits - 1)), bits, alpha, profile)


def _pixels(path: Path, image: "Image") -> Stored:
    """Return the values of a picture as grey or colour, with transparency if it has any."""
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    if image.mode in ("I", "F"):
        raise Refusal(f"{path}: values of 32 bits; a picture of 8 or 16 bits expected")
    mode = "L" if image.mode in GREY else "RGB"
    if "transparency" in image.info or image.mode in ("LA", "PA", "RGBA", "La", "RGBa"):
        mode += "A"
    return np.asarray(image.convert(mode))


def write_picture(path: Path, signal: Signal) -> None:
    """Write pixels in the depth they came in."""
    largest = 2**signal.bits - 1
    values = (signal.values / signal.step).round().clip(0, largest).astype(np.uint16)
    if signal.alpha is not None:
        values = np.concatenate([values, signal.alpha[..., None]], -1)
    with atomic_file(path) as temporary:
        if signal.bits == 16 and values.shape[-1] > 1:
            write_deep(temporary, values, signal.profile)
        else:
            _save(temporary, values, signal)


def _save(path: Path, values: NDArray[np.uint16], signal: Signal) -> None:
    from PIL import Image

    pixels = values if signal.bits == 16 else values.astype(np.uint8)
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    if path.suffix.lower() in LOSSY_PICTURES:
        image.save(path, icc_profile=signal.profile, quality=95)
    else:
        image.save(path, icc_profile=signal.profile)
