"""Files of pictures: opened, and their headers read, before any pixel is decoded."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from distvae.data.deep import is_deep_colour, refuse_deep_planes, refuse_deep_portable
from distvae.files.memory import require_memory
from distvae.files.refusal import Refusal
from distvae.files.untrusted import decoding, require_regular_file

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 2**27
"""The most pixels of a picture; a small file may stand for any number of them."""
COPIES = 3 * 8
"""Bytes that a pixel's values take while a picture is read: 64 bits each, and copies on the way."""
GREY = ("1", "L", "LA", "La")
ORIENTATION = 0x0112
"""The tag by which a camera notes how it was held."""
NOTES = (0x010E, 0x010F, 0x0110, 0x011A, 0x011B, 0x0128, 0x0131, 0x0132, 0x013B, 0x8298)
"""Tags that are kept: description, make, model, resolution and its unit, software, date, artist and
copyright. The others of a TIFF say how its pixels are stored."""
QUARTERS = range(5, 9)
"""Its values for pictures to be turned by a quarter."""
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""The first bytes of a TIFF in either order of bytes, and of one beyond 4 GB."""
PHOTOGRAPH = "MPO"
"""A JPEG that other pictures follow, as cameras add a preview; the first one is read."""


@contextmanager
def opened(path: Path, most: int = 1) -> Iterator["Image"]:
    """Open the file of a picture. Refuse one that is damaged, too large or holds more pictures than
    expected before its pixels are decoded.
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
            raise Refusal(f"{path}: {_why_unknown(path)}") from error
        with file as image:
            _refuse_vast(path, image)
            refuse_deep_planes(path, image)
            refuse_deep_portable(path, image)
            frames = getattr(image, "n_frames", 1)
            if frames > most and image.format != PHOTOGRAPH:
                raise Refusal(f"{path}: holds {frames} pictures; one expected")
            yield image


def exif_of(image: "Image") -> bytes | None:
    """Return what a camera noted about an opened picture, once it is turned upright."""
    from PIL.ExifTags import IFD
    from PIL.Image import Exif

    found, kept = image.getexif(), Exif()
    with suppress(Exception):  # notes that cannot be written again matter less than the picture
        for tag in NOTES:
            if tag in found:
                kept[tag] = found[tag]
        for tag in (IFD.Exif, IFD.GPSInfo):
            if notes := {k: v for k, v in found.get_ifd(tag).items() if k != IFD.Interop}:
                kept[tag] = notes
        if len(kept):
            kept[ORIENTATION] = 1
            return kept.tobytes()
    return None


def _why_unknown(path: Path) -> str:
    """Return why Pillow may not know a file, and what is expected."""
    with path.open("rb") as stream:
        if stream.read(4) not in TIFF_STARTS:
            return "not a picture, or its beginning is damaged; an undamaged file expected"
    return (
        "a TIFF of a kind that is not read here, or its beginning is damaged; 8 or 16 bits, or one"
        " channel of 32-bit floats, expected"
    )


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


def refuse_deep(path: Path, image: "Image") -> None:
    """Refuse a picture of more than 8 bits."""
    if image.mode.startswith(("I", "F")) or is_deep_colour(image):
        raise Refusal(
            f"{path}: a picture of more than 8 bits; 8 expected, or data.kind=crops, which takes it"
        )
