"""Pictures, stacks and sounds to arrays and back: nothing is lost that a file can hold."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import soundfile
import tifffile
from numpy.typing import NDArray
from PIL import Image
from PIL.ExifTags import GPS, IFD, Base

from distvae.data import pictures, signals
from distvae.data.image_files import read_to_form
from distvae.data.signals import neighbours, read_stack, write_stack
from distvae.files.refusal import Refusal


def pixels(shape: tuple[int, ...], bits: int, seed: int = 0) -> NDArray[np.uint16]:
    return np.random.default_rng(seed).integers(0, 1 << bits, shape, dtype=np.uint16)


def colours(bits: int, channels: int) -> NDArray[np.uint16]:
    return pixels((7, 5, channels) if channels > 1 else (7, 5), bits)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize(
    ("bits", "channels"), [(8, 1), (8, 2), (8, 3), (8, 4), (16, 1), (16, 3), (16, 4)]
)
def test_a_picture_comes_back_bit_for_bit(
    tmp_path: Path, suffix: str, bits: int, channels: int
) -> None:
    given, path = colours(bits, channels), tmp_path / f"given{suffix}"
    if bits == 16 and channels > 1:
        pictures.write_deep(path, given)
    else:
        Image.fromarray(given if bits == 16 else given.astype(np.uint8)).save(path)
    signal = signals.read_signal(path)
    largest = (1 << bits) - 1
    expected = given.reshape(7, 5, channels)
    shown = expected[..., :-1] if channels in (2, 4) else expected
    np.testing.assert_allclose(signal.values, shown * (255 / largest), rtol=1e-12)
    again = tmp_path / f"again{suffix}"
    signals.write(again, signal)
    np.testing.assert_array_equal(signals.read_signal(again).values, signal.values)
    if signal.alpha is not None:
        np.testing.assert_array_equal(signal.alpha, expected[..., -1])
        np.testing.assert_array_equal(signals.read_signal(again).alpha, signal.alpha)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted((path.name, again.name))


@pytest.mark.parametrize(
    ("suffix", "channels"), [(".bmp", 1), (".bmp", 3), (".webp", 3), (".pgm", 1), (".ppm", 3)]
)
def test_a_picture_of_eight_bits_comes_back_bit_for_bit(
    tmp_path: Path, suffix: str, channels: int
) -> None:
    given, path = colours(8, channels).astype(np.uint8), tmp_path / f"given{suffix}"
    signals.write(path, signals.Signal(given.reshape(7, 5, channels).astype(float)))
    np.testing.assert_array_equal(np.asarray(Image.open(path)), given)
    signal = signals.read_plain_picture(path)
    np.testing.assert_array_equal(signal.values, given.reshape(7, 5, channels))
    assert suffix in signals.suffixes_for(signal)


def test_a_pgm_of_more_than_eight_bits_is_read_and_such_a_ppm_is_refused(tmp_path: Path) -> None:
    grey, colour = pixels((6, 9), 16), pixels((6, 9, 3), 16)
    for name, kind, values in (("a.pgm", b"P5", grey), ("b.ppm", b"P6", colour)):
        (tmp_path / name).write_bytes(kind + b" 9 6 65535\n" + values.astype(">u2").tobytes())
    found = signals.read_signal(tmp_path / "a.pgm")
    np.testing.assert_allclose(found.values[..., 0], grey * (255 / 65535), rtol=1e-12)
    assert found.bits == 16
    with pytest.raises(Refusal, match="a picture of more than 8 bits"):
        signals.read_plain_picture(tmp_path / "a.pgm")
    with pytest.raises(Refusal, match=r"b\.ppm: a PPM with values up to 65535"):
        signals.read_signal(tmp_path / "b.ppm")


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [3, 4])
def test_colour_of_sixteen_bits_is_what_other_readers_see(
    tmp_path: Path, suffix: str, channels: int
) -> None:
    given, path = pixels((6, 9, channels), 16), tmp_path / f"deep{suffix}"
    pictures.write_deep(path, given)
    if suffix == ".tif":
        np.testing.assert_array_equal(tifffile.imread(path), given)
    with Image.open(path) as image:
        assert image.mode == ("RGB" if channels == 3 else "RGBA")
        np.testing.assert_array_equal(np.asarray(image), given >> 8)


def test_a_palette_is_read_as_colours_and_a_bitmap_as_grey(tmp_path: Path) -> None:
    image = Image.fromarray(colours(8, 3).astype(np.uint8))
    image.quantize(8).save(tmp_path / "palette.png")
    image.convert("1").save(tmp_path / "bitmap.png")
    assert signals.read_signal(tmp_path / "palette.png").values.shape == (7, 5, 3)
    assert set(np.unique(signals.read_signal(tmp_path / "bitmap.png").values)) == {0.0, 255.0}


def test_values_beyond_the_range_go_to_its_end(tmp_path: Path) -> None:
    signals.write(tmp_path / "a.png", signals.Signal(np.array([[[-40.0], [300.0], [99.6]]])))
    assert signals.read_signal(tmp_path / "a.png").values.ravel().tolist() == [0, 255, 100]


@pytest.mark.parametrize(("suffix", "length"), [(".png", 500), (".tif", 9), (".tif", 500)])
def test_a_colour_profile_of_16_bit_colour_is_kept(
    suffix: str, length: int, tmp_path: Path
) -> None:
    path, pixels = tmp_path / f"a{suffix}", colours(16, 4)
    pictures.write_deep(path, pixels, b"p" * length)
    with Image.open(path) as pillow:
        assert pillow.info["icc_profile"] == b"p" * length
    signals.write(tmp_path / f"b{suffix}", signals.read_signal(path))
    again = signals.read_signal(tmp_path / f"b{suffix}")
    assert (again.profile, again.bits) == (b"p" * length, 16)
    np.testing.assert_allclose(again.values / again.step, pixels[..., :3], rtol=1e-14)


def test_of_a_photograph_with_a_preview_the_photograph_is_read(tmp_path: Path) -> None:
    first, preview = (Image.fromarray(np.full((8, 8), value, np.uint8)) for value in (200, 10))
    first.save(tmp_path / "a.mpo", save_all=True, append_images=[preview])
    path = (tmp_path / "a.mpo").rename(tmp_path / "a.jpg")
    with Image.open(path) as pillow:
        assert getattr(pillow, "n_frames", 1) == 2
    np.testing.assert_allclose(signals.read_signal(path).values, 200, atol=2)


def test_the_profile_of_colours_that_are_converted_is_dropped(tmp_path: Path) -> None:
    inks = Image.fromarray(colours(8, 3).astype(np.uint8)).convert("CMYK")
    inks.save(tmp_path / "a.tif", icc_profile=b"of inks")
    signals.write(tmp_path / "b.png", signals.read_signal(tmp_path / "a.tif"))
    with Image.open(tmp_path / "b.png") as again:
        assert (again.mode, again.info.get("icc_profile")) == ("RGB", None)


@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tif", "deep.png"])
def test_what_a_camera_noted_comes_back_upright(tmp_path: Path, kind: str) -> None:
    exif, profile = Image.Exif(), b"profile of colours"
    exif[Base.Orientation], exif[Base.Make], exif[Base.DateTime] = 6, "Maker", "2020:01:02 03:04:05"
    exif[IFD.Exif] = {Base.ExposureTime: 0.5, Base.ISOSpeedRatings: 400}
    exif[IFD.GPSInfo] = {GPS.GPSLatitudeRef: "N"}
    source, target = tmp_path / "in.jpg", tmp_path / f"out.{kind}"
    Image.fromarray(colours(8, 3).astype(np.uint8)).save(source, exif=exif, icc_profile=profile)
    read = signals.read_signal(source)
    assert read.values.shape == (5, 7, 3)
    signals.write(target, replace(read, bits=16) if kind == "deep.png" else read)
    with Image.open(target) as written:
        assert written.info["icc_profile"] == profile
        assert written.size == (7, 5)
        found = written.getexif()
        notes, place = found.get_ifd(IFD.Exif), found.get_ifd(IFD.GPSInfo)
    assert (found[Base.Orientation], found[Base.Make]) == (1, "Maker")
    assert found[Base.DateTime] == "2020:01:02 03:04:05"
    assert notes[Base.ISOSpeedRatings] == 400
    assert place[GPS.GPSLatitudeRef] == "N"


TURNS: dict[int, Callable[[NDArray[np.integer]], NDArray[np.integer]]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


KINDS: dict[str, dict[str, Any]] = {
    "plain": {"photometric": "minisblack"},
    "ome": {
        "ome": True,
        "metadata": {"axes": "TZCYX", "PhysicalSizeX": 0.1, "PhysicalSizeXUnit": "\u00b5m"},
    },
    "imagej": {"imagej": True, "metadata": {"axes": "TZCYX"}, "resolution": (2.0, 2.0)},
    "deflated, beyond 4 GB": {"photometric": "minisblack", "compression": "zlib", "bigtiff": True},
}


def stack_values(kind: type[np.generic] = np.uint16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (3, 4, 2, 12, 15)).astype(kind)


@pytest.mark.parametrize(
    ("kind", "depth"),
    [
        ("plain", np.uint16),
        ("ome", np.float32),
        ("ome", np.uint8),
        ("imagej", np.uint16),
        ("deflated, beyond 4 GB", np.float32),
    ],
)
def test_axes_depth_and_notes_come_back(tmp_path: Path, kind: str, depth: type[np.generic]) -> None:
    source, target = tmp_path / "in.tif", tmp_path / "out.tif"
    tifffile.imwrite(source, stack_values(depth), **KINDS[kind])
    stack = read_stack(source)
    assert stack is not None
    write_stack(target, stack.pages, stack)
    with tifffile.TiffFile(source) as given, tifffile.TiffFile(target) as found:
        assert np.array_equal(found.asarray(), given.asarray())
        assert found.asarray().dtype == depth
        assert found.series[0].axes == given.series[0].axes
        assert found.ome_metadata == given.ome_metadata
        assert found.imagej_metadata == given.imagej_metadata
        assert found.pages[0].resolution == given.pages[0].resolution


@pytest.mark.parametrize("kind", ["ome", "imagej"])
@pytest.mark.parametrize(("axes", "along"), [("TZCYX", 0), ("ZCYX", 0), ("CYX", None)])
def test_neighbours_differ_in_time_or_else_in_depth(
    tmp_path: Path, kind: str, axes: str, along: int | None
) -> None:
    source, given = tmp_path / "in.tif", stack_values(np.uint8)[(0,) * (5 - len(axes))]
    pages = np.arange(np.prod(given.shape[:-2])).reshape(given.shape[:-2])
    options = KINDS[kind] | {"metadata": {"axes": axes}}
    tifffile.imwrite(source, given, **options)
    stack = read_stack(source)
    assert stack is not None
    expected = [[n] for n in pages.flat] if along is None else np.moveaxis(pages, along, -1)
    assert sorted(stack.series) == sorted(np.reshape(expected, (-1, len(stack.series[0]))).tolist())


@pytest.mark.parametrize(
    "description",
    [
        "",
        "ImageJ=1\nchannels=9\nslices=99999999999999999999",
        '<Pixels DimensionOrder="XYCZT" SizeC="-1" SizeZ="6" SizeT="">',
        '<Pixels DimensionOrder="XYCCC" SizeC="6" SizeZ="1" SizeT="1">',
        '<Channel SamplesPerPixel="0"/><Pixels DimensionOrder="XYCZT" SizeC="1">',
    ],
)
def test_axes_that_do_not_fit_are_those_of_a_plain_stack(description: str) -> None:
    assert neighbours(description, 6) == [[0, 1, 2, 3, 4, 5]]


@pytest.mark.parametrize(
    ("encoding", "suffix", "channels"),
    [
        ("PCM_16", ".wav", 1),
        ("PCM_24", ".flac", 2),
        ("GSM610", ".wav", 1),
        ("IMA_ADPCM", ".flac", 1),
        ("FLOAT", ".wav", 1),
        ("FLOAT", ".flac", 2),
        ("VORBIS", ".wav", 1),
        ("MP3", ".flac", 1),
    ],
)
def test_a_sound_in_any_encoding_is_written_without_further_loss(
    tmp_path: Path, encoding: str, suffix: str, channels: int
) -> None:
    path = tmp_path / {"VORBIS": "a.ogg", "MP3": "a.mp3"}.get(encoding, "a.wav")
    noise = np.random.default_rng(0).uniform(-0.2, 0.2, (4000, channels))
    subtype = None if encoding in ("VORBIS", "MP3") else encoding
    soundfile.write(path, noise, 8000 if subtype else 16000, subtype=subtype)
    signal, again = signals.read_signal(path), tmp_path / f"b{suffix}"
    assert suffix in signals.suffixes_for(signal)
    signals.write(again, signal)
    back = signals.read_signal(again)
    assert (back.rate, back.values.shape) == (signal.rate, (len(signal.values), channels))
    tolerance = 0 if encoding.startswith("PCM") else 2**-22
    np.testing.assert_allclose(back.values, signal.values.clip(-1, 1), rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("suffix", "bits", "channels", "order"),
    [
        (".png", 8, 3, None),
        (".tif", 16, 1, None),
        (".tif", 8, 4, None),
        (".jpg", 8, 3, None),
        (".png", 16, 3, None),
        (".tif", 16, 3, "<"),
        (".tif", 16, 3, ">"),
    ],
)
def test_pictures_stand_upright_as_their_camera_was_held(
    tmp_path: Path, suffix: str, bits: int, channels: int, order: Literal["<", ">"] | None
) -> None:
    path, stored = tmp_path / f"a{suffix}", colours(bits, channels)
    for turn, turned in TURNS.items():
        exif = Image.Exif()
        exif[Base.Orientation] = turn
        if order:
            tag = (Base.Orientation.value, 3, 1, turn, True)
            tifffile.imwrite(path, stored, byteorder=order, photometric="rgb", extratags=[tag])
        elif bits == 16 and channels > 1:
            pictures.write_deep(path, stored, exif=exif.tobytes())
        else:
            Image.fromarray(stored if bits == 16 else stored.astype(np.uint8)).save(path, exif=exif)
        if suffix == ".jpg":
            with Image.open(path) as image:
                expected = turned(np.asarray(image))  # not turned by Pillow
        else:
            expected = turned(stored.reshape(*stored.shape[:2], -1))
        signal, form = signals.read_picture(path), pictures.head(path)
        assert (form.height, form.width) == signal.values.shape[:2] == expected.shape[:2]
        shown = expected[..., :-1] if channels == 4 else expected
        np.testing.assert_array_equal((signal.values * ((1 << bits) - 1) / 255).round(), shown)
        if signal.alpha is not None:
            np.testing.assert_array_equal(signal.alpha, expected[..., -1])
        if bits == 8 and channels == 3:
            read = read_to_form(path, pictures.plain_head(path))
            np.testing.assert_array_equal(np.moveaxis(read, 0, -1), expected)


def test_what_pillow_would_read_wrongly_is_refused(tmp_path: Path) -> None:
    path, given = tmp_path / "a.tif", pixels((3, 6, 9), 16)
    planes: dict[str, Any] = {"photometric": "rgb", "planarconfig": "separate"}
    eight = (given >> 8).astype(np.uint8)
    tifffile.imwrite(path, eight, **planes)
    np.testing.assert_array_equal(signals.read_signal(path).values, np.moveaxis(eight, 0, -1))
    tifffile.imwrite(path, given, **planes)
    Image.fromarray(given[0]).save(tmp_path / "b.png", transparency=7)
    with tifffile.TiffWriter(tmp_path / "c.tif") as file:
        file.write(np.zeros((8, 9), np.uint8))
        file.write(np.zeros((4, 5), np.uint8))
    reads: list[tuple[Callable[[Path], object], str, str]] = [
        (signals.read_signal, "a.tif", "16 bits with each channel in a plane of its own"),
        (signals.read_signal, "b.png", "16 bits with a colour that is transparent"),
        (read_stack, "c.tif", "picture 2 of 2 has another size or kind than the first"),
    ]
    for read, name, words in reads:
        with pytest.raises(Refusal, match=words):
            read(tmp_path / name)


def test_what_a_file_of_sound_cannot_hold_is_known_and_clipped_samples_are_counted() -> None:
    loud = np.array([[0.5], [1.0], [-1.5], [2.0]])
    for encoding, suffix, beyond in (
        ("FLOAT", "wav", 0),
        ("FLOAT", "flac", 2),
        ("PCM_16", "wav", 2),
    ):
        signal = signals.Signal(loud, rate=16000, encoding=encoding)
        assert signals.clipped(Path(f"a.{suffix}"), signal) == beyond
    for rate, channels, fits in (
        *((rate, 8, True) for rate in (65535, 65540, 655350)),
        *((65537, 1, False), (192001, 1, False), (16000, 9, False), (700000, 1, False)),
    ):
        found = signals.suffixes_for(signals.Signal(np.zeros((4, channels)), rate=rate))
        assert found == ((".wav", ".flac") if fits else (".wav",))
