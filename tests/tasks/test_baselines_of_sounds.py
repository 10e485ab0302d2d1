"""Methods for sounds and speech: oracles are the expectations that define them, dense equations of
least squares, scikit-learn, and signals whose answer is known.
"""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import convolution_matrix
from scipy.stats import rice
from sklearn.decomposition import PCA

from distvae.config import Config, Eval, IdxData, PatchData, SpeechData
from distvae.files.refusal import Refusal
from distvae.tasks import baselines
from distvae.tasks.baselines import SOUND_DENOISERS, nmf, pca, score_baseline, stsa_gain

RATE = 8000
SPECTRAL = ["wiener", "stsa"]
RATIOS = st.floats(1e-3, 300)


def tone(samples: int = RATE, hertz: float = 440.0) -> np.ndarray:
    return np.asarray(0.5 * np.sin(2 * np.pi * hertz / RATE * np.arange(samples)))


def noise(samples: int, sigma: float) -> np.ndarray:
    return sigma * np.random.default_rng(0).standard_normal(samples)


def config(path: Path, sigma: float) -> Config:
    return Config(data=PatchData(path=str(path), window=(16,), noise=sigma))


@pytest.mark.parametrize("name", SPECTRAL)
def test_most_of_the_noise_around_a_tone_is_removed(name: str) -> None:
    sound, error = tone(), noise(RATE, 0.3)
    rest = SOUND_DENOISERS[name](sound + error, 0.3, RATE) - sound
    assert np.mean(np.square(rest)) < 0.1 * np.mean(np.square(error))


@given(prior=RATIOS, posterior=RATIOS)
def test_the_stsa_gain_is_the_expected_amplitude(prior: float, posterior: float) -> None:
    """The amplitude is of a complex Gaussian of variance `prior` in noise of variance 1, observed
    with power `posterior`.
    """
    share, seen = prior / (1 + prior), posterior**0.5
    scale = (share / 2) ** 0.5  # of the posterior's real and imaginary part
    expected = rice.mean(share * seen / scale, scale=scale) / seen
    assert float(stsa_gain(np.asarray(prior), np.asarray(posterior))) == pytest.approx(
        expected, rel=1e-6
    )


def test_silence_has_an_snr_of_zero_and_loses_what_there_was(tmp_path: Path) -> None:
    sound, sigma = tone(), 0.1
    soundfile.write(tmp_path / "tone.wav", sound, RATE, subtype="FLOAT")
    figures = score_baseline("zero", config(tmp_path / "tone.wav", sigma))
    assert figures["snr"] == pytest.approx(0)
    before = 10 * np.log10(np.square(sound).mean() / sigma**2)
    assert figures["snr_gain"] == pytest.approx(-before, abs=0.2)


@pytest.mark.parametrize(
    ("recording", "gain"),
    [("harpsichord_16k.flac", 13.30), ("ljspeech_LJ050-0131_16k.flac", 9.04)],
)
def test_stsa_gains_on_real_sounds_about_what_was_published(
    real_data: Path, recording: str, gain: float
) -> None:
    """The published gains are means over other clips of the same kinds of sound."""
    sound = PatchData(path=str(real_data / "audio" / recording), window=(16,), noise=0.1)
    assert score_baseline("stsa", Config(data=sound))["snr_gain"] == pytest.approx(gain, abs=1.5)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "tone.wav", tone(), RATE, subtype="FLOAT")
    with pytest.raises(
        Refusal, match="nlm: no method for a sound under noise; zero, local, wiener, stsa expected"
    ):
        score_baseline("nlm", config(tmp_path / "tone.wav", 0.1))
    with pytest.raises(Refusal, match=r"the data is not damaged.* data.snr=5 for a sound"):
        score_baseline("wiener", config(tmp_path / "tone.wav", 0.0))


def chord(samples: int = RATE) -> np.ndarray:
    hertz, time = np.array([440.0, 660.0, 1330.0]), np.arange(samples)[:, None] / RATE
    return np.asarray(np.sin(2 * np.pi * hertz * time + [0, 1, 2]).mean(1))


