"""Laws of the restoration of sounds by groups of their windows."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from scipy.integrate import quad
from scipy.signal import lfilter
from scipy.special import i0e

import distvae
from distvae.data.signals import read_signal
from distvae.numerics.arrays import Doubles, Floats
from distvae.tasks import sound_groups
from distvae.tasks.baselines import stsa, wiener
from tests.called import Called

RATE = 8000
SIZE = 128
"""Samples of a window at this rate."""


def vowel(samples: int = RATE) -> Doubles:
    """Return harmonics of 125 Hz that swell and fade, (samples, 1)."""
    seconds = np.arange(samples) / RATE
    tones = [np.sin(2 * np.pi * 125 * k * seconds + k * k) / k for k in range(1, 12)]
    sound: Doubles = 0.2 * np.sum(tones, 0) * np.sin(np.pi * seconds * 3) ** 2
    return sound[:, None]


def noise(samples: int, sigma: float) -> Doubles:
    return sigma * np.random.default_rng(0).standard_normal((samples, 1))


def snr(found: Floats, clean: Floats) -> float:
    return float(10 * np.log10(np.square(clean).sum() / np.square(found - clean).sum()))


def restored(sound: Doubles, sigma: float | None = None, threads: int = 1) -> Doubles:
    return sound_groups.restore(sound, sigma, threads, rate=RATE).values


def test_threads_share_the_work_and_not_the_result_and_without_noise_the_sound_comes_back() -> None:
    assert np.allclose(restored(vowel(), 0.0), vowel(), atol=1e-12)
    damaged = vowel(RATE // 2) + noise(RATE // 2, 0.1)
    assert np.array_equal(restored(damaged), restored(damaged, threads=3))


# --- how much noise is removed


@pytest.mark.slow
def test_a_vowel_comes_near_to_the_ideal_filter_and_beyond_what_needs_no_groups(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clean, error = vowel(2 * RATE), noise(2 * RATE, 0.1)
    damaged = clean + error
    spectra = [np.abs(np.fft.rfft(each[:, 0])) ** 2 for each in (clean, error)]
    kept = spectra[0] / (spectra[0] + spectra[1].mean())  # knows the spectrum of the clean sound
    ideal = np.fft.irfft(np.fft.rfft(damaged[:, 0]) * kept)
    found = snr(restored(damaged), clean)
    assert found > snr(damaged, clean) + 11
    assert found < snr(ideal[:, None], clean) + 3  # and that it swells and fades is not in it
    for peer in (wiener, stsa):
        assert found > snr(peer(damaged[:, 0], 0.1, RATE)[:, None], clean) + 1
    coloured = lfilter([0.05], [1, -0.9], noise(len(clean), 1.0), axis=0)
    as_white = restored(clean + coloured, float(coloured.std()))
    assert snr(restored(clean + coloured), clean) > snr(as_white, clean) + 1
    monkeypatch.setattr(sound_groups, "PIECE", 0.8)
    monkeypatch.setattr(sound_groups, "OVERLAP", 0.2)
    assert snr(restored(damaged), clean) == pytest.approx(found, abs=0.5)
    assert np.allclose(restored(clean, 0.0), clean, atol=1e-12)


@pytest.mark.parametrize("pole", [0.0, 0.5])
def test_the_spectrum_of_noise_is_found(pole: float) -> None:
    sound = lfilter([1], [1, -pole], noise(RATE, 0.1)[:, 0])
    found = sound_groups.noise_density(sound, SIZE)
    turns = np.exp(-2j * np.pi * np.fft.rfftfreq(2 * SIZE))
    true = 0.01 / np.abs(1 - pole * turns) ** 2
    assert np.abs(np.log10(found / true)).mean() < 0.1


# --- what is computed, beside integrals and a search through everything


@pytest.mark.parametrize("prior", [0.03, 4.0])
@pytest.mark.parametrize("posterior", [0.2, 9.0])
def test_the_gain_is_the_expected_logarithm_of_an_amplitude(prior: float, posterior: float) -> None:
    # given what is observed, the amplitude has a Rice density with these two parameters
    mean, variance = prior / (1 + prior) * posterior**0.5, prior / (1 + prior)

    def density(a: float) -> float:
        bessel = float(i0e(2 * a * mean / variance))
        return float(2 * a / variance * np.exp(-((a - mean) ** 2) / variance)) * bessel

    expected = quad(lambda a: np.log(a) * density(a), 0, mean + 12 * variance**0.5, limit=200)[0]
    gain = sound_groups.log_amplitude_gain(np.array(prior), np.array(posterior))
    assert gain == pytest.approx(min(1.0, np.exp(expected) / posterior**0.5), rel=1e-5)


def test_the_windows_of_a_population_are_the_nearest_up_to_sign(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sound_groups, "MEMBERS", 9)
    sound = np.random.default_rng(0).standard_normal(400)
    signal = torch.from_numpy(sound.astype(np.float32))
    found = sound_groups.nearest(signal, torch.tensor([5, 200, 384]), 16)
    for reference, places in zip((5, 200, 384), found.tolist(), strict=True):
        window = sound[reference : reference + 16]
        distances = {}
        for place in range(max(0, reference - 128), min(384, reference + 128) + 1):
            other = sound[place : place + 16]
            both = (np.square(window - other).sum(), np.square(window + other).sum())
            distances[place] = min(both)
        assert set(places) == set(sorted(distances, key=distances.__getitem__)[:9])
        assert places[0] == reference


# --- the command, Python, and real sounds


def test_the_command_and_python_restore_a_sound_by_groups(tmp_path: Path, call: Called) -> None:
    source, out = tmp_path / "in.wav", tmp_path / "out.flac"
    damaged = (vowel(2400) + noise(2400, 0.1))[:, 0]
    soundfile.write(source, np.stack([damaged, damaged[::-1]], 1), RATE, subtype="DOUBLE")
    code, _, err = call("denoise", str(source), str(out), "--snr", "10", "data.rate=4000")
    assert code == 0, err
    assert "by groups of similar windows" in err
    assert "written, noise of 0." in err
    assert "SNR" in err
    assert read_signal(out).values.shape == (1200, 2)
    assert not (tmp_path / "out.flac.run").exists()
    code, _, err = call("inpaint", str(source), str(out), "--drop", "0.1", "--model", "groups")
    assert (code, "--model groups: gaps of a sound; --model tvae expected" in err) == (2, True), err
    soundfile.write(source, damaged, RATE, subtype="DOUBLE")
    expected = restored(read_signal(source).values)[:, 0]
    assert np.array_equal(distvae.denoise(source, model="groups"), expected)
    as_if = sound_groups.restore(damaged[:, None]).values[:, 0]
    assert np.array_equal(distvae.denoise(damaged), as_if)


@pytest.mark.slow
def test_speech_is_restored_better_than_by_filters_that_are_told_the_level(
    real_data: Path,
) -> None:
    clean = read_signal(real_data / "audio" / "ljspeech_LJ050-0131_16k.flac").values[:64000]
    sigma = float(clean.std() * 10 ** (-5 / 20))
    damaged = clean + noise(len(clean), sigma)
    found = snr(sound_groups.restore(damaged, threads=2).values, clean)
    for peer in (wiener, stsa):
        assert found > snr(peer(damaged[:, 0], sigma, 16000)[:, None], clean) + 0.5
