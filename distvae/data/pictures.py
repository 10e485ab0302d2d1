"""Files of pictures: opened, their headers read, their pixels decoded, and 16-bit colour written.

Of 16-bit colour, Pillow reads only the high bytes, and writes nothing. Unpacked in the reversed
order of bytes, the low bytes stand in their place.
"""

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from distvae.files.paths import require_memory
from distvae.files.refusal import Refusal
from distvae.files.untrusted import decoding, require_regular_file

if TYPE_CHECKING:
    from PIL.Image import Image

UNREAD = (".gif", ".heic", ".heif", ".avif", ".jp2", ".tga", ".psd", ".pfm", ".exr", ".dng")
"""Kinds of picture that are not read. Their files in a folder are reported."""
Stored: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.float32]
"""Values of pixels as files hold them."""
MAX_PIXELS = 2**27
"""The most pixels of a picture. A small file may announce any number of pixels."""
COPIES = 3 * 8
"""Bytes of memory for a value while a picture is read: 64 bits, and copies on the way."""
GREY = ("1", "L", "LA", "La")
CONVERTED = ("CMYK", "LAB", "HSV", "YCbCr")
"""Modes of colour that are converted, so that their profile does not fit any more."""
ORIENTATION = 0x0112
"""The tag by which a camera notes how it was held."""
NOTES = (0x010E, 0x010F, 0x0110, 0x011A, 0x011B, 0x0128, 0x0131, 0x0132, 0x013B, 0x8298)
"""Tags that are kept: description, make, model, resolution and its unit, software, date, artist and
copyright. Other tags of a TIFF say how its pixels are stored."""
QUARTERS = range(5, 9)
"""Orientations of pictures that are to be turned by a quarter."""
BITS, PHOTOMETRIC, PLANES = 258, 262, 284
"""Tags of a TIFF: bits of each channel, the meaning of numbers, and the placement of channels."""
WHITE_IS_ZERO, SEPARATE = 0, 2
"""Values of the tags of meaning and of placement."""
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""The first bytes of a TIFF in either order of bytes, and of a TIFF beyond 4 GB."""
PHOTOGRAPH = "MPO"
"""A JPEG with more pictures behind it, such as a camera's preview. The first picture is read."""
PORTABLE = "PPM"
"""Pillow's name for PGM and PPM."""
OTHER_ORDER = {"16L": "16B", "16B": "16L", "16N": "16B"}


@contextmanager
def opened(path: Path, most: int = 1) -> Iterator["Image"]:
    """Open the file of a picture. Refuse a damaged or too large file, and more than `most`
    pictures, before pixels are decoded.
    """
    from PIL import Image, UnidentifiedImageError

    require_regular_file(path, "a picture")
    # pictures that are too large are refused here
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    # from a stream: Pillow maps a named file to memory, and scrambles a TIFF that is to be turned
    with decoding(path, "an undamaged picture"), path.open("rb") as stream:
        try:
            file = Image.open(stream)
        except UnidentifiedImageError as error:
            stream.seek(0)
            if stream.read(4) not in TIFF_STARTS:
                raise Refusal(
                    f"{path}: not a picture, or its beginning is damaged; an undamaged file"
                    " expected"
                ) from error
            raise Refusal(
                f"{path}: a TIFF of a kind that is not read here, or its beginning is damaged; 8 or"
                " 16 bits, or one channel of 32-bit floats, expected"
            ) from error
        with file as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise Refusal(
                    f"{path}: {height:,} x {width:,} pixels; {MAX_PIXELS:,} in all at most"
                    " expected, or a part of it"
                )
            needed = width * height * len(image.getbands()) * COPIES
            require_memory(path, needed, "its pixels")
            _refuse_wrong_decoding(path, image)
            frames = getattr(image, "n_frames", 1)
            if frames > most and image.format != PHOTOGRAPH:
                raise Refusal(f"{path}: holds {frames} pictures; one expected")
            yield image


def _refuse_wrong_decoding(path: Path, image: "Image") -> None:
    """Refuse files of more than 8 bits that Pillow decodes wrongly without a word."""
    bits = max(_tag(image, BITS) or (0,))
    if bits > 8 and _tag(image, PLANES) == SEPARATE:
        raise Refusal(
            f"{path}: {bits} bits with each channel in a plane of its own; channels side by"
            " side expected (tiffcp -p contig IN OUT)"
        )
    args = _decoder_args(image)
    largest = args[1] if image.format == PORTABLE and isinstance(args, tuple) else 255
    if image.mode == "RGB" and largest > 255:
        raise Refusal(
            f"{path}: a PPM with values up to {largest}; at most 255 expected, or a PNG of 16 bits"
        )


def _tag(image: "Image", number: int) -> Any:
    """Return a tag of a TIFF; None if it is absent, and for other files."""
    return getattr(image, "tag_v2", {}).get(number)


def _decoder_args(image: "Image") -> Any:
    """Return the arguments of Pillow's decoder for the first tile."""
    return next((tile.args for tile in getattr(image, "tile", [])), "")


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
    """Return the size and mode of a picture of at most 8 bits; refuse any other picture."""
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


def is_deep_colour(image: "Image") -> bool:
    """Return whether an opened file has 16 bits and several channels."""
    return _byte_order(image) in OTHER_ORDER


def _byte_order(image: "Image") -> str:
    """Return the order in which 16 bits are unpacked, such as 16B of `RGB;16B`."""
    args = _decoder_args(image)
    mode, _, order = (args if isinstance(args, str) else str(next(iter(args), ""))).partition(";")
    return "" if mode == "I" else order


def exif_of(image: "Image") -> bytes | None:
    """Return the notes of a camera about an opened picture, without its orientation."""
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


