"""Methods for sounds: oracles are the expectations they are defined by, and signals whose answer is
known.
"""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rice

from distvae.config import Config, PatchData
from distvae.files.refusal import Refusal
from distvae.tasks.baselines import SOUND_DENOISERS, score_baseline, stsa_gain

RATE = 8000
SPECTRAL = ["wiener", "stsa"]


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


RATIOS = st.floats(1e-3, 300)


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
