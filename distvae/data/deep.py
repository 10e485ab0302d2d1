"""Pictures of 16 bits that Pillow does not keep: colour, of which it reads only the high bytes and
which it cannot write, and PGM, which it widens.
"""

import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from distvae.files.refusal import Refusal

if TYPE_CHECKING:
    from PIL.Image import Image

Pixels = NDArray[np.uint16]
BITS, PHOTOMETRIC, PLANES = 258, 262, 284
"""Fields of a TIFF: bits of each channel, what its numbers mean, and how channels are placed."""
WHITE_IS_ZERO, SEPARATE = 0, 2
"""Values of the last two."""
PORTABLE = "PPM"
"""Pillow's name for PGM and PPM."""
OFFSET = 4
"""Bytes of a field of a TIFF's directory that hold the value itself, or its place."""
OTHER_ORDER = {"16L": "16B", "16B": "16L", "16N": "16B"}
"""Unpacked in the other order of bytes, what Pillow takes for the high bytes are the low ones."""


def read_deep(path: Path, opened: "Image") -> Pixels | None:
    """Return the pixels of an opened file, turned upright, if it is 16-bit colour (height, width,
    channels) or a PGM of more than 8 bits (height, width), otherwise None.
    """
    if opened.format == PORTABLE and opened.mode == "I":
        return np.asarray(opened).astype(np.uint16)
    order = _order(opened)
    if order not in OTHER_ORDER:
        return None
    if opened.mode not in ("RGB", "RGBA"):
        kind = "grey with transparency" if opened.mode in ("LA", "La") else opened.mode
        raise Refusal(f"{path}: {kind} of 16 bits; colour (RGB), or grey without it, expected")
    refuse_transparency(path, opened)
    from PIL import Image, ImageOps

    with Image.open(path) as again:
        again.tile = [tile._replace(args=_swapped(tile.args, order)) for tile in again.tile]
        high, low = (ImageOps.exif_transpose(half) for half in (opened, again))
        return 256 * np.asarray(high, np.uint16) + np.asarray(low, np.uint16)


def is_deep_colour(opened: "Image") -> bool:
    """Return whether an opened file is 16-bit colour, of which Pillow reads the high bytes."""
    return _order(opened) in OTHER_ORDER


def is_negative(opened: "Image") -> bool:
    """Return whether an opened file is a TIFF in which zero is white."""
    return bool(_tag(opened, PHOTOMETRIC) == WHITE_IS_ZERO)


def refuse_transparency(path: Path, opened: "Image") -> None:
    """Refuse a colour of 16 bits that stands for transparency, which Pillow does not apply."""
    if "transparency" in opened.info:
        raise Refusal(
            f"{path}: 16 bits with a colour that is transparent; a channel of transparency, or"
            " none, expected"
        )


def refuse_deep_planes(path: Path, opened: "Image") -> None:
    """Refuse a TIFF of 16 bits with one plane after the other, which Pillow decodes wrongly."""
    bits = max(_tag(opened, BITS) or (0,))
    if bits > 8 and _tag(opened, PLANES) == SEPARATE:
        raise Refusal(
            f"{path}: {bits} bits with each channel in a plane of its own; channels side by"
            " side expected (tiffcp -p contig IN OUT)"
        )


def refuse_deep_portable(path: Path, opened: "Image") -> None:
    """Refuse a PPM of more than 8 bits, which Pillow reduces to 8."""
    args = next((tile.args for tile in getattr(opened, "tile", [])), "")
    largest = args[1] if opened.format == PORTABLE and isinstance(args, tuple) else 255
    if opened.mode == "RGB" and largest > 255:
        raise Refusal(
            f"{path}: a PPM with values up to {largest}; at most 255 expected, or a PNG of 16 bits"
        )


def _tag(opened: "Image", number: int) -> Any:
    """Return a field of a TIFF, None where it is absent and for other files."""
    return getattr(opened, "tag_v2", {}).get(number)


def _order(opened: "Image") -> str:
    """Return the order in which the file's bytes are unpacked, such as 16B of `RGB;16B`."""
    args = next((tile.args for tile in getattr(opened, "tile", [])), "")
    mode, _, order = (args if isinstance(args, str) else str(next(iter(args), ""))).partition(";")
    return "" if mode == "I" else order


def _swapped(args: tuple[object, ...] | str | None, order: str) -> tuple[object, ...] | str:
    """Return the arguments of Pillow's decoder for the other order of bytes."""
    if isinstance(args, str):
        return args.replace(order, OTHER_ORDER[order])
    mode, *others = args or ("",)
    return (str(mode).replace(order, OTHER_ORDER[order]), *others)


def write_deep(
    path: Path, pixels: Pixels, profile: bytes | None = None, exif: bytes | None = None
) -> None:
    """Write (height, width, 3 or 4 channels) and the profile of the colours as the suffix says. A
    PNG also holds the EXIF.
    """
    if path.suffix.lower() == ".png":
        path.write_bytes(png(pixels, profile, exif))
    else:
        path.write_bytes(tiff(pixels, profile))


def png(pixels: Pixels, profile: bytes | None = None, exif: bytes | None = None) -> bytes:
    """Return a PNG: a header, the profile, the EXIF, the deflated rows without filters, an end."""
    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels.astype(">u2"))
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + (_chunk(b"iCCP", b"icc\0\0" + zlib.compress(profile)) if profile else b"")
        + (_chunk(b"eXIf", exif.removeprefix(b"Exif\0\0")) if exif else b"")
        + _chunk(b"IDAT", zlib.compress(rows))
        + _chunk(b"IEND", b"")
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def tiff(pixels: Pixels, profile: bytes | None) -> bytes:
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
        fields.append((338, 3, 1, 2))  # the fourth is transparency
    colours, third = profile or b"", second + len(depths)
    if len(colours) > OFFSET:  # a shorter one, which is no profile, would stand in the field
        fields.append((34675, 7, len(colours), third))
        colours += bytes(len(colours) % 2)  # the directory begins at an even place
    directory = b"".join(struct.pack("<HHII", *field) for field in fields)
    start = struct.pack("<2sHI", b"II", 42, third + len(colours))
    return start + strip + depths + colours + struct.pack("<H", len(fields)) + directory + bytes(4)