def holes(samples: int, share: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(samples) < share


def test_sines_go_on_through_a_gap_that_lines_cannot_cross() -> None:
    sound, missing = chord(), np.zeros(RATE, bool)
    missing[3000:3040] = True
    holed = np.where(missing, np.nan, sound)
    errors = {
        name: np.square(fill(holed, RATE) - sound)[missing].mean() / np.square(sound).mean()
        for name, fill in baselines.FILLERS.items()
    }
    assert errors["ar"] < 1e-5  # after one fit of the predictor it would be above 1e-4
    assert errors["linear"] > 0.5


@settings(max_examples=30, deadline=None)
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
@settings(max_examples=20, deadline=None)
@given(
    samples=st.integers(1, 1500),
    share=st.floats(0, 0.95),
    silent=st.booleans(),
    rate=st.sampled_from([1, 100, RATE, 96000]),
)
def test_any_sound_keeps_its_observed_samples_and_gets_finite_others(
    name: str, samples: int, share: float, silent: bool, rate: int
) -> None:
    sound = np.zeros(samples) if silent else np.random.default_rng(1).standard_normal(samples)
    missing = holes(samples, share)
    missing[0] = False
    filled = baselines.FILLERS[name](np.where(missing, np.nan, sound), rate)
    np.testing.assert_array_equal(filled[~missing], sound[~missing])
    assert np.isfinite(filled).all()


def test_gaps_beside_a_single_click_in_silence_stay_as_small_as_it_is() -> None:
    """Nothing predicts a click, so that rounding would make the equations indefinite."""
    click, missing = np.zeros(4000), holes(4000, 0.3)
    click[2000], missing[2000] = 1.0, False
    filled = baselines.autoregressive(np.where(missing, np.nan, click), RATE)
    assert np.abs(filled).max() < 1.5


def test_a_sound_without_some_samples_is_scored_beside_its_silenced_gaps(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "chord.wav", np.stack([chord()] * 2, -1), RATE, subtype="FLOAT")
    data = PatchData(path=str(tmp_path / "chord.wav"), window=(16,), drop=0.5)
    figures = score_baseline("ar", Config(data=data))
    assert figures["snr"] > 30
    assert figures["snr"] - figures["snr_gain"] == pytest.approx(10 * np.log10(2), abs=0.3)
    with pytest.raises(Refusal, match="stsa: no method for a sound without some samples; linear,"):
        score_baseline("stsa", Config(data=data))
    everything = PatchData(path=data.path, window=(16,), drop=1.0)
    with pytest.raises(Refusal, match="ar: a channel without a sample to go by"):
        score_baseline("ar", Config(data=everything))


def test_the_identity_is_perfect(speech_config: Config) -> None:
    summary = score_baseline("identity", speech_config)
    assert summary["isd"] == 0
    assert summary["stoi"] == pytest.approx(1, abs=1e-6)
    assert summary["si_sdr"] > 100


def test_principal_components_are_scikit_learns() -> None:
    random = np.random.default_rng(0)
    power = np.exp(
        random.normal(size=(500, 3)) @ random.normal(size=(3, 12)) + random.normal(size=(500, 12))
    )
    power = power.astype(np.float32)
    oracle = PCA(4).fit(np.log(power))
    coded = pca(power, 4)(torch.from_numpy(power), 0)
    assert coded.code is not None
    expected = oracle.transform(np.log(power))
    np.testing.assert_allclose(np.abs(coded.code.numpy()), np.abs(expected), atol=1e-3)
    np.testing.assert_allclose(
        coded.power.numpy(), np.exp(oracle.inverse_transform(expected)), rtol=1e-3
    )


def spectra(frames: int = 300) -> np.ndarray:
    """Power of sums of a few non-negative parts, and some silence."""
    random = np.random.default_rng(0)
    magnitude = random.exponential(size=(frames, 3)) @ random.exponential(size=(3, 12))
    magnitude[:5] = 0
    return np.square(magnitude).astype(np.float32)


def test_few_parts_are_found_and_are_non_negative() -> None:
    power = spectra()
    coded = nmf(power, 3)(torch.from_numpy(power), 0)
    assert coded.code is not None
    assert coded.code.shape == (300, 3)
    assert (coded.code >= 0).all()
    np.testing.assert_allclose(
        coded.power.sqrt().numpy(), np.sqrt(power), atol=0.05 * np.sqrt(power).max()
    )


@pytest.mark.parametrize("name", ["pca-0", "nmf-258", "nlm"])
def test_an_unknown_name_is_refused(speech_config: Config, name: str) -> None:
    with pytest.raises(Refusal, match="identity, pca-1 to pca-257 or nmf-1 to nmf-257 expected"):
        score_baseline(name, speech_config)


def test_images_are_compared_with_nothing() -> None:
    with pytest.raises(Refusal, match="speech or patches expected"):
        score_baseline("identity", Config(data=IdxData()))


@pytest.mark.slow
def test_components_score_on_real_speech_as_measured_before(real_data: Path) -> None:
    config = Config(
        data=SpeechData(path=str(real_data / "speech")), eval=Eval(metrics=("stoi", "estoi", "isd"))
    )
    summary = score_baseline("pca-32", config)
    assert summary["stoi"] == pytest.approx(0.913, abs=1e-3)
    assert summary["estoi"] == pytest.approx(0.860, abs=1e-3)
    assert (summary["isd"], summary["hoyer"]) == pytest.approx((1.30, 0.56), abs=0.01)
