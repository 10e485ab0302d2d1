"""The estimator of signals."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray

import distvae
from distvae.data.speech import Stft
from distvae.data.synthesiser import RATE, utterance
from distvae.estimators import SDMVAE, SpeechCoder
from distvae.files.refusal import Refusal
from distvae.tasks.resynthesis import resynthesize_file


def coder(**parameters: int) -> SpeechCoder:
    power: dict[str, Any] = {"likelihood": "itakura_saito", "input": "log_standard"}
    model = SDMVAE(latent=8, hidden=(16,), epochs=2, device="cpu", **power)
    return SpeechCoder(model=model, **parameters)


SIGNALS = [utterance(0, 0)[:12_000], utterance(1, 0)[:9_000]]


@pytest.fixture(scope="module")
def fitted() -> SpeechCoder:
    return coder().fit(SIGNALS)


def test_signals_come_back_with_their_length_and_level(fitted: SpeechCoder) -> None:
    found = fitted.reconstruct(SIGNALS)
    assert [len(signal) for signal in found] == [12_000, 9_000]
    assert fitted.n_iter_ == 2
    quieter = fitted.reconstruct([signal / 8 for signal in SIGNALS])
    for loud, quiet in zip(found, quieter, strict=True):
        np.testing.assert_allclose(quiet * 8, loud, rtol=1e-5, atol=1e-6)


def test_codes_of_another_voice_keep_the_phase_of_the_signal(fitted: SpeechCoder) -> None:
    first, second = SIGNALS[0][:9_000], SIGNALS[1]
    swapped = fitted.transform([second, first])
    for heard, own in zip(
        fitted.inverse_transform(swapped, [first, second]), [first, second], strict=True
    ):
        phases = [Stft(1024, 256).spectrum(torch.from_numpy(each)).angle() for each in (heard, own)]
        turned = torch.polar(torch.ones(()), phases[0] - phases[1]).real
        assert turned.median() > 0.9
    with pytest.raises(Refusal, match="codes of 36 frames; 47 expected"):
        fitted.inverse_transform(swapped, SIGNALS)


def test_a_saved_coder_resynthesises_a_recording_from_the_command_line(
    fitted: SpeechCoder, tmp_path: Path
) -> None:
    peak = np.abs(SIGNALS[0]).max()
    soundfile.write(tmp_path / "in.wav", SIGNALS[0], RATE, subtype="FLOAT")
    fitted.model_.save(tmp_path / "run")
    resynthesize_file(distvae.load(tmp_path / "run"), tmp_path / "in.wav", tmp_path / "out.wav")
    heard, _ = soundfile.read(tmp_path / "out.wav", dtype="float32")
    np.testing.assert_allclose(heard, fitted.reconstruct(SIGNALS[0])[0], atol=peak * 1e-4)


@pytest.mark.parametrize(
    ("signal", "message"),
    [
        (np.zeros((2, 3, 4)), r"signal: float64 of shape \(3, 4\)"),
        (np.zeros(100), "signal: 100 samples; 1024 or more expected"),
        (np.full(4096, np.nan), "not finite"),
        (np.full(4096, 1e60), r"signal: samples of up to .*; others that 32 bits hold"),
    ],
)
def test_what_is_no_signal_is_refused(
    fitted: SpeechCoder, signal: NDArray[np.float64], message: str
) -> None:
    with pytest.raises(Refusal, match=message):
        fitted.transform(signal)


def test_codes_of_an_odd_window_are_decoded() -> None:
    signal = np.random.default_rng(0).standard_normal(4199)
    (found,) = coder(window=21, hop=7).fit([signal]).reconstruct([signal])
    assert len(found) == 4199
