"""Stacks come back with their axes, as another library reads them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distvae.data.signals import neighbours, read_stack, write_stack
from distvae.files.refusal import Refusal

tifffile = pytest.importorskip("tifffile")
KINDS: dict[str, dict[str, Any]] = {
    "plain": {"photometric": "minisblack"},
    "ome": {
        "ome": True,
        "metadata": {"axes": "TZCYX", "PhysicalSizeX": 0.1, "PhysicalSizeXUnit": "\u00b5m"},
    },
    "imagej": {"imagej": True, "metadata": {"axes": "TZCYX"}, "resolution": (2.0, 2.0)},
    "deflated, beyond 4 GB": {"photometric": "minisblack", "compression": "zlib", "bigtiff": True},
}


def values(kind: type[np.generic] = np.uint16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (3, 4, 2, 12, 15)).astype(kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("depth", [np.uint8, np.uint16, np.float32])
def test_axes_depth_and_notes_come_back(tmp_path: Path, kind: str, depth: type[np.generic]) -> None:
    source, target = tmp_path / "in.tif", tmp_path / "out.tif"
    tifffile.imwrite(source, values(depth), **KINDS[kind])
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
    source, given = tmp_path / "in.tif", values(np.uint8)[(0,) * (5 - len(axes))]
    pages = np.arange(np.prod(given.shape[:-2])).reshape(given.shape[:-2])
    options = KINDS[kind] | {"metadata": {"axes": axes}}
    tifffile.imwrite(source, given, **options)
    stack = read_stack(source)
    assert stack is not None
    expected = [[n] for n in pages.flat] if along is None else np.moveaxis(pages, along, -1)
    assert sorted(stack.series) == sorted(np.reshape(expected, (-1, len(stack.series[0]))).tolist())


def test_colours_are_one_picture(tmp_path: Path) -> None:
    given = np.random.default_rng(0).integers(0, 255, (4, 12, 15, 3)).astype(np.uint8)
    tifffile.imwrite(
        tmp_path / "a.tif", given, photometric="rgb", ome=True, metadata={"axes": "TYXS"}
    )
    stack = read_stack(tmp_path / "a.tif")
    assert stack is not None
    assert stack.series == [[0, 1, 2, 3]]
    assert np.array_equal(np.stack(stack.pages), given)


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


def test_pictures_of_different_sizes_are_no_stack(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(np.zeros((8, 9), np.uint8))
        file.write(np.zeros((4, 5), np.uint8))
    with pytest.raises(Refusal, match="picture 2 of 2 has another size or kind than the first"):
        read_stack(tmp_path / "a.tif")
