import math

import numpy as np
import pytest
import scipy.signal
import torch
from hypothesis import given
from hypothesis import strategies as st

from distvae.config.values import POWER_FLOOR
from distvae.data.speech.frames import Stft, power
from distvae.models.likelihoods import ItakuraSaito


def noise(length: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(length).uniform(-1, 1, length).astype(np.float32))


@given(length=st.integers(513, 20000), hop=st.sampled_from([64, 128, 256]))
def test_the_round_trip_is_exact_to_the_last_sample(length: int, hop: int) -> None:
    signal = noise(length)
    back = Stft(1024, hop).signal(Stft(1024, hop).spectrum(signal), length)
    assert (back - signal).abs().max() < 1e-6


@pytest.mark.parametrize(("window", "hop"), [(16, 4), (64, 1), (17, 1), (512, 128), (1000, 250)])
def test_the_round_trip_is_exact_for_other_windows(window: int, hop: int) -> None:
    signal = noise(5003)
    assert (
        Stft(window, hop).signal(Stft(window, hop).spectrum(signal), 5003) - signal
    ).abs().max() < 1e-6


def test_a_hop_of_half_the_window_loses_little() -> None:
    signal = noise(5119)
    assert (
        Stft(1024, 512).signal(Stft(1024, 512).spectrum(signal), 5119) - signal
    ).abs().max() < 3e-5


def test_frames_are_plain_fourier_transforms_under_a_sine_window() -> None:
    signal = noise(5000)
    padded = np.pad(signal.numpy().astype(np.float64), 512, mode="reflect")
    window = scipy.signal.windows.cosine(1024)
    expected = [np.fft.rfft(window * padded[start : start + 1024]) for start in range(0, 5000, 256)]
    np.testing.assert_allclose(
        Stft(1024, 256).spectrum(signal).numpy(), np.stack(expected), atol=2e-4
    )


def test_signals_in_a_batch_are_transformed_one_by_one() -> None:
    stft, signals = Stft(256, 64), torch.stack([noise(3000), -noise(3000)])
    spectrum = stft.spectrum(signals)
    assert torch.equal(spectrum[1], stft.spectrum(signals[1]))
    assert torch.allclose(stft.signal(spectrum, 3000), signals, atol=1e-6)


def test_digital_silence_has_a_power_whose_density_is_bounded() -> None:
    """log p of a frame is at most that of its own power taken for the variance; of a zero there is
    no such bound.
    """
    heard = power(Stft(1024, 256).spectrum(torch.zeros(2048)))
    assert heard.unique().tolist() == [pytest.approx(POWER_FLOOR)]
    log_variance = (
        torch.linspace(-80, 0, 161)
        .expand(len(heard), 161)
        .unsqueeze(-1)
        .expand(-1, -1, heard.shape[1])
    )
    found = ItakuraSaito()(heard, log_variance, None)
    assert found.max() <= heard.shape[1] * (-math.log(POWER_FLOOR) - 1) * (1 + 1e-6)
    assert (found[:, 0] < found[:, 100]).all()
