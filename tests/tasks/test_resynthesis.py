from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from distvae.config import SpeechData
from distvae.config.schema import POWER_FLOOR
from distvae.data.synthesiser import RATE, utterance
from distvae.files.refusal import Refusal
from distvae.tasks.resynthesis import Coded, resynthesise, resynthesize_file, run_coder, write_sound
from distvae.train.run import Run

DATA = SpeechData()


def identity(power: Tensor, first: int) -> Coded:
    return Coded(power, None)


@given(st.integers(DATA.window, 5000), st.integers(0, 2**32 - 1))
def test_nothing_done_to_the_power_gives_the_signal_back_to_the_last_sample(
    samples: int, seed: int
) -> None:
    signal = np.random.default_rng(seed).uniform(-1, 1, samples).astype(np.float32)
    np.testing.assert_allclose(resynthesise(identity, signal, DATA).signal, signal, atol=2e-6)


def test_silence_stays_silent_and_is_coded_as_in_training() -> None:
    signal = np.pad(utterance(0, 0), 4096)
    result = resynthesise(identity, signal, DATA)
    assert result.power.min() == np.float32(POWER_FLOOR)
    np.testing.assert_allclose(result.signal, signal, atol=2e-5)


def framing(run: Run) -> SpeechData:
    """The settings of a run's recordings."""
    assert isinstance(run.config.data, SpeechData)
    return run.config.data


def test_a_sample_belongs_to_the_number_of_its_frame(speech_run: Run) -> None:
    power = torch.from_numpy(resynthesise(identity, utterance(4, 0), framing(speech_run)).power)
    code = run_coder(speech_run, "sample")
    whole, part = code(power, 0).power, code(power[10:], 10).power
    torch.testing.assert_close(whole[10:], part)
    assert not torch.allclose(code(power, 1).power, whole)


def test_a_file_keeps_its_length_and_its_level(speech_run: Run, tmp_path: Path) -> None:
    quiet = np.pad(utterance(4, 0), 3000) / 8
    soundfile.write(tmp_path / "in.wav", quiet, RATE, subtype="FLOAT")
    resynthesize_file(speech_run, tmp_path / "in.wav", tmp_path / "out.flac")
    found, rate = soundfile.read(tmp_path / "out.flac")
    assert (len(found), rate, soundfile.info(tmp_path / "out.flac").subtype) == (
        len(quiet),
        RATE,
        "PCM_16",
    )
    peak = np.abs(quiet).max()
    at_full_scale = resynthesise(
        run_coder(speech_run, "mean"), quiet / peak, framing(speech_run)
    ).signal
    np.testing.assert_allclose(found, at_full_scale * peak, atol=1e-4)


def test_a_run_on_images_resynthesises_no_sound(image_run: Run, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="one on speech expected"):
        resynthesize_file(image_run, tmp_path / "a.wav", tmp_path / "b.wav")


def test_a_signal_beyond_full_scale_is_turned_down_not_clipped(tmp_path: Path) -> None:
    signal = (4 * np.sin(np.arange(1000) / 9)).astype(np.float32)
    write_sound(tmp_path / "a.wav", signal, RATE)
    np.testing.assert_allclose(
        soundfile.read(tmp_path / "a.wav")[0], signal / np.abs(signal).max(), atol=1e-4
    )
