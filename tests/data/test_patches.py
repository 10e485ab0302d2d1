"""Cutting and merging are each other's inverse."""

import math
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from distvae.config import PatchData
from distvae.data.windows.patches import Grid, Patches, profile
from distvae.files.refusal import Refusal

Floats = NDArray[np.float64]


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    """Pictures and sounds of any size, windows that fit, any stride."""
    sizes = draw(st.lists(st.integers(1, 12), min_size=1, max_size=2))
    window = tuple(draw(st.integers(1, size)) for size in sizes)
    return Grid(
        (*sizes, draw(st.integers(1, 4))),
        window,
        draw(st.integers(1, min(window))),
        draw(st.booleans()),
    )


def values(shape: tuple[int, ...], seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(100, 50, shape)


@given(grids(), st.sampled_from(["mean", "gaussian"]))
def test_merging_what_was_cut_gives_the_array_back_to_single_precision(
    grid: Grid, merge: str
) -> None:
    array = values(grid.shape).astype(np.float32)
    rows = grid.cut(array)
    assert rows.shape == (grid.rows, grid.dims)
    np.testing.assert_allclose(grid.merge(rows, profile(grid.window, merge)), array, rtol=1e-6)


@given(grids())
def test_merging_whole_numbers_evenly_gives_them_back_exactly(grid: Grid) -> None:
    array = values(grid.shape).round()
    np.testing.assert_array_equal(grid.merge(grid.cut(array), profile(grid.window, "mean")), array)


@given(grids())
def test_every_window_is_the_part_of_the_array_that_its_start_names(grid: Grid) -> None:
    array = values(grid.shape).astype(np.float32)
    rows = iter(grid.cut(array))
    for start in np.ndindex(*map(len, grid.starts)):
        part = array[
            tuple(
                slice(s[i], s[i] + w)
                for s, i, w in zip(grid.starts, start, grid.window, strict=True)
            )
        ]
        channels = np.moveaxis(part, -1, 0)
        for window in [channels] if grid.joint else channels:
            np.testing.assert_array_equal(next(rows), window.ravel())
    assert next(rows, None) is None


@given(grids())
def test_starts_are_distinct_a_stride_apart_and_reach_the_end(grid: Grid) -> None:
    for starts, size, window in zip(grid.starts, grid.shape, grid.window, strict=False):
        assert (np.diff(starts) > 0).all()
        assert (np.diff(starts)[:-1] == grid.stride).all()
        assert starts[0] == 0
        assert starts[-1] + window == size


def test_a_value_comes_back_as_the_weighted_mean_of_the_windows_that_cover_it() -> None:
    grid = Grid((4, 1), (3,))
    merged = grid.merge(np.array([[0.0, 1.0, 2.0], [10.0, 20.0, 30.0]]), np.array([1.0, 2.0, 1.0]))
    np.testing.assert_allclose(merged[:, 0], [0, (2 * 1 + 1 * 10) / 3, (1 * 2 + 2 * 20) / 3, 30])


def test_a_gaussian_window_is_the_product_of_its_sides_and_highest_in_the_middle() -> None:
    window = profile((5, 9), "gaussian")
    np.testing.assert_allclose(window, np.outer(window[:, 4], window[2]) / window[2, 4])
    assert window[2, 4] == window.max()
    np.testing.assert_allclose(window, window[::-1, ::-1])
    np.testing.assert_allclose(window[2, 4 + 2] / window[2, 4], np.exp(-0.5 * (2 / (9 / 4)) ** 2))


@pytest.mark.parametrize("scale", ["standard", "unit", "keep"])
@pytest.mark.parametrize("level", ["remove", "keep"])
@pytest.mark.parametrize(("count", "channels"), [(1, "joint"), (3, "joint"), (3, "separate")])
def test_what_was_scaled_and_levelled_comes_back(
    scale: str, level: str, count: int, channels: str
) -> None:
    array = values((11, 13, count))
    how: Any = {"scale": scale, "level": level, "channels": channels}
    patches = Patches.of(array, PatchData(window=(3, 5), stride=2, **how))
    np.testing.assert_allclose(patches.merged(patches.rows), array, rtol=1e-5)


def test_standardised_data_has_the_mean_and_deviation_of_the_observed_values_removed() -> None:
    array = values((11, 13, 1))
    array[values((11, 13, 1), 1) > 120] = np.nan
    patches = Patches.of(array, PatchData(window=(1, 1), level="keep"))
    seen = patches.rows[np.isfinite(patches.rows)]
    assert len(seen) == np.isfinite(array).sum()
    np.testing.assert_allclose([seen.mean(), seen.std()], [0, 1], atol=1e-5)


@pytest.mark.parametrize(("shape", "largest"), [((9, 9, 1), 255.0), ((9, 1), 1.0)])
def test_values_in_units_of_the_largest_possible_one_are_from_0_to_1(
    shape: tuple[int, ...], largest: float
) -> None:
    array = np.linspace(0, largest, 9).repeat(math.prod(shape) // 9).reshape(shape)
    window = (3,) * (len(shape) - 1)
    rows = Patches.of(array, PatchData(window=window, scale="unit", level="keep")).rows
    assert (rows.min(), rows.max()) == (0, 1)


def test_the_unit_of_a_sound_is_its_largest_sample_of_either_sign() -> None:
    array = np.linspace(-0.5, 0.25, 9)[:, None]
    rows = Patches.of(array, PatchData(window=(3,), scale="unit", level="keep")).rows
    assert (rows.min(), rows.max()) == (-1, 0.5)


def test_a_grey_picture_in_colour_has_windows_of_one_channel_though_pixels_are_missing() -> None:
    """Otherwise each value would count three times."""
    grey = values((6, 7, 1))
    grey[2, 3] = np.nan
    patches = Patches.of(grey.repeat(3, -1), PatchData(window=(2, 2)))
    assert patches.grid.channels == 1
    assert patches.merged(np.nan_to_num(patches.rows)).shape == (6, 7, 3)


def test_the_level_of_a_window_is_the_mean_of_what_was_observed_in_it() -> None:
    array = values((12, 1))
    array[[0, 3, 4]] = np.nan
    patches = Patches.of(array, PatchData(window=(4,), stride=4))
    np.testing.assert_allclose(np.nanmean(patches.rows, 1), 0, atol=1e-6)
    np.testing.assert_allclose(patches.shift[0], array[[1, 2]].mean(), rtol=1e-6)


@pytest.mark.parametrize("scale", ["standard", "unit", "keep"])
def test_a_window_of_which_nothing_was_observed_takes_the_mean_of_everything(
    scale: Literal["standard", "unit", "keep"],
) -> None:
    array = values((8, 1))
    array[:4] = np.nan
    patches = Patches.of(array, PatchData(window=(4,), stride=4, scale=scale))
    np.testing.assert_allclose(patches.shift[:, 0], array[4:].mean(), rtol=1e-6)
    assert np.isnan(patches.rows[0]).all()
    np.testing.assert_allclose(
        patches.merged(np.nan_to_num(patches.rows))[:4], array[4:].mean(), rtol=1e-6
    )


@given(gap=st.integers(1, 40), samples=st.integers(2, 9))
def test_a_long_gap_has_samples_that_no_window_shares_with_an_observed_one(
    gap: int, samples: int
) -> None:
    array = values((60, 2))
    array[10 : 10 + gap] = np.nan
    patches = Patches.of(array, PatchData(window=(samples,), level="keep"))
    # a window that holds the last observed sample ends samples - 1 behind it, and so before
    assert patches.unreached == max(0, gap - 2 * (samples - 1))


def test_little_contrast_at_a_high_level_is_kept() -> None:
    array = 1e6 + np.random.default_rng(0).normal(0, 0.1, (9, 9, 1))
    patches = Patches.of(array, PatchData(window=(3, 3), scale="keep"))
    np.testing.assert_allclose(
        patches.rows[0], (array[:3, :3] - array[:3, :3].mean()).ravel(), atol=1e-6
    )
    np.testing.assert_allclose(patches.merged(patches.rows), array, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("shape", "window", "stride", "named"),
    [
        ((7, 20, 1), (8, 8), 1, "8 x 8, larger than the data's 7 x 20"),
        ((100, 1), (8, 8), 1, r"\[samples\] expected"),
        ((100, 100, 1), (8,), 1, r"\[height, width\] expected"),
        ((100, 1), (8,), 9, "9 leaves gaps; at most 8"),
    ],
)
def test_windows_that_do_not_fit_are_refused(
    shape: tuple[int, ...], window: tuple[int, ...], stride: int, named: str
) -> None:
    with pytest.raises(Refusal, match=named):
        Grid(shape, window, stride)


def test_other_data_and_other_preparation_have_other_digests() -> None:
    configs = [
        PatchData(window=(4,)),
        PatchData(window=(4,), merge="gaussian"),
        PatchData(window=(4,), level="keep"),
    ]
    configs.append(PatchData(window=(4,), channels="separate"))
    digests = [
        Patches.of(values((9, 1), seed), c).dataset("", c).digest
        for seed in (0, 1)
        for c in configs
    ]
    assert len(set(digests)) == len(digests)
    elsewhere = PatchData(window=(4,), path="elsewhere")
    assert Patches.of(values((9, 1)), elsewhere).dataset("", elsewhere).digest == digests[0]
