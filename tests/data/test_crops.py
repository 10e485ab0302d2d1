"""Windows of pictures: from where they say, whitened as they say, the same for the same seed."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from distvae.config import CropData
from distvae.data import crops, open_dataset
from distvae.files.refusal import Refusal

SMALL = CropData(window=(4, 3), sizes=(300, 20, 30), clamped=0.0, contrast="common")


def save(path: Path, values: NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two pictures of different sizes, one in colour and in a folder below."""
    random = np.random.default_rng(0)
    save(tmp_path / "all" / "a.png", random.integers(0, 256, (30, 20), np.uint8))
    save(tmp_path / "all" / "below" / "b.png", random.integers(0, 256, (12, 31, 3), np.uint8))
    return tmp_path / "all"


@given(
    st.integers(0, 2**32 - 1),
    st.integers(2, 8),
    st.floats(0.05, 0.9999),
    st.floats(0, 3).map(lambda power: 10**power),
)
def test_whitened_windows_have_unit_variance_along_what_is_kept_and_none_elsewhere(
    seed: int, dims: int, kept: float, spread: float
) -> None:
    random = np.random.default_rng(seed)
    mixed = (
        random.normal(size=(200, dims))
        * np.geomspace(spread, 1, dims)
        @ random.normal(size=(dims, dims))
        + 7
    )
    white = crops.whiten(mixed, 150, kept).astype(np.float64)
    variances, directions = np.linalg.eigh(np.cov(mixed[:150].T))
    shares = np.cumsum(variances[::-1]) / variances.sum()
    assume(np.abs(shares - kept).min() > 1e-9)
    count = int((shares < kept).sum()) + 1
    np.testing.assert_allclose(
        np.linalg.eigvalsh(np.cov(white[:150].T)), [0] * (dims - count) + [1] * count, atol=1e-4
    )
    cut = directions[:, : dims - count]
    np.testing.assert_allclose(white @ cut, 0, atol=1e-3)


def test_whitening_turns_back_to_the_pixels(pictures: Path) -> None:
    """ZCA is the symmetric one of all whitenings: of those it changes the values least."""
    rows = crops.draw_windows(crops.find_pictures(str(pictures))[1], SMALL)
    rows -= rows[:300].mean(0)
    white = crops.whiten(rows, 300, 0.9999)
    matrix, *_ = np.linalg.lstsq(rows, white, rcond=1e-9)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-5)
    assert np.linalg.eigvalsh(matrix).min() > -1e-6


def test_every_window_is_one_of_a_picture_and_none_is_there_twice(tmp_path: Path) -> None:
    """Pixels that tell where they are tell where a window is from."""
    ramp = np.arange(9 * 11, dtype=np.uint8).reshape(9, 11)
    paths = [save(tmp_path / "a.png", ramp), save(tmp_path / "b.png", ramp[:, ::-1] + 100)]
    config = replace(SMALL, sizes=(100, 4, 4))
    every = [
        p[i : i + 4, j : j + 3]
        for p in (ramp, ramp[:, ::-1] + 100)
        for i in range(6)
        for j in range(9)
    ]
    assert len(every) == sum(config.sizes)
    wanted = np.array([window.ravel() - window.mean() for window in every])
    drawn = crops.draw_windows(paths, config)
    np.testing.assert_allclose(
        np.unique(drawn.round(6), axis=0), np.unique(wanted.round(6), axis=0)
    )
    np.testing.assert_allclose(drawn.sum(0), wanted.sum(0), atol=1e-6)


def test_windows_may_keep_their_means(pictures: Path) -> None:
    paths = crops.find_pictures(str(pictures))[1]
    kept = crops.draw_windows(paths, replace(SMALL, level="keep"))
    without = crops.draw_windows(paths, SMALL)
    np.testing.assert_allclose(kept - kept.mean(1, keepdims=True), without)
    assert np.abs(kept.mean(1)).min() > 10


def test_the_seed_and_the_pictures_decide_alone(pictures: Path, tmp_path: Path) -> None:
    config = replace(SMALL, path=str(pictures))
    first, moved = (
        open_dataset(config),
        open_dataset(replace(config, path=str(pictures.rename(tmp_path / "moved")))),
    )
    other = open_dataset(replace(config, path=str(tmp_path / "moved"), seed=1))
    for split, count in zip(("train", "val", "test"), SMALL.sizes, strict=True):
        assert first.splits[split].shape == (count, 12)
        np.testing.assert_array_equal(first.splits[split][:], moved.splits[split][:])
        assert not np.array_equal(first.splits[split][:], other.splits[split][:])
    assert first.digest == moved.digest != other.digest
    assert first.shape == (1, 4, 3)
    save(tmp_path / "moved" / "a.png", np.zeros((30, 20), np.uint8))
    assert open_dataset(replace(config, path=str(tmp_path / "moved"))).digest != first.digest


def test_the_brightest_pixels_are_clamped(tmp_path: Path) -> None:
    values = np.full((20, 20), 10, np.uint8)
    values[:2, :2] = 250
    path = save(tmp_path / "a.png", values)
    raw = crops.draw_windows([path], replace(SMALL, sizes=(300, 3, 3)))
    clamped = crops.draw_windows([path], replace(SMALL, sizes=(300, 3, 3), clamped=0.01))
    assert np.ptp(raw) > 100
    assert np.ptp(clamped) == 0


def save_depths(folder: Path, step: int) -> Path:
    """Three scenes of one kind: two of 8 bits, and one of 16 whose 600 levels are so many steps
    apart.
    """
    scenes = np.random.default_rng(0).normal(size=(3, 40, 50)).cumsum(1).cumsum(2)
    scenes -= scenes.min((1, 2), keepdims=True)
    scenes /= scenes.max((1, 2), keepdims=True)
    save(folder / "a.png", (255 * scenes[0]).astype(np.uint8))
    save(folder / "b.png", (90 + 120 * scenes[1]).astype(np.uint8))
    Image.fromarray((600 * scenes[2]).astype(np.uint16) * np.uint16(step)).save(folder / "c.tiff")
    return folder


def windows(folder: Path, contrast: Literal["own", "common"]) -> NDArray[np.float32]:
    """Windows of all three, whitened together."""
    config = CropData(str(folder), (4, 4), (4000, 10, 10), contrast=contrast)
    return open_dataset(config).splits["train"][:]


def test_how_much_of_its_range_a_picture_fills_changes_nothing(tmp_path: Path) -> None:
    dim, bright = (windows(save_depths(tmp_path / str(step), step), "own") for step in (1, 100))
    np.testing.assert_allclose(dim, bright, atol=1e-4)


def test_what_cannot_be_drawn_is_refused(pictures: Path, tmp_path: Path) -> None:
    def refused(path: Path | str, **changes: object) -> str:
        with pytest.raises(Refusal) as caught:
            open_dataset(replace(SMALL, path=str(path), **changes))  # type: ignore[arg-type]
        return str(caught.value)

    assert "data.path: empty; a picture" in refused("")
    assert "nowhere is not there" in refused(tmp_path / "nowhere")
    (tmp_path / "none").mkdir()
    assert "holds no pictures" in refused(tmp_path / "none")
    assert "data.window: 13 x 5, larger than" in refused(pictures, window=(13, 5))
    assert "data.sizes: 900 windows, and the pictures have 747" in refused(
        pictures, sizes=(850, 25, 25)
    )
    plain = save(tmp_path / "plain.png", np.full((40, 40), 9, np.uint8))
    assert "nothing can be whitened" in refused(plain)
    assert "plain.png: one grey level alone" in refused(plain, contrast="own")
