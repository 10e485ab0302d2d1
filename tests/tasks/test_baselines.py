"""Methods without a trained model: oracles are the expectations that define them, dense equations
of least squares, scikit-learn, scikit-image, and data whose answer is known.
"""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import convolution_matrix
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import rice
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from sklearn.decomposition import PCA

from distvae.config import Config, Eval, IdxData, PatchData, SpeechData, from_dict
from distvae.data import signals
from distvae.data.signals import Signal
from distvae.files import program as packages
from distvae.files.refusal import Refusal
from distvae.reproduce.rows import add_baseline, read_rows
from distvae.tasks import baselines
from distvae.tasks.baselines import (
    SOUND_DENOISERS,
    nmf,
    pca,
    restore_picture,
    score_baseline,
    topk,
)
from distvae.tasks.topk import largest
from tests.slowly import slow

SIDE, RATE = 40, 8000
POWERS = np.linspace(0, 60, 100_000)
RATIOS = st.floats(1e-3, 300)


# --- pictures


def blocks(channels: int = 1) -> np.ndarray:
    """A picture of flat squares, other ones in every channel."""
    y, x, c = np.mgrid[:SIDE, :SIDE, :channels]
    return np.where((x // 10 + y // 10 + c) % 2, 170.0, 80.0)


def picture(folder: Path, **worse: float) -> Config:
    signals.write(path := folder / "blocks.png", Signal(blocks()))
    data = {"kind": "patches", "path": str(path)} | worse
    return from_dict({"data": data, "model": {"kind": "tvae"}})


@pytest.mark.parametrize("name", ["nlm", "tv", "wavelet", *slow("bm3d")])
@pytest.mark.parametrize("channels", [1, 3])
def test_most_of_the_noise_is_removed(name: str, channels: int) -> None:
    if package := {"wavelet": "pywt", "bm3d": "bm3d"}.get(name):
        pytest.importorskip(package, reason=f"{package} is not installed")
    noisy = Signal(blocks(channels)).noisy(20, seed=0)
    found = restore_picture(name, noisy)
    assert found.shape == noisy.values.shape
    left, before = (np.square(each - blocks(channels)).mean() for each in (found, noisy.values))
    assert left < 0.5 * before


def test_a_row_has_scikit_images_figures_of_the_picture_that_a_model_would_see(
    tmp_path: Path,
) -> None:
    config = picture(tmp_path, noise=20.0, noise_seed=3)
    figures = score_baseline("tv", config)
    seen = blocks() + 20 * np.random.default_rng(3).standard_normal((SIDE, SIDE, 1))
    found = restore_picture("tv", Signal(seen))
    psnr = peak_signal_noise_ratio(blocks(), found, data_range=255)
    ssim = structural_similarity(blocks(), found, data_range=255, channel_axis=-1)
    assert figures == pytest.approx({"psnr": psnr, "ssim": ssim})
    add_baseline(tmp_path, "blocks-tv", "tv", config, "image", {"note": "x"})
    (row,) = read_rows(tmp_path, "image")
    assert (row.name, row.note, row.content["baseline"]) == ("blocks-tv", "x", "tv")
    assert row.figures == figures
    assert row.content["data"] == {"name": "blocks.png"}
    assert row.config["data.noise"] == 20
    assert not any(key.startswith(("model.", "train.")) or key == "data.path" for key in row.config)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_plane_without_some_pixels_comes_back_and_what_was_seen_is_kept(channels: int) -> None:
    y, x, c = np.mgrid[:SIDE, :SIDE, :channels]
    plane = 20.0 + 2 * x + 3 * y + 5 * c
    gone = np.random.default_rng(0).random(plane.shape) < 0.3
    gone[[0, 0, -1, -1], [0, -1, 0, -1]] = False
    found = restore_picture("biharmonic", Signal(np.where(gone, np.nan, plane)))
    np.testing.assert_allclose(found[~gone], plane[~gone])
    np.testing.assert_allclose(found[3:-3, 3:-3], plane[3:-3, 3:-3], atol=1)


@pytest.mark.slow
def test_real_data_scores_as_measured_before(real_data: Path) -> None:
    house = PatchData(path=str(real_data / "images" / "house256.png"), noise=25.0)
    assert score_baseline("tv", Config(data=house))["psnr"] == pytest.approx(30.28, abs=0.02)
    speech = SpeechData(path=str(real_data / "speech"))
    config = Config(data=speech, eval=Eval(metrics=("stoi", "estoi", "isd")))
    summary = score_baseline("pca-32", config)
    assert (summary["stoi"], summary["estoi"]) == pytest.approx((0.913, 0.860), abs=1e-3)
    assert (summary["isd"], summary["hoyer"]) == pytest.approx((1.30, 0.56), abs=0.01)


# --- sounds


def chord(samples: int = RATE) -> np.ndarray:
    hertz, time = np.array([440.0, 660.0, 1330.0]), np.arange(samples)[:, None] / RATE
    return np.asarray(np.sin(2 * np.pi * hertz * time + [0, 1, 2]).mean(1))


def sound(path: Path, **worse: float) -> Config:
    soundfile.write(path, np.stack([chord(RATE // 2)] * 2, -1), RATE, subtype="FLOAT")
    return Config(data=PatchData(path=str(path), window=(16,), **worse))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["wiener", "stsa"])
def test_most_of_the_noise_around_a_chord_is_removed(name: str) -> None:
    error = 0.3 * np.random.default_rng(0).standard_normal(RATE)
    rest = SOUND_DENOISERS[name](chord() + error, 0.3, RATE) - chord()
    assert np.mean(np.square(rest)) < 0.1 * np.mean(np.square(error))


def test_noise_is_tracked_at_its_fixed_point_and_below_a_tone() -> None:
    """The power s of white noise is tracked where the weighted error of an exponential power y is
    zero: E[(1 - P(y)) (y - s)] = 0.
    """

    def error(s: float) -> float:
        absent = expit(np.log(1 + 10**1.5) - POWERS / s * 10**1.5 / (1 + 10**1.5))
        return float(np.trapezoid(absent * (POWERS - s) * np.exp(-POWERS), POWERS))

    share = brentq(error, 0.5, 1.0)
    power = np.random.default_rng(0).exponential(2.0, (200, 400))
    power[:20, 100:150] += 500
    power[100:] *= np.linspace(1, 4, 400)
    tracked = baselines.track_noise(power) / share
    assert tracked[:100, 200:].mean() == pytest.approx(2.0, rel=0.1)
    assert tracked[:20, 200:].mean() == pytest.approx(2.0, rel=0.1)
    assert tracked[100:, -20:].mean() == pytest.approx(8.0, rel=0.1)


@given(prior=RATIOS, posterior=RATIOS)
def test_the_stsa_gain_is_the_expected_amplitude(prior: float, posterior: float) -> None:
    """The amplitude is of a complex Gaussian of variance `prior` in noise of variance 1, observed
    with power `posterior`.
    """
    share, seen = prior / (1 + prior), posterior**0.5
    scale = (share / 2) ** 0.5  # of the posterior's real and imaginary part
    expected = rice.mean(share * seen / scale, scale=scale) / seen
    found = baselines.stsa_gain(np.asarray(prior), np.asarray(posterior))
    assert float(found) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("recording", "gain"),
    [("harpsichord_16k.flac", 13.30), ("ljspeech_LJ050-0131_16k.flac", 9.04)],
)
def test_stsa_gains_on_real_sounds_about_what_was_published(
    real_data: Path, recording: str, gain: float
) -> None:
    """The published gains are means over other clips of the same kinds of sound."""
    data = PatchData(path=str(real_data / "audio" / recording), window=(16,), noise=0.1)
    assert score_baseline("stsa", Config(data=data))["snr_gain"] == pytest.approx(gain, abs=1.5)


def test_scores_of_sounds_are_those_of_silence_and_of_silenced_gaps(tmp_path: Path) -> None:
    figures = score_baseline("zero", sound(tmp_path / "a.wav", noise=0.1))
    assert figures["snr"] == pytest.approx(0)
    before = 10 * np.log10(np.square(chord()).mean() / 0.1**2)
    assert figures["snr_gain"] == pytest.approx(-before, abs=0.2)
    figures = score_baseline("ar", sound(tmp_path / "a.wav", drop=0.5))
    assert figures["snr"] > 30
    assert figures["snr"] - figures["snr_gain"] == pytest.approx(10 * np.log10(2), abs=0.3)


def test_sines_go_on_through_a_gap_that_lines_cannot_cross() -> None:
    missing = np.zeros(RATE, bool)
    missing[3000:3040] = True
    holed = np.where(missing, np.nan, chord())
    errors = {
        name: np.square(fill(holed, RATE) - chord())[missing].mean() / np.square(chord()).mean()
        for name, fill in baselines.FILLERS.items()
    }
    assert errors["ar"] < 1e-5  # after one fit of the predictor it would be above 1e-4
    assert errors["linear"] > 0.5


@settings(max_examples=30)
@given(samples=st.integers(3, 60), order=st.integers(1, 8), seed=st.integers(0, 99))
def test_filled_samples_have_the_least_squared_errors_of_prediction(
    samples: int, order: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    predictor = np.append(1.0, rng.uniform(-0.4, 0.4, order))
    values, missing = rng.standard_normal(samples), rng.random(samples) < 0.5
    missing[rng.integers(samples)] = True
    errors = convolution_matrix(predictor, samples)
    expected = np.linalg.lstsq(errors[:, missing], -errors[:, ~missing] @ values[~missing])[0]
    found = baselines._least_errors(values, missing, predictor)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", baselines.FILLERS)
@settings(max_examples=20)
@given(
    samples=st.integers(1, 1500),
    share=st.floats(0, 0.95),
    silent=st.booleans(),
    rate=st.sampled_from([1, 100, RATE, 96000]),
)
def test_any_sound_keeps_its_observed_samples_and_gets_finite_others(
    name: str, samples: int, share: float, silent: bool, rate: int
) -> None:
    random = np.random.default_rng(1)
    given = np.zeros(samples) if silent else random.standard_normal(samples)
    missing = random.random(samples) < share
    missing[0] = False
    filled = baselines.FILLERS[name](np.where(missing, np.nan, given), rate)
    np.testing.assert_array_equal(filled[~missing], given[~missing])
    assert np.isfinite(filled).all()


def test_gaps_beside_a_single_click_in_silence_stay_as_small_as_it_is() -> None:
    """Nothing predicts a click, so that rounding would make the equations indefinite."""
    click, missing = np.zeros(4000), np.random.default_rng(0).random(4000) < 0.3
    click[2000], missing[2000] = 1.0, False
    filled = baselines.autoregressive(np.where(missing, np.nan, click), RATE)
    assert np.abs(filled).max() < 1.5


# --- speech


def test_the_identity_is_perfect(speech_config: Config) -> None:
    summary = score_baseline("identity", speech_config)
    assert summary["isd"] == 0
    assert summary["stoi"] == pytest.approx(1, abs=1e-6)
    assert summary["si_sdr"] > 100


def test_components_are_scikit_learns_and_few_parts_are_found() -> None:
    random = np.random.default_rng(0)
    log_power = random.normal(size=(500, 3)) @ random.normal(size=(3, 12))
    power = np.exp(log_power + random.normal(size=(500, 12))).astype(np.float32)
    oracle = PCA(4).fit(np.log(power))
    coded = pca(power, 4)(torch.from_numpy(power), 0)
    assert coded.code is not None
    expected = oracle.transform(np.log(power))
    np.testing.assert_allclose(np.abs(coded.code.numpy()), np.abs(expected), atol=1e-3)
    inverse = np.exp(oracle.inverse_transform(expected))
    np.testing.assert_allclose(coded.power.numpy(), inverse, rtol=1e-3)
    magnitude = random.exponential(size=(300, 3)) @ random.exponential(size=(3, 12))
    magnitude[:5] = 0  # some silence
    power = np.square(magnitude).astype(np.float32)
    coded = nmf(power, 3)(torch.from_numpy(power), 0)
    assert coded.code is not None
    assert coded.code.shape == (300, 3)
    assert (coded.code >= 0).all()
    worst = np.abs(coded.power.sqrt().numpy() - magnitude).max()
    assert worst < 0.05 * magnitude.max()


def test_sparse_baselines_keep_the_largest_values_and_lose_little_of_few_causes() -> None:
    random = np.random.default_rng(0)
    active = random.random((600, 6)) < 0.25
    causes = random.exponential(size=(6, 12)) * (random.random((6, 12)) < 0.5)
    power = np.exp(active * random.exponential(size=(600, 6)) @ causes).astype(np.float32)
    whole = pca(power, 12, floor=0.01)(torch.from_numpy(power), 0)
    torch.testing.assert_close(whole.power, torch.from_numpy(power), rtol=1e-2, atol=1e-2)
    for coder in (pca(power, 12, 6, 0.01), topk(power, 12, 6)):
        coded = coder(torch.from_numpy(power), 0)
        assert coded.code is not None
        assert int((coded.code != 0).sum(1).max()) == 6
        error = np.log(coded.power.numpy() + 0.01) - np.log(power + 0.01)
        assert np.square(error).mean() < 0.2 * np.log(power + 0.01).var(0).mean()
    code = torch.tensor([[3.0, -4.0, 0.0, 1.0]])
    assert largest(code, 2).tolist() == [[3, -4, 0, 0]]
    assert torch.equal(largest(code, 9), code)


# --- refusals


def test_what_does_not_fit_is_refused(
    speech_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wav, names = tmp_path / "chord.wav", "identity, pca-N, .* K up to N, and up to 257 components"
    noisy, holed = {"noise": 9.0}, {"drop": 0.5}
    refused = [
        (
            "wnnm",
            picture(tmp_path, **noisy),
            "a picture under noise; nlm, tv, wavelet, bm3d expect",
        ),
        ("nlm", picture(tmp_path, **holed), "a picture without some pixels; biharmonic expected"),
        ("nlm", picture(tmp_path), "the data is not damaged.* such as data.noise=25 for a picture"),
        (
            "nlm",
            sound(wav, **noisy),
            "a sound under noise; zero, local, wiener, stsa, stsa-blind expected",
        ),
        ("wiener", sound(wav), "the data is not damaged.* data.snr=5 for a sound"),
        ("stsa", sound(wav, **holed), "stsa: no method for a sound without some samples; linear,"),
        ("ar", sound(wav, drop=1.0), "ar: a channel without a sample to go by"),
        *(
            (name, speech_config, names)
            for name in ("pca-0", "nmf-258", "pca-4-of-258", "topk-9-of-8", "topk-4", "nlm")
        ),
        ("identity", Config(data=IdxData()), "speech, patches or atoms expected"),
    ]
    for name, config, message in refused:
        with pytest.raises(Refusal, match=message):
            score_baseline(name, config)
    values = blocks(3)
    values[..., 1] = np.nan
    with pytest.raises(Refusal, match="biharmonic: a picture without a pixel to go by"):
        restore_picture("biharmonic", Signal(values))
    monkeypatch.setattr(packages, "is_installed", {"skimage": True}.get)
    with pytest.raises(Refusal, match=r"bm3d needs .*; pip install 'distvae\[bm3d\]' expected"):
        score_baseline("bm3d", picture(tmp_path, **noisy))