def stored_values(path: Path, image: "Image") -> Stored:
    """Return the values of an opened picture, turned upright."""
    from PIL import ImageOps

    if image.format == PORTABLE and image.mode == "I":  # a PGM of more than 8 bits
        return np.asarray(image).astype(np.uint16)
    if is_deep_colour(image):
        values: Stored = _deep_colour(path, image)
    else:
        values = _pixels(path, ImageOps.exif_transpose(image))
    if _tag(image, PHOTOMETRIC) != WHITE_IS_ZERO or values.dtype == np.uint8:
        return values  # Pillow inverts 8 bits itself
    if values.dtype != np.uint16:
        raise Refusal(
            f"{path}: floats of which zero is white; a TIFF in which it is black expected"
        )
    return np.iinfo(np.uint16).max - values


def _deep_colour(path: Path, image: "Image") -> NDArray[np.uint16]:
    """Return the pixels of 16-bit colour (height, width, channels), turned upright."""
    from PIL import Image, ImageOps

    if image.mode not in ("RGB", "RGBA"):
        kind = "grey with transparency" if image.mode in ("LA", "La") else image.mode
        raise Refusal(f"{path}: {kind} of 16 bits; colour (RGB), or grey without it, expected")
    _refuse_transparent_colour(path, image)
    order = _byte_order(image)

    def in_other_order(args: Any) -> Any:
        if isinstance(args, str):
            return args.replace(order, OTHER_ORDER[order])
        mode, *others = args or ("",)
        return (str(mode).replace(order, OTHER_ORDER[order]), *others)

    with Image.open(path) as again:
        again.tile = [tile._replace(args=in_other_order(tile.args)) for tile in again.tile]
        high, low = (ImageOps.exif_transpose(half) for half in (image, again))
        return 256 * np.asarray(high, np.uint16) + np.asarray(low, np.uint16)


def _refuse_transparent_colour(path: Path, image: "Image") -> None:
    """Refuse a colour of 16 bits that stands for transparency, which Pillow does not apply."""
    if "transparency" in image.info:
        raise Refusal(
            f"{path}: 16 bits with a colour that is transparent; a channel of transparency, or"
            " none, expected"
        )


def _pixels(path: Path, image: "Image") -> Stored:
    """Return the values of a picture as grey or colour, with transparency if it has any. Values of
    floats that are missing are NaN.
    """
    if image.mode.startswith("I;16"):
        _refuse_transparent_colour(path, image)
        return np.asarray(image).astype(np.uint16)
    if image.mode == "F":
        values = np.asarray(image).astype(np.float32)
        observed = values[~np.isnan(values)]
        if not observed.size or np.isinf(observed).any() or observed.min() == observed.max():
            raise Refusal(
                f"{path}: floats that are all alike, all missing or infinite; a picture of"
                " different, finite ones expected"
            )
        return values
    if image.mode == "I":
        raise Refusal(
            f"{path}: whole numbers of 32 bits, or signed ones; 8 or 16 bits without sign, or"
            " floats in a TIFF, expected"
        )
    mode = "L" if image.mode in GREY else "RGB"
    if "transparency" in image.info or image.mode in ("LA", "PA", "RGBA", "La", "RGBa"):
        mode += "A"
    return np.asarray(image.convert(mode))


def write_deep(
    path: Path,
    pixels: NDArray[np.uint16],
    profile: bytes | None = None,
    exif: bytes | None = None,
) -> None:
    """Write 16-bit colour (height, width, 3 or 4 channels) and its profile as the suffix says. A
    PNG also holds the EXIF.
    """
    if path.suffix.lower() == ".png":
        path.write_bytes(_png(pixels, profile, exif))
    else:
        path.write_bytes(_tiff(pixels, profile or b""))


def _png(pixels: NDArray[np.uint16], profile: bytes | None, exif: bytes | None) -> bytes:
    """Return a PNG: a header, the profile, the EXIF, the deflated rows without filters, an end."""
    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels.astype(">u2"))
    chunks = [(b"IHDR", header)]
    if profile:
        chunks.append((b"iCCP", b"icc\0\0" + zlib.compress(profile)))
    if exif:
        chunks.append((b"eXIf", exif.removeprefix(b"Exif\0\0")))
    chunks += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    file = b"\x89PNG\r\n\x1a\n"
    for kind, content in chunks:
        checksum = zlib.crc32(kind + content)
        file += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)
    return file


def _tiff(pixels: NDArray[np.uint16], profile: bytes) -> bytes:
    """Return a baseline TIFF: one uncompressed strip, the depths of the channels, the profile, then
    the directory.
    """
    height, width, channels = pixels.shape
    strip = pixels.astype("<u2").tobytes()
    depths = struct.pack(f"<{channels}H", *[16] * channels)
    first, second = 8, 8 + len(strip)
    fields = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, channels, second),
        (259, 3, 1, 1),  # no compression
        (262, 3, 1, 2),  # RGB
        (273, 4, 1, first),
        (277, 3, 1, channels),
        (278, 4, 1, height),
        (279, 4, 1, len(strip)),
    ]
    if channels == 4:
        fields.append((338, 3, 1, 2))  # the fourth channel is transparency
    third = second + len(depths)
    if len(profile) > 4:  # up to 4 bytes, which are no profile, would stand in the field itself
        fields.append((34675, 7, len(profile), third))
        profile += bytes(len(profile) % 2)  # the directory begins at an even place
    directory = b"".join(struct.pack("<HHII", *field) for field in fields)
    start = struct.pack("<2sHI", b"II", 42, third + len(profile))
    return start + strip + depths + profile + struct.pack("<H", len(fields)) + directory + bytes(4)
