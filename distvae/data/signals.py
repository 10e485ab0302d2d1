"""Pictures and sounds as arrays of numbers, read from files and written back in their format."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from distvae.data import audio
from distvae.data.deep import is_negative, read_deep, refuse_transparency, write_deep
from distvae.data.picture_file import GREY, exif_of, opened, plain_head
from distvae.files.kinds import DEEP_PICTURES, PICTURES, SOUNDS, TIFF, TRANSPARENT
from distvae.files.output import atomic_file
from distvae.files.refusal import Refusal
from distvae.numerics.array_types import Doubles, Floats

if TYPE_CHECKING:
    from PIL.Image import Image

UNREAD = (".gif", ".heic", ".heif", ".avif", ".jp2", ".tga", ".psd", ".pfm", ".exr", ".dng")
"""Kinds of picture that are not read here; files of a folder that are left out are reported."""
WRITTEN = (".wav", ".flac")
"""The kinds of sound that are written: those that keep every sample."""
PEAK = 255.0
"""The largest value of a picture, of any depth."""
LOSSY_PICTURES = (".jpg", ".jpeg")
KEPT = ("PCM_", "FLOAT", "DOUBLE", "ULAW", "ALAW", "ALAC_")
"""How the names of encodings begin that a sound is written in again. By others it would lose once
more.
"""
LONGEST_EXIF = 65_533
"""Bytes of a JPEG's EXIF."""
CONVERTED = ("CMYK", "LAB", "HSV", "YCbCr")
"""Ways of telling colours that are not kept, nor the profile that goes with them."""
FLOATS = 32
"""Bits of the values of a picture of floats."""
Stored: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.float32]
"""Values of pixels as files hold them."""


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
    """What a camera noted, of a picture that is upright."""
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
        """The value that is drawn as black, of floats the smallest."""
        return float(np.nanmin(self.values)) if self.has_floats else 0.0

    @property
    def peak(self) -> float:
        """The largest value there can be; of floats, which have no limit, the range they span."""
        if self.has_floats:
            return float(np.nanmax(self.values)) - self.black
        return PEAK if self.rate is None else 1.0

    @property
    def step(self) -> float:
        """The difference between neighbouring values of a picture's file, 0 of floats."""
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
    """Return the kinds of file that can hold a signal, but for its transparency. 16 bits and floats
    limit the kinds of picture, PGM is grey, WebP and PPM are coloured, and FLAC limits channels and
    rates.
    """
    if signal.rate is not None:
        return WRITTEN if _fits_flac(signal.values.shape[-1], signal.rate) else WRITTEN[:1]
    if signal.has_floats:
        return TIFF
    if signal.bits > 8:
        return DEEP_PICTURES
    unfit = (".webp", ".ppm") if signal.values.shape[-1] == 1 else (".pgm",)
    return tuple(suffix for suffix in PICTURES if suffix not in unfit)


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
    kept = signal.encoding.startswith(KEPT) and soundfile.check_format(kind, signal.encoding)
    return signal.encoding if kept else "PCM_24"


def read_picture(path: Path) -> Signal:
    """Return the channels of a picture, with its transparency apart from them."""
    with opened(path) as image:
        profile = None if image.mode in CONVERTED else image.info.get("icc_profile")
        return picture_of(stored_values(path, image), profile, exif_of(image))


def stored_values(path: Path, image: "Image") -> Stored:
    """Return the values of an opened picture, turned upright."""
    from PIL import ImageOps

    deep = read_deep(path, image)
    values = _pixels(path, ImageOps.exif_transpose(image)) if deep is None else deep
    if is_negative(image) and values.dtype != np.uint8:  # which Pillow turns itself
        values = _inverted(path, values)
    return values


def read_plain_picture(path: Path) -> "Signal":
    """Return a picture of at most 8 bits; refuse any other."""
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


def _pixels(path: Path, image: "Image") -> Stored:
    """Return the values of a picture as grey or colour, with transparency if it has any."""
    if image.mode.startswith("I;16"):
        refuse_transparency(path, image)
        return np.asarray(image).astype(np.uint16)
    if image.mode == "F":
        return _floats(path, image)
    if image.mode == "I":
        raise Refusal(
            f"{path}: whole numbers of 32 bits, or signed ones; 8 or 16 bits without sign, or"
            " floats in a TIFF, expected"
        )
    mode = "L" if image.mode in GREY else "RGB"
    if "transparency" in image.info or image.mode in ("LA", "PA", "RGBA", "La", "RGBa"):
        mode += "A"
    return np.asarray(image.convert(mode))


def _inverted(path: Path, values: Stored) -> Stored:
    """Return the values of a picture in which zero is white, so that it is black."""
    if values.dtype != np.uint16:
        raise Refusal(
            f"{path}: floats of which zero is white; a TIFF in which it is black expected"
        )
    return np.iinfo(np.uint16).max - values


def _floats(path: Path, image: "Image") -> NDArray[np.float32]:
    """Return the values of a grey picture of floats, NaN where they are missing."""
    values = np.asarray(image).astype(np.float32)
    observed = values[~np.isnan(values)]
    if not observed.size or np.isinf(observed).any() or observed.min() == observed.max():
        raise Refusal(
            f"{path}: floats that are all alike, all missing or infinite; a picture of different,"
            " finite ones expected"
        )
    return values


def write_picture(path: Path, signal: Signal) -> None:
    """Write pixels in the depth they came in."""
    kept = signal if holds_transparency(path, signal) else dataclasses.replace(signal, alpha=None)
    values = as_stored(kept)
    with atomic_file(path) as temporary:
        if signal.bits == 16 and values.shape[-1] > 1:
            write_deep(temporary, values.astype(np.uint16), signal.profile, signal.exif)
        else:
            _save(temporary, values, signal)


def holds_transparency(path: Path, signal: Signal) -> bool:
    """Return whether a file of this kind holds the transparency of a picture, if it has any."""
    return signal.alpha is None or path.suffix.lower() in TRANSPARENT


def as_stored(signal: Signal) -> Stored:
    """Return the values of a picture as its file is to hold them, with its transparency."""
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
