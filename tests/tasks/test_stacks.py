"""Laws of the restoration of stacks."""

from typing import Any

import numpy as np
import pytest

import distvae
from distvae.data.noise import blur
from distvae.files.refusal import Refusal
from distvae.numerics.arrays import Doubles
from distvae.tasks import groups
from distvae.tasks.groups import nearest_windows


def moving(count: int = 5, side: int = 40) -> Doubles:
    """Return a square that moves over stripes, (count, side, side, 1)."""
    y, x = np.mgrid[:side, :side]
    frames = [
        60.0 + 40 * ((x // 5) % 2) + 90 * ((abs(y - 10 - 3 * k) < 6) & (abs(x - 14 - 2 * k) < 6))
        for k in range(count)
    ]
    return np.stack(frames)[..., None]


def noisy(clean: Doubles) -> Doubles:
    return clean + 25 * np.random.default_rng(0).standard_normal(clean.shape)


def restored(frames: Doubles, noise: float | None, across: int, threads: int = 1) -> Doubles:
    order = range(len(frames))
    found = groups.restore_stack(frames.__getitem__, order, noise, across, threads, lambda _: None)
    return np.stack([each.values for each in found])


def error(found: Doubles, clean: Doubles) -> float:
    return float(np.square(found - clean).mean())


def test_frames_alone_are_pictures() -> None:
    damaged = noisy(moving(3))
    alone = np.stack([groups.restore(frame, 25.0).values for frame in damaged])
    assert np.array_equal(restored(damaged, 25.0, 0), alone)


@pytest.mark.slow
@pytest.mark.parametrize("axis", [-1])
def test_errors_of_an_array_lie_within_its_deviations(axis: int | None) -> None:
    texture = 100 * blur(np.random.default_rng(1).standard_normal((48, 60)), 1.5)
    frames = [texture[2 * k : 2 * k + 40, 3 * k : 3 * k + 40] for k in range(5)]
    clean = np.stack(frames, -1) + np.moveaxis(moving()[..., 0], 0, -1)
    clean = clean[..., 0] if axis is None else clean
    values, std = distvae.denoise_with_std(noisy(clean), sigma=25.0, stack_axis=axis)
    assert np.array_equal(values, distvae.denoise(noisy(clean), sigma=25.0, stack_axis=axis))
    assert 0.88 < (np.abs(values - clean) < 1.96 * std).mean() < 0.995


@pytest.mark.slow
def test_neighbouring_frames_help() -> None:
    clean = moving()
    alone, across = (error(restored(noisy(clean), 25.0, n), clean) for n in (0, 2))
    assert across < 0.85 * alone


@pytest.mark.slow
def test_runs_of_frames_make_a_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    clean = moving(12)
    whole = restored(noisy(clean), 25.0, 1)
    monkeypatch.setattr(groups, "TOGETHER", 1)
    parts = restored(noisy(clean), 25.0, 1)
    assert parts.shape == whole.shape
    assert error(parts, clean) < 1.05 * error(whole, clean)


def test_windows_of_a_population_never_cross_frames_and_are_the_nearest() -> None:
    side, size, radius = 12, 3, 2
    frames = np.random.default_rng(0).random((4, side, side)).astype(np.float32)
    row, column, first, last = 2 * side + 5, 6, 1, 4
    rows, columns = np.array([row], np.int32), np.array([column], np.int32)
    tall = frames.reshape(1, -1, side)
    [near] = nearest_windows(tall, rows, columns, size, 20, radius, side, first, last)
    reference = frames[2, 5:8, 6:9]
    distances = {
        (f * side + y) * side + x: np.square(frames[f, y : y + 3, x : x + 3] - reference).sum()
        for f in range(first, last)
        for y in range(3, 8)
        for x in range(4, 9)
    }
    assert near[0] == row * side + column
    assert set(near.tolist()) == set(sorted(distances, key=distances.__getitem__)[:20])


def test_holes_are_filled_from_neighbouring_frames_and_the_rest_is_kept() -> None:
    clean = moving(3)
    hole = np.zeros(clean.shape, bool)
    hole[1, 8:20, 10:22] = True
    filled = restored(np.where(hole, np.nan, clean), None, 1)
    assert np.array_equal(filled[~hole], clean[~hole])
    alone = restored(np.where(hole, np.nan, clean), None, 0)
    assert error(filled, clean) < error(alone, clean)


@pytest.mark.parametrize(
    ("shape", "options", "said"),
    [
        ((9, 9), {}, "image: 2 axes; two beside stack_axis expected"),
        ((3, 9, 9), {"stack_axis": 3}, "stack_axis: 3 of an image of 3 axes"),
        ((3, 9, 9), {"across": -1}, "across: -1; 0 or more expected"),
        ((3, 9, 9), {"preset": "fast"}, "stack_axis: for the model 'groups'"),
        ((3, 7, 9), {}, "a picture of 7 x 9 pixels"),
    ],
)
def test_a_stack_that_cannot_be_restored_is_refused(
    shape: tuple[int, ...], options: dict[str, Any], said: str
) -> None:
    array = np.random.default_rng(0).normal(size=shape)
    with pytest.raises(Refusal, match=said):
        distvae.denoise(array, **({"stack_axis": 0} | options))
