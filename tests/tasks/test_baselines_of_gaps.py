"""Methods that fill in missing samples: oracles are sounds whose missing part is known, and the
dense equations of least squares.
"""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import convolution_matrix

from distvae.config import Config, PatchData
from distvae.files.refusal import Refusal
from distvae.tasks import baselines
from distvae.tasks.baselines import score_baseline

RATE = 8000


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
