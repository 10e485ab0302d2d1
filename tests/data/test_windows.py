"""Windows of a picture or sound: noise, missing values, cutting and merging."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from distvae.config import PatchData
from distvae.data.signals import Signal
from distvae.data.windows import (
    Grid,
    Patches,
    PatchFamily,
    marked_by,
    profile,
    read_gaps,
    read_source,
)
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


@settings(max_examples=25)
@given(grids(), st.sampled_from(["mean", "gaussian"]))
def test_merging_what_was_cut_gives_the_array_back_to_single_precision(
    grid: Grid, merge: str
) -> None:
    array = values(grid.shape).astype(np.float32)
    rows = grid.cut(array)
    assert rows.shape == (grid.rows, grid.dims)
    np.testing.assert_allclose(grid.merge(rows, profile(grid.window, merge)), array, rtol=1e-6)


@settings(max_examples=25)
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


def test_a_value_comes_back_as_the_weighted_mean_of_the_windows_that_cover_it() -> None:
    grid = Grid((4, 1), (3,))
    merged = grid.merge(np.array([[0.0, 1.0, 2.0], [10.0, 20.0, 30.0]]), np.array([1.0, 2.0, 1.0]))
    np.testing.assert_allclose(merged[:, 0], [0, (2 * 1 + 1 * 10) / 3, (1 * 2 + 2 * 20) / 3, 30])


@pytest.mark.parametrize("scale", ["standard", "unit", "keep"])
@pytest.mark.parametrize(
    ("level", "count", "channels"),
    [("remove", 1, "joint"), ("keep", 3, "joint"), ("remove", 3, "separate")],
)
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


def test_a_grey_picture_in_colour_has_windows_of_one_channel_though_pixels_are_missing() -> None:
    """Otherwise each value would count three times."""
    grey = values((6, 7, 1))
    grey[2, 3] = np.nan
    patches = Patches.of(grey.repeat(3, -1), PatchData(window=(2, 2)))
    assert patches.grid.channels == 1
    assert patches.merged(np.nan_to_num(patches.rows)).shape == (6, 7, 3)


@pytest.mark.parametrize("scale", ["standard", "unit", "keep"])
def test_the_level_of_a_window_is_the_mean_of_what_was_observed_in_it_or_else_of_everything(
    scale: Literal["standard", "unit", "keep"],
) -> None:
    array = values((12, 1))
    array[[0, 1, 2, 3, 5]] = np.nan
    patches = Patches.of(array, PatchData(window=(4,), stride=4, scale=scale))
    levels = [array[4:], array[[4, 6, 7]], array[8:]]
    expected = [np.nanmean(level) for level in levels]
    np.testing.assert_allclose(patches.shift[:, 0], expected, rtol=1e-6)
    observed = np.nanmean(patches.rows[1:], 1) * patches.scale
    np.testing.assert_allclose(observed / array[4:].std(where=np.isfinite(array[4:])), 0, atol=1e-6)
    merged = patches.merged(np.nan_to_num(patches.rows))
    np.testing.assert_allclose(merged[:4], expected[0], rtol=1e-6)


@settings(max_examples=25)
@given(gap=st.integers(1, 40), samples=st.integers(2, 9))
def test_a_long_gap_has_samples_that_no_window_shares_with_an_observed_one(
    gap: int, samples: int
) -> None:
    array = values((60, 2))
    array[10 : 10 + gap] = np.nan
    patches = Patches.of(array, PatchData(window=(samples,), level="keep"))
    # a window that holds the last observed sample ends samples - 1 behind it, and so before
    assert patches.unreached == max(0, gap - 2 * (samples - 1))


def test_other_data_and_other_preparation_have_other_digests() -> None:
    changes: list[Any] = [{}, {"merge": "gaussian"}, {"level": "keep"}, {"channels": "separate"}]
    digests = []
    for seed in (0, 1):
        for change in changes:
            config = PatchData(window=(4,), **change)
            digests.append(Patches.of(values((9, 1), seed), config).dataset("", config).digest)
    assert len(set(digests)) == len(digests)
    moved = PatchData(window=(4,), path="elsewhere")
    assert Patches.of(values((9, 1)), moved).dataset("", moved).digest == digests[0]


def find_dropped(
    signal: Signal, share: float, seed: int, what: Literal["pixels", "values"], gap: int = 1
) -> NDArray[np.bool_]:
    config = PatchData(drop=share, noise_seed=seed, dropped=what, gap=gap)
    return PatchFamily(config).find_dropped(signal)


@settings(max_examples=20)
@given(st.floats(0.1, 0.9), st.integers(0, 5))
def test_pixels_are_dropped_with_all_their_colours_and_values_by_themselves(
    share: float, seed: int
) -> None:
    picture = Signal(np.full((50, 60, 3), 100.0))
    pixels = find_dropped(picture, share, seed, "pixels")
    values = find_dropped(picture, share, seed, "values")
    assert pixels.shape == values.shape == (50, 60, 3)
    assert (pixels.all(-1) == pixels.any(-1)).all()
    # Five deviations of 9000 draws are 0.026 at most.
    assert values.mean() == pytest.approx(share, abs=0.03)
    assert pixels.mean() == pytest.approx(share, abs=0.05)
    assert values.all(-1).mean() == pytest.approx(share**3, abs=0.05)


@settings(max_examples=20)
@given(st.floats(0.05, 0.6), st.integers(2, 6), st.booleans())
def test_gaps_have_their_least_size_and_make_up_the_share(
    share: float, gap: int, sound: bool
) -> None:
    signal = Signal(np.zeros((4000, 1)), rate=8000) if sound else Signal(np.zeros((80, 80, 1)))
    missing = find_dropped(signal, share, 3, "pixels", gap)[..., 0]
    # an opening (erosion, then dilation) keeps exactly what squares of this size make up
    square = np.ones((gap,) * missing.ndim)
    at_the_far_edges = tuple((0, gap) for _ in range(missing.ndim))  # where gaps are cut off
    padded = np.pad(missing, at_the_far_edges, mode="edge")
    opened = ndimage.binary_opening(padded, square)[tuple(map(slice, missing.shape))]
    np.testing.assert_array_equal(opened, missing)
    assert missing.mean() == pytest.approx(share, abs=0.12)


def test_a_value_marks_what_has_it_in_all_channels() -> None:
    in_file = np.array([[[0, 0, 0], [1, 1, 1], [1, 1, 2], [2, 2, 2]]])
    for bits in (8, 16):
        found = marked_by(1)(Signal(in_file * 255 / (2**bits - 1), bits))
        np.testing.assert_array_equal(found, [[[each] * 3 for each in (False, True, False, False)]])
    sound = Signal(np.array([[0.0, 0.0], [0.0, 1e-4], [-1e-4, 1e-4], [0.5, 0.5]]), rate=8000)
    assert marked_by(0)(sound).all(-1).tolist() == [True, False, False, False]
    assert marked_by(0.5)(sound).all(-1).tolist() == [False, False, False, True]


RATE, SAMPLES = 16000, 800
PLACE = st.integers(0, SAMPLES)


def written(folder: Path, text: str) -> Path:
    (folder / "gaps.txt").write_text(text)
    return folder / "gaps.txt"


@settings(max_examples=25)
@given(
    rate=st.sampled_from([RATE, 11025, 44100]),
    ends=st.lists(st.tuples(PLACE, PLACE).filter(lambda each: each[0] < each[1]), max_size=4),
)
def test_gaps_between_samples_are_marked_exactly(
    tmp_path_factory: pytest.TempPathFactory, rate: int, ends: list[tuple[int, int]]
) -> None:
    expected = np.zeros(SAMPLES, bool)
    for first, last in ends:
        expected[first:last] = True
    lines = "".join(f"{first / rate}\t{last / rate}\tgap\n" for first, last in ends)
    path = written(tmp_path_factory.mktemp("gaps"), lines)
    np.testing.assert_array_equal(read_gaps(path, rate, SAMPLES), expected)


def test_a_sample_in_part_of_a_gap_is_missing_and_labels_and_comments_are_passed_over(
    tmp_path: Path,
) -> None:
    path = written(tmp_path, f"{10.4 / RATE} {12.1 / RATE}\n{799.5 / RATE} 2.0")
    assert np.flatnonzero(read_gaps(path, RATE, SAMPLES)).tolist() == [10, 11, 12, 799]
    path = written(tmp_path, "\ufeff# clicks\n\n0.001\t0.002\ta click\n\\\t2000.0\t3000.0\n")
    assert np.flatnonzero(read_gaps(path, RATE, SAMPLES)).tolist() == list(range(16, 32))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("0.1,0.2", r"line 1: '0.1,0.2'; the start and the end of a gap in seconds"),
        ("0.1", r"line 1: '0.1'; the start"),
        ("0.02 0.01", r"line 1: from 0.02 to 0.01; the start"),
        ("nan 0.01", r"line 1: from nan to 0.01"),
        ("0 1e308", r"line 1: from 0 to 1e\+308"),
        ("0.05 0.06", r"line 1: a gap from 0.05 s on in a sound of 0.05 s"),
    ],
)
def test_a_line_without_a_gap_of_the_sound_is_refused(
    tmp_path: Path, line: str, words: str
) -> None:
    with pytest.raises(Refusal, match=rf"gaps.txt, {words}"):
        read_gaps(written(tmp_path, line), RATE, SAMPLES)


@settings(max_examples=20)
@given(st.floats(-30, 60), st.floats(1e-3, 1))
def test_the_noise_of_an_snr_lies_so_many_decibels_below_the_sound(
    decibels: float, level: float
) -> None:
    signal = Signal(level * np.sin(np.arange(40_000))[:, None], rate=RATE)
    config = PatchData(window=(16,), snr=decibels)
    noise = PatchFamily(config).corrupt(signal).values - signal.values
    ratio = 10 * math.log10(np.square(signal.values).mean() / np.square(noise).mean())
    assert ratio == pytest.approx(decibels, abs=0.15)
    assert np.square(noise).mean() == pytest.approx(
        PatchFamily(config).noise_level(signal) ** 2, rel=0.03
    )


def test_an_excerpt_has_the_samples_from_its_start_on_and_lies_in_the_sound(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).uniform(-0.3, 0.3, RATE).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    config = PatchData(path=str(tmp_path / "a.wav"), window=(16,), excerpt=(0.25, 0.5))
    found = read_source(config)
    np.testing.assert_array_equal(found.values[:, 0], samples[RATE // 4 : 3 * RATE // 4])
    assert found.rate == RATE
    for excerpt in ((0.5, 0.6), (1.0, 0.5), (0.2, 0.0)):
        with pytest.raises(Refusal, match=r"data\.excerpt: .* of a\.wav, which lasts 1 s"):
            read_source(replace(config, excerpt=excerpt))


def test_a_resampled_tone_is_the_same_tone_at_the_other_rate(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.sin(0.2 * np.arange(RATE)) / 2, RATE, subtype="FLOAT")
    found = read_source(PatchData(path=str(tmp_path / "a.wav"), window=(16,), rate=2 * RATE))
    assert found.rate == 2 * RATE
    assert found.values.shape == (2 * RATE, 1)
    inner = slice(RATE // 4, -RATE // 4)  # away from the ends, which lack samples on one side
    expected = np.sin(0.1 * np.arange(2 * RATE))[:, None] / 2
    np.testing.assert_allclose(found.values[inner], expected[inner], atol=1e-4)
