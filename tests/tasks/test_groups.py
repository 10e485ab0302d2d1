"""Laws of the restoration of pictures by groups of their windows."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from distvae.data.noise import NoiseGrowth, PictureNoise, blur
from distvae.files.refusal import Refusal
from distvae.numerics.arrays import Doubles
from distvae.tasks import groups
from distvae.tasks.arrays import inpaint
from distvae.tasks.groups import add_windows, cut_windows, nearest_windows
from tests.called import Called


def picture(side: int = 48) -> Doubles:
    """Return edges, a slope and stripes, (side, side, 1)."""
    y, x = np.mgrid[:side, :side].astype(np.float64)
    shapes: Doubles = 80 * (x + y > side) + 40 * ((x // 6) % 2) * (y > side / 2) + y
    return 60 + shapes[..., None]


def noisy(clean: Doubles, sigma: float, seed: int = 0) -> Doubles:
    return clean + sigma * np.random.default_rng(seed).standard_normal(clean.shape)


def psnr(found: Doubles, clean: Doubles) -> float:
    return float(10 * np.log10(255**2 / np.square(found - clean).mean()))


def test_without_noise_the_picture_comes_back() -> None:
    assert np.array_equal(groups.restore(picture(), 0.0).values, picture())


def test_a_constant_picture_comes_back_constant() -> None:
    flat = np.full((20, 30, 1), 7.0)
    assert np.allclose(groups.restore(flat).values, 7.0)
    assert np.allclose(groups.restore(flat, 5.0).values, 7.0)


def test_noise_is_removed_whether_its_level_is_told_or_not() -> None:
    clean = picture()
    damaged = noisy(clean, 20.0)
    told, found = groups.restore(damaged, 20.0), groups.restore(damaged)
    assert psnr(told.values, clean) > psnr(damaged, clean) + 8
    assert psnr(found.values, clean) > psnr(told.values, clean) - 0.3
    assert found.noise is not None
    assert found.noise.shared.is_white
    assert found.noise.shared.levels[0] == pytest.approx(20.0, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("turn", [np.flipud, lambda x: x.transpose(1, 0, 2)])
def test_mirrors_commute_with_the_restoration(turn: object) -> None:
    assert callable(turn)
    clean = picture(49)  # references at both ends of each side
    damaged = noisy(clean, 20.0)
    straight = psnr(groups.restore(damaged, 20.0).values, clean)
    turned = psnr(turn(groups.restore(turn(damaged), 20.0).values), clean)
    assert turned == pytest.approx(straight, abs=0.1)


@pytest.mark.parametrize("factor", [1e-4, 1e6])
def test_units_do_not_matter(factor: float) -> None:
    damaged = noisy(picture(), 20.0)
    one, other = groups.restore(damaged, 20.0), groups.restore(damaged * factor, 20.0 * factor)
    assert np.allclose(other.values / factor, one.values, atol=1e-2)
    estimated = groups.restore(damaged * factor).noise
    assert estimated is not None
    assert estimated.shared.levels[0] / factor == pytest.approx(20.0, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("blur", [0.0, 0.8])
def test_errors_lie_within_the_deviations_that_are_told(blur: float) -> None:
    clean = picture(96)
    field = grain((96, 96), blur, 20.0)[..., None] if blur else noisy(0 * clean, 20.0)
    found = groups.restore(clean + field, deviation=True)
    assert found.deviation is not None
    assert np.array_equal(found.values, groups.restore(clean + field).values)
    errors = np.abs(found.values - clean)
    assert 0.88 < (errors < 1.96 * found.deviation).mean() < 0.995
    scaled = groups.restore(5 * (clean + field), deviation=True).deviation
    assert scaled is not None
    assert scaled.mean() / 5 == pytest.approx(found.deviation.mean(), rel=0.02)


@pytest.mark.slow
def test_deviations_of_counts_are_in_their_units() -> None:
    clean, observed = counts(30)
    found = groups.restore(observed, told(observed), deviation=True)
    assert found.deviation is not None
    assert 0.85 < (np.abs(found.values - clean) < 1.96 * found.deviation).mean() < 0.995


def test_threads_share_the_work_and_not_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "CHUNK", 40)
    damaged = noisy(picture(), 20.0)
    one, three = groups.restore(damaged, threads=1), groups.restore(damaged, threads=3)
    assert np.array_equal(one.values, three.values)
    holes = np.where(np.random.default_rng(0).random(damaged.shape) < 0.3, np.nan, picture())
    assert np.array_equal(
        groups.restore(holes, threads=1).values, groups.restore(holes, threads=3).values
    )


def test_colours_are_restored_together() -> None:
    clean = np.concatenate([picture(), 255 - picture(), picture() * 0.5], -1)
    damaged = noisy(clean, 20.0)
    apart = np.concatenate(
        [groups.restore(damaged[..., c : c + 1], 20.0).values for c in range(3)], -1
    )
    assert psnr(groups.restore(damaged, 20.0).values, clean) > psnr(apart, clean)


# --- what passes compute, beside dense algebra and numerical integration


def white(populations: int, size: int, count: int) -> torch.Tensor:
    return 3 * torch.from_numpy(
        np.random.default_rng(0).standard_normal((populations, size, count)).astype(np.float32)
    )


@pytest.mark.parametrize(("size", "count"), [(9, 20), (20, 9)])
def test_moments_give_posterior_means(size: int, count: int) -> None:
    y, x = white(2, size, count), white(2, size, count) + 1
    found, _ = groups._moments(y, x)
    for one, pilot, result in zip(y.double(), x.double(), found, strict=True):
        u, s, vh = torch.linalg.svd(pilot, full_matrices=False)
        variances = s.square()[:, None] * s.square() / s.square().sum()
        z = u.T @ one @ vh.T
        grid = torch.linspace(-60, 60, 20001, dtype=torch.float64)
        expected = torch.empty_like(z)
        for i in range(len(s)):
            for j in range(len(s)):
                log = -(z[i, j] - grid).square() / 2 - grid.square() / (2 * variances[i, j])
                weight = (log - log.max()).exp()
                expected[i, j] = (weight * grid).sum() / weight.sum()
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


@given(st.integers(0, 2**31 - 1))
@settings(max_examples=10)
def test_windows_that_are_cut_and_added_again_make_the_picture(seed: int) -> None:
    plane = np.random.default_rng(seed).random((2, 17, 19)).astype(np.float32)
    rows, columns = (np.append(np.arange(0, n - 4, 3), n - 4).astype(np.int32) for n in (17, 19))
    places = nearest_windows(plane, rows, columns, 4, 6, 5, 17, 0, 1)
    assert (places[:, 0] == (rows[:, None] * 19 + columns).ravel()).all()
    assert all(len(set(row)) == 6 for row in places.tolist())
    total, weight, number = np.zeros((3, 2, 17, 19), np.float32)
    windows, means = cut_windows(plane, places, 4)
    weights = np.full((len(places), 2), 3.0, np.float32)
    add_windows(windows, means, weights, places, total, weight, number)
    assert np.allclose(total / weight, plane, atol=1e-5)
    assert np.array_equal(weight, 3 * number)


# --- missing pixels


def test_observed_pixels_stay_and_holes_are_filled() -> None:
    clean = picture()
    missing = np.random.default_rng(0).random(clean.shape) < 0.5
    filled = groups.restore(np.where(missing, np.nan, clean)).values
    assert np.array_equal(filled[~missing], clean[~missing])
    seen = (~missing[..., 0]).astype(np.float64)
    blurred = blur(np.where(missing, 0, clean)[..., 0], 1.2) / blur(seen, 1.2)
    assert psnr(filled, clean) > psnr(np.where(missing, blurred[..., None], clean), clean) + 3


@pytest.mark.slow
def test_missing_values_are_told_by_other_channels() -> None:
    grey = np.random.default_rng(0).random((40, 40, 1))  # neighbours tell nothing
    clean = 255 * np.concatenate([grey, 0.2 + 0.5 * grey, 1 - grey], -1)
    missing = np.random.default_rng(1).random(clean.shape) < 0.3
    holed = np.where(missing, np.nan, clean)
    apart = np.concatenate([groups.restore(holed[..., c : c + 1]).values for c in range(3)], -1)
    assert psnr(groups.restore(holed).values, clean) > psnr(apart, clean) + 6


def test_noise_that_is_told_is_removed_around_holes_and_in_them() -> None:
    clean = picture()
    missing = np.random.default_rng(1).random(clean.shape) < 0.3
    damaged = np.where(missing, np.nan, noisy(clean, 20.0))
    filled, restored = groups.restore(damaged), groups.restore(damaged, 20.0)
    assert str(restored.noise) == "white noise of 20"
    for part in (missing, ~missing):
        assert psnr(restored.values[part], clean[part]) > psnr(filled.values[part], clean[part]) + 3


@pytest.mark.slow
def test_an_edge_goes_on_through_a_hole_much_wider_than_a_window() -> None:
    biharmonic = pytest.importorskip("skimage.restoration").inpaint_biharmonic
    y, x = np.mgrid[:96, :96]
    clean = 60 + 100.0 * (2 * y > x)[..., None]
    missing = np.zeros(clean.shape, bool)
    missing[16:44, 40:68] = True
    filled = groups.restore(np.where(missing, np.nan, clean)).values
    smooth = biharmonic(clean[..., 0], missing[..., 0])[..., None]
    assert psnr(filled[missing], clean[missing]) > psnr(smooth[missing], clean[missing]) + 4


@pytest.mark.parametrize("shape", [(8, 8, 1), (9, 31, 3)])
def test_small_pictures_are_restored(shape: tuple[int, ...]) -> None:
    damaged = np.random.default_rng(0).normal(100, 20, shape)
    assert np.isfinite(groups.restore(damaged).values).all()
    assert np.isfinite(groups.restore(np.where(damaged > 110, np.nan, damaged)).values).all()


def test_a_picture_that_is_too_small_or_empty_is_refused() -> None:
    with pytest.raises(Refusal, match="a picture of 7 x 30 pixels; at least 8 x 8 expected"):
        groups.restore(np.zeros((7, 30, 1)))
    empty = np.zeros((9, 9, 2))
    empty[..., 1] = np.nan
    with pytest.raises(Refusal, match="a channel without an observed pixel"):
        groups.restore(empty)


# --- noise


def grain(shape: tuple[int, ...], width: float, level: float) -> Doubles:
    field = blur(np.random.default_rng(0).standard_normal(shape), width)
    scaled: Doubles = level * field / field.std()
    return scaled


def test_grain_is_removed_better_than_white_noise_of_its_level_would_be() -> None:
    clean = picture(96)
    damaged = clean + grain((96, 96), 0.8, 20.0)[..., None]
    blind, as_white = groups.restore(damaged), groups.restore(damaged, 20.0)
    assert blind.noise is not None
    assert not blind.noise.shared.is_white
    assert psnr(blind.values, clean) > psnr(as_white.values, clean) + 1


def test_what_varies_from_block_to_block_is_taken_for_texture() -> None:
    y, x = np.mgrid[:96, :96]
    leaves = 30 * grain((96, 96), 0.8, 1.0) * (1 + np.sin(x / 9) * np.sin(y / 7))
    found = PictureNoise.estimate([(120 + leaves + noisy(np.zeros((96, 96)), 5.0, 1))[None]])
    assert found.is_white
    assert "may be texture" in str(found)


def counts(peak: float) -> tuple[Doubles, Doubles]:
    clean = picture(96) * peak / 255
    return clean, np.random.default_rng(0).poisson(clean).astype(np.float64)


def told(picture: Doubles) -> groups.Noise:
    return groups.noise_of(lambda: [picture], counts=True)


@pytest.mark.slow
def test_counts_are_restored_in_any_units_and_keep_their_mean() -> None:
    clean, observed = counts(10)
    known = groups.restore(observed, told(observed))
    assert str(known.noise) == "noise that grows with brightness: variance 1 x"
    assert known.values.mean() == pytest.approx(observed.mean(), rel=0.01)
    other = groups.restore(observed * 50, told(observed * 50))
    assert np.allclose(other.values / 50, known.values, atol=1e-3)
    level = float(np.std(observed - clean))
    as_white = groups.restore(observed, level).values
    assert psnr(known.values, clean) > psnr(as_white, clean)


@pytest.mark.slow
def test_noise_that_grows_is_found_in_colours_and_grain_too() -> None:
    clean = np.concatenate([picture(128), picture(128) * 0.5, picture(128) * 0.8], -1)
    field = np.stack([grain((128, 128), 0.8, 1.0)] * 3, -1)
    found = groups.restore(clean + field * np.sqrt(2 * clean + 20))
    assert str(found.noise).startswith("noise that grows with brightness")
    assert "correlated" in str(found.noise)


# --- the command, and real pictures


def test_denoise_restores_a_picture_by_groups(tmp_path: Path, call: Called) -> None:
    source, out = tmp_path / "in.png", tmp_path / "out.png"
    Image.fromarray(picture()[..., 0].astype(np.uint8)).save(source)
    code, _, err = call("denoise", str(source), str(out), "--add-noise", "20")
    assert code == 0, err
    assert "by groups of similar windows" in err
    assert "written, white noise of" in err
    assert "PSNR" in err
    assert not (tmp_path / "out.png.run").exists()


def test_inpaint_removes_noise_that_is_told(tmp_path: Path, call: Called) -> None:
    source, out = tmp_path / "in.png", tmp_path / "out.png"
    observed = noisy(picture(), 20.0)[..., 0].clip(1, 255).astype(np.uint8)
    observed[10:12] = 0
    Image.fromarray(observed).save(source)
    words = ["inpaint", str(source), str(out), "--missing-value", "0", "--sigma", "20"]
    code, _, err = call(*words)
    assert code == 0, err
    assert "white noise of 20 removed" in err
    written = np.asarray(Image.open(out)).astype(np.float64)
    assert (
        psnr(written, picture()[..., 0]) > psnr(observed.astype(np.float64), picture()[..., 0]) + 5
    )
    found = inpaint(observed.astype(np.float64), observed == 0, sigma=20)
    assert np.abs(written - found).max() <= 0.5
    code, _, err = call(*words, "--preset", "fast", "--force")
    assert (code, "--sigma: for a picture and --model groups" in err) == (2, True), err
    with pytest.raises(Refusal, match="sigma: for an image and model 'groups'"):
        inpaint(observed, observed == 0, sigma=20, preset="fast")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--counts", "--sigma", "5"], "--counts, --sigma: the noise of counts has no single"),
        (["--counts", "--add-noise", "5"], "--counts: noise that is added is not that of counts"),
        (["--counts", "--model", "tvae"], "--counts: for a picture and --model groups"),
        (["--model", "groups", "train.epochs=3"], "--model groups: train.epochs is for models"),
    ],
)
def test_options_that_contradict_groups_are_refused(
    words: list[str], said: str, tmp_path: Path, call: Called
) -> None:
    source, out = tmp_path / "in.png", tmp_path / "out.png"
    Image.fromarray(picture()[..., 0].astype(np.uint8)).save(source)
    code, _, err = call("denoise", str(source), str(out), *words)
    assert (code, said in err) == (2, True), err


@pytest.mark.slow
@pytest.mark.parametrize("peak", [10])
def test_counts_are_restored_better_than_by_bm3d(peak: int, real_data: Path) -> None:
    bm3d = pytest.importorskip("bm3d").bm3d
    growth = NoiseGrowth(1.0, 0.0)
    gains = []
    for name in ("house256", "cameraman256", "starfish256"):
        picture = Image.open(real_data / "images" / f"{name}.png")
        clean = np.asarray(picture).astype(np.float64)[64:192, 64:192, None] * peak / 255
        observed = np.random.default_rng(0).poisson(clean).astype(np.float64)
        other = growth.back(bm3d(growth.stabilised(observed[..., 0]), 1.0))[..., None]
        ours = groups.restore(observed, told(observed)).values
        gains.append(psnr(ours, clean) - psnr(other, clean))
    assert np.mean(gains) > 0.2


@pytest.mark.slow
@pytest.mark.parametrize(("sigma", "bm3d"), [(25.0, 32.86)])
def test_house_is_restored_better_than_by_bm3d_that_is_told_the_level(
    sigma: float, bm3d: float, real_data: Path
) -> None:
    house = Image.open(real_data / "images" / "house256.png")
    clean = np.asarray(house).astype(np.float64)[..., None]
    assert psnr(groups.restore(noisy(clean, sigma)).values, clean) > bm3d + 0.2
