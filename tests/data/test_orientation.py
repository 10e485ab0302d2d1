"""Pictures whose camera was turned: the header and the pixels stand upright in every format."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from distvae.data import pictures as deep
from distvae.data import pictures as picture_file
from distvae.data import signals
from distvae.data.images.folder import read_to_form

Pixels = NDArray[np.integer]
TURNS: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "png": (".png", {}),
    "raw": (".tif", {}),
    "lzw": (".tif", {"compression": "tiff_lzw"}),
    "jpeg": (".jpg", {"quality": 95}),
}
HELD = [
    (kind, bits, channels)
    for kind in FORMATS
    for bits, channels in [(8, 1), (8, 3), (8, 4), (16, 1)]
    if kind != "jpeg" or (bits == 8 and channels < 4)
]
"""Formats with the depths and channels that Pillow writes in them."""
ORIENTATION = 0x0112
every_turn = pytest.mark.parametrize("turn", TURNS)


def pixels(channels: int, bits: int) -> Pixels:
    shape = (4, 6, channels) if channels > 1 else (4, 6)
    kind = np.uint8 if bits == 8 else np.uint16
    return np.random.default_rng(0).integers(0, 1 << bits, shape, dtype=kind)


def tagged(turn: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = turn
    return exif


def check_upright(path: Path, stored: Pixels, turn: int) -> None:
    """Compare a file's header and pixels with the stored pixels, turned."""
    expected = TURNS[turn](stored.reshape(*stored.shape[:2], -1))
    signal, form = signals.read_picture(path), picture_file.head(path)
    assert (form.height, form.width) == signal.values.shape[:2] == expected.shape[:2]
    colours = expected[..., :-1] if expected.shape[-1] == 4 else expected
    largest = np.iinfo(stored.dtype).max
    np.testing.assert_array_equal((signal.values * (largest / 255)).round(), colours)
    if signal.alpha is not None:
        np.testing.assert_array_equal(signal.alpha, expected[..., -1])


@every_turn
@pytest.mark.parametrize(("kind", "bits", "channels"), HELD)
def test_head_and_pixels_stand_upright(
    tmp_path: Path, turn: int, kind: str, bits: int, channels: int
) -> None:
    suffix, options = FORMATS[kind]
    path, stored = tmp_path / f"a{suffix}", pixels(channels, bits)
    Image.fromarray(stored).save(path, exif=tagged(turn), **options)
    if kind == "jpeg":
        with Image.open(path) as image:
            stored = np.asarray(image)  # not turned by Pillow
    check_upright(path, stored, turn)


@every_turn
@pytest.mark.parametrize("channels", [3, 4])
def test_colour_of_sixteen_bits_stands_upright_in_png(
    tmp_path: Path, turn: int, channels: int
) -> None:
    path, stored = tmp_path / "a.png", pixels(channels, 16)
    deep.write_deep(path, stored.astype(np.uint16), exif=tagged(turn).tobytes())
    check_upright(path, stored, turn)


@every_turn
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_colour_of_sixteen_bits_stands_upright_in_tiff(
    tmp_path: Path, turn: int, order: str, compression: str | None
) -> None:
    tifffile = pytest.importorskip("tifffile")
    path, stored = tmp_path / "a.tif", pixels(3, 16)
    tag = (ORIENTATION, 3, 1, turn, True)
    tifffile.imwrite(
        path,
        stored,
        byteorder=order,
        compression=compression,
        photometric="rgb",
        extratags=[tag],
    )
    check_upright(path, stored, turn)


@pytest.mark.parametrize("turn", [0, 9])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_an_unknown_orientation_turns_nothing(tmp_path: Path, turn: int, suffix: str) -> None:
    path, stored = tmp_path / f"a{suffix}", pixels(1, 8)
    Image.fromarray(stored).save(path, exif=tagged(turn))
    assert picture_file.head(path)[:2] == (4, 6)
    np.testing.assert_array_equal(signals.read_picture(path).values[..., 0], stored)


@every_turn
def test_a_tiff_turned_by_its_xmp_stands_upright(tmp_path: Path, turn: int) -> None:
    path, stored = tmp_path / "a.tif", pixels(1, 8)
    xmp = f'<x:xmpmeta><rdf:Description tiff:Orientation="{turn}"/></x:xmpmeta>'
    Image.fromarray(stored).save(path, tiffinfo={700: xmp.encode()})
    check_upright(path, stored, turn)


@every_turn
@pytest.mark.parametrize("kind", ["raw", "lzw", "png"])
def test_a_picture_of_a_folder_stands_upright(tmp_path: Path, turn: int, kind: str) -> None:
    suffix, options = FORMATS[kind]
    path, stored = tmp_path / f"a{suffix}", pixels(3, 8)
    Image.fromarray(stored).save(path, exif=tagged(turn), **options)
    read = read_to_form(path, picture_file.plain_head(path))
    np.testing.assert_array_equal(np.moveaxis(read, 0, -1), TURNS[turn](stored))
