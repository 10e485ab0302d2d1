"""Laws of the restoration of pictures and stacks by groups of their windows."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import distvae
from distvae.data.noise import NoiseGrowth, PictureNoise, blur
from distvae.files.refusal import Refusal
from distvae.numerics.arrays import Doubles
from distvae.tasks import groups
from distvae.tasks.groups import cut_windows, nearest_windows
from tests.called import Called


def picture(side: int = 48) -> Doubles:
    """Return edges, a slope and stripes, (side, side, 1)."""
    y, x = np.mgrid[:side, :side].astype(np.float64)
    shapes: Doubles = 80 * (x + y > side) + 40 * ((x // 6) % 2) * (y > side / 2) + y
    return 60 + shapes[..., None]


def noisy(clean: Doubles, sigma: float, seed: int = 0) -> Doubles:
    return clean + sigma * np.random.default_rng(seed).standard_normal(clean.shape)


def grain(side: int, width: float, level: float) -> Doubles:
    """Return a field of correlated noise, (side, side, 1)."""
    field = blur(np.random.default_rng(0).standard_normal((side, side)), width)
    scaled: Doubles = level * field / field.std()
    return scaled[..., None]


def psnr(found: Doubles, clean: Doubles) -> float:
    return float(10 * np.log10(255**2 / np.square(found - clean).mean()))


def noise_of(picture: Doubles, counts: bool = False) -> groups.Noise:
    return groups.noise_of(lambda: [picture], counts)


def test_without_noise_or_structure_the_picture_comes_back() -> None:
    assert np.array_equal(groups.restore(picture(), 0.0).values, picture())
    flat = np.full((20, 30, 1), 7.0)
    assert np.allclose(groups.restore(flat).values, 7.0)
    assert np.allclose(groups.restore(flat, 5.0).values, 7.0)


def test_noise_is_removed_whether_its_level_is_told_or_not_and_in_any_units() -> None:
    clean = picture()
    damaged = noisy(clean, 20.0)
    told, found = groups.restore(damaged, 20.0), groups.restore(damaged)
    assert psnr(told.values, clean) > psnr(damaged, clean) + 8
    assert psnr(found.values, clean) > psnr(told.values, clean) - 0.3
    for factor in (1e-4, 1e6):
        noise = noise_of(damaged * factor)
        assert noise.shared.is_white
        assert noise.shared.levels[0] / factor == pytest.approx(20.0, rel=0.1)
        other = groups.restore(damaged * factor, 20.0 * factor).values
        assert np.allclose(other / factor, told.values, atol=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["white", "grain", "counts", "stack"])
def test_errors_lie_within_the_deviations_that_are_told(kind: str) -> None:
    clean = picture(64)
    if kind == "counts":
        clean = clean * 30 / 255
        observed = np.random.default_rng(0).poisson(clean).astype(np.float64)
        options: dict[str, Any] = {"counts": True}
    elif kind == "stack":
        texture = 100 * blur(np.random.default_rng(1).standard_normal((48, 60)), 1.5)
        frames = [texture[2 * k : 2 * k + 40, 3 * k : 3 * k + 40] for k in range(5)]
        clean = np.stack(frames, -1) + np.moveaxis(moving()[..., 0], 0, -1)
        observed, options = noisy(clean, 25.0), {"sigma": 25.0, "stack_axis": -1}
    else:
        field = grain(64, 0.8, 20.0) if kind == "grain" else noisy(0 * clean, 20.0)
        observed, options = clean + field, {}
    if kind != "stack":
        clean, observed = clean[..., 0], observed[..., 0]
    values, std = distvae.denoise_with_std(observed, **options)
    assert np.array_equal(values, distvae.denoise(observed, **options))
    within = (np.abs(values - clean) < 1.96 * std).mean()
    assert (0.85 if kind == "counts" else 0.88) < within < 0.995
    if kind == "white":
        scaled = groups.restore(5 * observed[..., None], deviation=True).deviation
        assert scaled is not None
        assert scaled.mean() / 5 == pytest.approx(std.mean(), rel=0.02)


def test_threads_share_the_work_and_not_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "CHUNK", 20)
    damaged = noisy(picture(32), 20.0)
    damaged[np.random.default_rng(0).random(damaged.shape) < 0.1] = np.nan
    one, three = (groups.restore(damaged, 20.0, threads=threads).values for threads in (1, 3))
    assert np.array_equal(one, three)


def test_colours_are_restored_together() -> None:
    grey = picture(32)
    clean = np.concatenate([grey, 255 - grey, grey * 0.5], -1)
    damaged = noisy(clean, 20.0)
    apart = [groups.restore(damaged[..., c : c + 1], 20.0).values for c in range(3)]
    together = groups.restore(damaged, 20.0).values
    assert psnr(together, clean) > psnr(np.concatenate(apart, -1), clean)


# --- what passes compute, beside dense algebra and numerical integration


def white(populations: int, size: int, count: int) -> torch.Tensor:
    values = np.random.default_rng(0).standard_normal((populations, size, count))
    return 3 * torch.from_numpy(values.astype(np.float32))


@pytest.mark.parametrize(("size", "count"), [(9, 20), (20, 9)])
def test_moments_give_posterior_means(size: int, count: int) -> None:
    y, x = white(2, size, count), white(2, size, count) + 1
    found, _ = groups._moments(y, x)
    grid = torch.linspace(-60, 60, 20001, dtype=torch.float64)
    for one, pilot, result in zip(y.double(), x.double(), found, strict=True):
        u, s, vh = torch.linalg.svd(pilot, full_matrices=False)
        variances = (s.square()[:, None] * s.square() / s.square().sum())[..., None]
        z = u.T @ one @ vh.T
        weight = (-(z[..., None] - grid).square() / 2 - grid.square() / (2 * variances)).softmax(-1)
        expected = (weight * grid).sum(-1)
        assert torch.allclose(result.double(), u @ expected @ vh, atol=2e-3)


@pytest.mark.parametrize(("size", "count"), [(9, 20), (20, 9)])
def test_sparse_values_are_the_modes_of_their_posterior(size: int, count: int) -> None:
    y = 4 * white(1, size, count)
    found, _ = groups._sparse(y, y)
    values, kept = torch.linalg.svdvals(y[0].double()), torch.linalg.svdvals(found[0].double())
    weight = 2 * groups.SPARSITY * count**0.5
    for t, s in zip(values, kept, strict=True):
        grid = torch.linspace(0.5 * float(t), float(t), 100001, dtype=torch.float64)
        log = -(grid - t).square() / 2 - weight * grid.log()
        if float(t) ** 2 > 4 * weight:
            assert float(s) == pytest.approx(float(grid[log.argmax()]), rel=1e-3)
        else:
            assert float(s) == pytest.approx(0, abs=1e-3)


def test_low_rank_leaves_nothing_of_white_noise_and_a_strong_component() -> None:
    noise = white(8, 36, 48) / 3
    assert float(groups._low_rank(noise, noise)[0].square().mean()) < 0.05
    u, v = torch.ones(36, 1) / 6, torch.ones(1, 48) / 48**0.5
    found, _ = groups._low_rank(noise + 100 * u @ v, noise)
    assert float((found - 100 * u @ v).square().mean()) < 0.15


def test_missing_pixels_are_filled_with_conditional_means(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "HOLES", groups.Pass("moments", 5, 30, 8))
    monkeypatch.setattr(groups, "SOLVED_ONE_IN", 10)
    clean = noisy(picture(24), 5.0).astype(np.float32).transpose(2, 0, 1)
    mask = (np.random.default_rng(1).random(clean.shape) < 0.6).astype(np.float32)
    first = np.array([3, 9], np.int32)
    places = nearest_windows(clean, first, first, 5, 30, 8, 24, 0, 1)
    floor, few = 4.0, 2 * groups.SHARED
    shared = np.cov(np.random.default_rng(2).random((25, 60))).astype(np.float32)
    found = groups._filled(clean, clean * mask, mask, torch.from_numpy(shared), floor, places)
    windows, means = cut_windows(clean, places, 5)
    for m in range(len(places)):
        own = np.cov(windows[m].astype(np.float64), bias=True)
        covariance = (30 * own + few * own.trace() / 25 * shared) / (30 + few)
        for k, place in enumerate(places[m, ::10]):
            y, x = divmod(int(place), clean.shape[2])
            seen = mask[0, y : y + 5, x : x + 5].ravel() > 0
            observed = clean[0, y : y + 5, x : x + 5].ravel()[seen]
            joint = covariance[np.ix_(seen, seen)] + floor * np.eye(seen.sum())
            expected = covariance[:, seen] @ np.linalg.solve(joint, observed - means[m][seen])
            assert np.allclose(found.windows[m, :, k], expected, atol=1e-2)


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


# --- missing pixels


def test_holes_are_filled_and_noise_that_is_told_is_removed_in_them_and_around_them() -> None:
    clean = picture()
    missing = np.random.default_rng(0).random(clean.shape) < 0.4
    filled = groups.restore(np.where(missing, np.nan, clean)).values
    assert np.array_equal(filled[~missing], clean[~missing])
    seen = (~missing[..., 0]).astype(np.float64)
    blurred = blur(np.where(missing, 0, clean)[..., 0], 1.2) / blur(seen, 1.2)
    assert psnr(filled, clean) > psnr(np.where(missing, blurred[..., None], clean), clean) + 3
    damaged = np.where(missing, np.nan, noisy(clean, 20.0))
    kept, restored = groups.restore(damaged), groups.restore(damaged, 20.0)
    assert str(restored.noise) == "white noise of 20"
    for part in (missing, ~missing):
        assert psnr(restored.values[part], clean[part]) > psnr(kept.values[part], clean[part]) + 3


@pytest.mark.slow
def test_missing_values_are_told_by_other_channels_and_edges_go_on() -> None:
    grey = np.random.default_rng(0).random((40, 40, 1))  # neighbours tell nothing
    clean = 255 * np.concatenate([grey, 0.2 + 0.5 * grey, 1 - grey], -1)
    missing = np.random.default_rng(1).random(clean.shape) < 0.3
    holed = np.where(missing, np.nan, clean)
    apart = np.concatenate([groups.restore(holed[..., c : c + 1]).values for c in range(3)], -1)
    assert psnr(groups.restore(holed).values, clean) > psnr(apart, clean) + 6
    biharmonic = pytest.importorskip("skimage.restoration").inpaint_biharmonic
    y, x = np.mgrid[:96, :96]
    clean = 60 + 100.0 * (2 * y > x)[..., None]
    missing = np.zeros(clean.shape, bool)
    missing[16:44, 40:68] = True  # much wider than a window
    filled = groups.restore(np.where(missing, np.nan, clean)).values
    smooth = biharmonic(clean[..., 0], missing[..., 0])[..., None]
    assert psnr(filled[missing], clean[missing]) > psnr(smooth[missing], clean[missing]) + 4


def test_small_pictures_are_restored_and_smaller_or_empty_ones_refused() -> None:
    damaged = np.random.default_rng(0).normal(100, 20, (8, 15, 3))
    assert np.isfinite(groups.restore(damaged).values).all()
    assert np.isfinite(groups.restore(np.where(damaged > 110, np.nan, damaged)).values).all()
    with pytest.raises(Refusal, match="a picture of 7 x 30 pixels; at least 8 x 8 expected"):
        groups.restore(np.zeros((7, 30, 1)))
    empty = np.zeros((9, 9, 2))
    empty[..., 1] = np.nan
    with pytest.raises(Refusal, match="a channel without an observed pixel"):
        groups.restore(empty)


# --- noise


@pytest.mark.slow
def test_grain_is_removed_better_than_white_noise_of_its_level_would_be() -> None:
    clean = picture(96)
    damaged = clean + grain(96, 0.8, 20.0)
    blind, as_white = groups.restore(damaged), groups.restore(damaged, 20.0)
    assert blind.noise is not None
    assert not blind.noise.shared.is_white
    assert psnr(blind.values, clean) > psnr(as_white.values, clean) + 1
    y, x = np.mgrid[:96, :96]
    leaves = 30 * grain(96, 0.8, 1.0)[..., 0] * (1 + np.sin(x / 9) * np.sin(y / 7))
    texture = PictureNoise.estimate([(120 + leaves + noisy(np.zeros((96, 96)), 5.0, 1))[None]])
    assert texture.is_white, "it varies from block to block"
    assert "may be texture" in str(texture)


@pytest.mark.slow
def test_counts_are_restored_in_any_units_and_keep_their_mean() -> None:
    clean = picture(96) * 10 / 255
    observed = np.random.default_rng(0).poisson(clean).astype(np.float64)
    known = groups.restore(observed, noise_of(observed, counts=True))
    assert str(known.noise) == "noise that grows with brightness: variance 1 x"
    assert known.values.mean() == pytest.approx(observed.mean(), rel=0.01)
    other = groups.restore(observed * 50, noise_of(observed * 50, counts=True))
    assert np.allclose(other.values / 50, known.values, atol=1e-3)
    level = float(np.std(observed - clean))
    assert psnr(known.values, clean) > psnr(groups.restore(observed, level).values, clean)


def test_noise_that_grows_is_found_in_colours_and_grain_too() -> None:
    clean = np.concatenate([picture(128), picture(128) * 0.5, picture(128) * 0.8], -1)
    found = noise_of(clean + grain(128, 0.8, 1.0) * np.sqrt(2 * clean + 20))
    assert str(found).startswith("noise that grows with brightness")
    assert "correlated" in str(found)


# --- stacks


def moving(count: int = 5, side: int = 40) -> Doubles:
    """Return a square that moves over stripes, (count, side, side, 1)."""
    y, x = np.mgrid[:side, :side]
    frames = [
        60.0 + 40 * ((x // 5) % 2) + 90 * ((abs(y - 10 - 3 * k) < 6) & (abs(x - 14 - 2 * k) < 6))
        for k in range(count)
    ]
    return np.stack(frames)[..., None]


def of_stack(frames: Doubles, noise: float | None, across: int) -> Doubles:
    found = groups.restore_stack(frames.__getitem__, range(len(frames)), noise, across, 1)
    return np.stack([each.values for each in found])


def error(found: Doubles, clean: Doubles) -> float:
    return float(np.square(found - clean).mean())


@pytest.mark.slow
def test_neighbouring_frames_help_and_runs_of_frames_make_a_stack(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clean = moving(10)
    damaged = noisy(clean, 25.0)
    alone, across = of_stack(damaged, 25.0, 0), of_stack(damaged, 25.0, 2)
    assert np.array_equal(alone[3], groups.restore(damaged[3], 25.0).values)
    assert error(across, clean) < 0.85 * error(alone, clean)
    monkeypatch.setattr(groups, "TOGETHER", 1)
    parts = of_stack(damaged, 25.0, 2)
    assert parts.shape == across.shape
    assert error(parts, clean) < 1.05 * error(across, clean)
    hole = np.zeros(clean[:3].shape, bool)
    hole[1, 8:20, 10:22] = True
    holed = np.where(hole, np.nan, clean[:3])
    filled = of_stack(holed, None, 1)
    assert np.array_equal(filled[~hole], clean[:3][~hole])
    assert error(filled, clean[:3]) < error(of_stack(holed, None, 0), clean[:3])


# --- the command, and real pictures


def test_denoise_and_inpaint_restore_a_picture_by_groups(tmp_path: Path, call: Called) -> None:
    source, out = str(tmp_path / "in.png"), str(tmp_path / "out.png")
    Image.fromarray(picture()[..., 0].astype(np.uint8)).save(source)
    code, _, err = call("denoise", source, out, "--add-noise", "20")
    assert code == 0, err
    assert "by groups of similar windows" in err
    assert "written, white noise of" in err
    assert "PSNR" in err
    assert not (tmp_path / "out.png.run").exists()
    observed = noisy(picture(), 20.0)[..., 0].clip(1, 255).astype(np.uint8)
    observed[10:12] = 0
    Image.fromarray(observed).save(source)
    words = ["inpaint", source, out, "--missing-value", "0", "--sigma", "20", "--force"]
    code, _, err = call(*words)
    assert code == 0, err
    assert "white noise of 20 removed" in err
    written, clean = np.asarray(Image.open(out)).astype(np.float64), picture()[..., 0]
    assert psnr(written, clean) > psnr(observed.astype(np.float64), clean) + 5
    found = distvae.inpaint(observed.astype(np.float64), observed == 0, sigma=20)
    assert np.abs(written - found).max() <= 0.5
    code, _, err = call(*words, "--preset", "fast")
    assert (code, "--sigma: for a picture and --model groups" in err) == (2, True), err
    with pytest.raises(Refusal, match="sigma: for an image and model 'groups'"):
        distvae.inpaint(observed, observed == 0, sigma=20, preset="fast")


@pytest.mark.slow
def test_real_pictures_are_restored_better_than_by_bm3d(real_data: Path) -> None:
    """BM3D is told the level of noise; 32.86 dB is its figure for House."""
    house = np.asarray(Image.open(real_data / "images" / "house256.png")).astype(np.float64)
    found = groups.restore(noisy(house[..., None], 25.0)).values
    assert psnr(found, house[..., None]) > 32.86 + 0.2
    bm3d = pytest.importorskip("bm3d").bm3d
    growth, gains = NoiseGrowth(1.0, 0.0), []
    for name in ("house256", "cameraman256", "starfish256"):
        pixels = np.asarray(Image.open(real_data / "images" / f"{name}.png"))
        clean = pixels.astype(np.float64)[64:192, 64:192, None] * 10 / 255
        observed = np.random.default_rng(0).poisson(clean).astype(np.float64)
        other = growth.back(bm3d(growth.stabilised(observed[..., 0]), 1.0))[..., None]
        ours = groups.restore(observed, noise_of(observed, counts=True)).values
        gains.append(psnr(ours, clean) - psnr(other, clean))
    assert np.mean(gains) > 0.2
