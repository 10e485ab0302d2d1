"""Methods for pictures: oracles are numpy, scikit-image's own ways of measuring, and pictures whose
answer is known.
"""

from pathlib import Path

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from distvae.config import Config, PatchData, from_dict
from distvae.data import signals
from distvae.data.signals import Signal
from distvae.files import program as packages
from distvae.files.refusal import Refusal
from distvae.reproduce.rows import add_baseline, read_rows
from distvae.tasks.baselines import PICTURE_DENOISERS, restore_picture, score_baseline

SIDE = 40
NEEDS = {"wavelet": "pywt", "bm3d": "bm3d"}
"""Modules that methods need beside scikit-image."""
HERE = [name for name in PICTURE_DENOISERS if name not in NEEDS]


def blocks(channels: int = 1) -> np.ndarray:
    """A picture of flat squares, other ones in every channel."""
    y, x, c = np.mgrid[:SIDE, :SIDE, :channels]
    return np.where((x // 10 + y // 10 + c) % 2, 170.0, 80.0)


def config(folder: Path, **worse: float) -> Config:
    signals.write(path := folder / "blocks.png", Signal(blocks()))
    return from_dict(
        {"data": {"kind": "patches", "path": str(path)} | worse, "model": {"kind": "tvae"}}
    )


def noisy(sigma: float, channels: int = 1, seed: int = 0) -> Signal:
    return Signal(blocks(channels)).noisy(sigma, seed)


@pytest.mark.parametrize("name", [*HERE, *NEEDS])
@pytest.mark.parametrize("channels", [1, 3])
def test_most_of_the_noise_is_removed(name: str, channels: int) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name], reason=f"{NEEDS[name]} is not installed")
    given = noisy(20, channels)
    found = restore_picture(name, given)
    assert found.shape == given.values.shape
    left, before = (np.square(values - blocks(channels)).mean() for values in (found, given.values))
    assert left < 0.5 * before


def test_the_figures_are_scikit_images_of_the_picture_that_a_model_would_see(
    tmp_path: Path,
) -> None:
    figures = score_baseline("tv", config(tmp_path, noise=20, noise_seed=3))
    seen = blocks() + 20 * np.random.default_rng(3).standard_normal((SIDE, SIDE, 1))
    found = restore_picture("tv", Signal(seen))
    assert figures["psnr"] == pytest.approx(
        peak_signal_noise_ratio(blocks(), found, data_range=255)
    )
    similar = structural_similarity(blocks(), found, data_range=255, channel_axis=-1)
    assert figures["ssim"] == pytest.approx(similar)


@pytest.mark.parametrize(("channels", "apart"), [(1, 1), (3, 3)])
def test_a_plane_without_some_pixels_or_values_comes_back_and_what_was_seen_is_kept(
    channels: int, apart: int
) -> None:
    y, x, c = np.mgrid[:SIDE, :SIDE, :channels]
    plane = 20.0 + 2 * x + 3 * y + 5 * c
    gone = np.random.default_rng(0).random((SIDE, SIDE, apart)) < 0.3
    gone[[0, 0, -1, -1], [0, -1, 0, -1]] = False
    found = restore_picture("biharmonic", Signal(np.where(gone, np.nan, plane)))
    seen = np.broadcast_to(~gone, plane.shape)
    np.testing.assert_allclose(found[seen], plane[seen])
    inner = (slice(3, -3), slice(3, -3))
    np.testing.assert_allclose(found[inner], plane[inner], atol=1)


@pytest.mark.parametrize(
    ("name", "worse", "message"),
    [
        (
            "wnnm",
            {"noise": 9.0},
            "wnnm: no method for a picture under noise; nlm, tv, wavelet, bm3d expected",
        ),
        (
            "nlm",
            {"drop": 0.5},
            "nlm: no method for a picture without some pixels; biharmonic expected",
        ),
        ("nlm", {}, "the data is not damaged.* such as data.noise=25 for a picture"),
    ],
)
def test_what_does_not_fit_is_refused(
    name: str, worse: dict[str, float], message: str, tmp_path: Path
) -> None:
    with pytest.raises(Refusal, match=message):
        score_baseline(name, config(tmp_path, **worse))


def test_a_picture_without_an_observed_pixel_is_refused() -> None:
    values = blocks(3)
    values[..., 1] = np.nan
    with pytest.raises(Refusal, match="biharmonic: a picture without a pixel to go by"):
        restore_picture("biharmonic", Signal(values))


def test_a_method_whose_package_is_missing_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "is_installed", {"skimage": True}.get)
    with pytest.raises(Refusal, match=r"bm3d needs .*; pip install 'distvae\[bm3d\]' expected"):
        score_baseline("bm3d", config(tmp_path, noise=9.0))


def test_a_row_says_what_was_done(tmp_path: Path) -> None:
    add_baseline(tmp_path, "blocks-tv", "tv", config(tmp_path, noise=20.0), "image", {"note": "x"})
    (row,) = read_rows(tmp_path, "image")
    assert (row.name, row.note, row.content["peer"]) == ("blocks-tv", "x", "tv")
    assert row.figures == score_baseline("tv", config(tmp_path, noise=20.0))
    assert row.content["data"] == {"name": "blocks.png"}
    assert row.config["data.noise"] == 20
    assert not any(key.startswith(("model.", "train.")) or key == "data.path" for key in row.config)


@pytest.mark.slow
def test_house_is_as_measured_before(real_data: Path) -> None:
    house = PatchData(path=str(real_data / "images" / "house256.png"), noise=25.0)
    assert score_baseline("tv", Config(data=house))["psnr"] == pytest.approx(30.28, abs=0.02)
