"""The part of a sound that is read, and the noise that is added to it."""

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from distvae.config import PatchData
from distvae.data.signals import Signal
from distvae.data.windows.family import PatchFamily, read_source
from distvae.files.refusal import Refusal

RATE = 8000


def sound(path: Path, seconds: float = 1.0) -> NDArray[np.float64]:
    """Write a sound in single precision, and return its samples."""
    samples = np.random.default_rng(0).uniform(-0.3, 0.3, round(seconds * RATE))
    samples = samples.astype(np.float32).astype(np.float64)
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    return samples


def chunks(path: Path, **settings: object) -> PatchData:
    return PatchData(path=str(path), window=(16,), **settings)  # type: ignore[arg-type]


def test_noise_is_added_to_the_samples_as_they_are() -> None:
    quiet = Signal(np.full((50_000, 1), 0.01), rate=RATE)
    added = PatchFamily(PatchData(window=(16,), noise=0.1)).corrupt(quiet).values - quiet.values
    assert abs(added.mean()) < 5 * 0.1 / math.sqrt(added.size)
    assert added.std() == pytest.approx(0.1, rel=0.02)


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


def test_an_excerpt_has_the_samples_from_its_start_on(tmp_path: Path) -> None:
    samples = sound(tmp_path / "a.wav")
    found = read_source(chunks(tmp_path / "a.wav", excerpt=(0.25, 0.5)))
    np.testing.assert_array_equal(found.values[:, 0], samples[RATE // 4 : 3 * RATE // 4])
    assert found.rate == RATE


def test_a_resampled_tone_is_the_same_tone_at_the_other_rate(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.sin(0.2 * np.arange(RATE)) / 2, RATE, subtype="FLOAT")
    found = read_source(chunks(tmp_path / "a.wav", rate=2 * RATE))
    assert found.rate == 2 * RATE
    assert found.values.shape == (2 * RATE, 1)
    inner = slice(RATE // 4, -RATE // 4)  # away from the ends, which lack samples on one side
    expected = np.sin(0.1 * np.arange(2 * RATE))[:, None] / 2
    np.testing.assert_allclose(found.values[inner], expected[inner], atol=1e-4)


@pytest.mark.parametrize("excerpt", [(0.5, 0.6), (1.0, 0.5), (0.2, 0.0)])
def test_an_excerpt_beyond_the_sound_or_without_samples_is_refused(
    tmp_path: Path, excerpt: tuple[float, float]
) -> None:
    sound(tmp_path / "a.wav")
    with pytest.raises(Refusal, match=r"data\.excerpt: .* of a\.wav, which lasts 1 s"):
        read_source(chunks(tmp_path / "a.wav", excerpt=excerpt))


def test_one_way_of_corrupting_is_expected() -> None:
    with pytest.raises(Refusal, match=r"data\.snr: 3 with data\.noise = 0\.1; one of the two"):
        PatchData(window=(16,), noise=0.1, snr=3.0)


@pytest.mark.parametrize("settings", [{"snr": 3.0}, {"rate": 16000}, {"excerpt": (0.0, 1.0)}])
def test_settings_of_sounds_are_refused_for_pictures(settings: dict[str, object]) -> None:
    with pytest.raises(Refusal, match=r"for a picture, but it is for sounds; null, or"):
        PatchData(**settings)  # type: ignore[arg-type]
