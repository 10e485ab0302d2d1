"""Resynthesis, and scores of sounds and pictures against their definitions."""

import math
import sys
from copy import copy
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import mtrand
from torch import Tensor

from distvae.config import SpeechData
from distvae.config.schema import POWER_FLOOR
from distvae.data.signals import Signal
from distvae.data.synthesiser import RATE, utterance
from distvae.files.refusal import Refusal
from distvae.tasks import scores
from distvae.tasks.resynthesis import Coded, resynthesise, resynthesize_file, run_coder, write_sound
from distvae.tasks.scores import Array, fidelity, fidelity_gains, isd, raw_p862, score_recording
from distvae.train.run import Run

DATA = SpeechData()


def identity(power: Tensor, first: int) -> Coded:
    return Coded(power, None)


@given(st.integers(DATA.window, 5000), st.integers(0, 2**32 - 1))
def test_nothing_done_to_the_power_gives_the_signal_back_to_the_last_sample(
    samples: int, seed: int
) -> None:
    signal = np.random.default_rng(seed).uniform(-1, 1, samples).astype(np.float32)
    signal[: samples // 3] = 0  # silence, which is coded with a floor
    result = resynthesise(identity, signal, DATA)
    np.testing.assert_allclose(result.signal, signal, atol=2e-5)
    assert result.power.min() >= np.float32(POWER_FLOOR)


def test_a_sample_belongs_to_the_number_of_its_frame(speech_run: Run) -> None:
    data = speech_run.config.data
    assert isinstance(data, SpeechData)
    power = torch.from_numpy(resynthesise(identity, utterance(4, 0), data).power)
    code = run_coder(speech_run, "sample")
    whole, part = code(power, 0).power, code(power[10:], 10).power
    torch.testing.assert_close(whole[10:], part)
    assert not torch.allclose(code(power, 1).power, whole)


def test_speech_is_decoded_from_the_largest_values_of_its_code(speech_run: Run) -> None:
    data = speech_run.config.data
    assert isinstance(data, SpeechData)
    power = torch.from_numpy(resynthesise(identity, utterance(4, 0), data).power)
    whole = run_coder(speech_run, "mean")(power, 0)
    assert whole.code is not None
    size = whole.code.shape[1]
    for values in (1, size):
        run = copy(speech_run)
        run.config = run.config.with_("eval", values=values)
        coded = run_coder(run, "mean")(power, 0)
        assert coded.code is not None
        assert (coded.code != 0).sum(1).tolist() == [values] * len(power)
        assert torch.equal(coded.code.abs().amax(1), whole.code.abs().amax(1))
    torch.testing.assert_close(coded.power, whole.power)


def test_a_file_keeps_its_length_and_its_level_and_is_not_clipped(
    speech_run: Run, image_run: Run, tmp_path: Path
) -> None:
    data, out = speech_run.config.data, tmp_path / "out.flac"
    assert isinstance(data, SpeechData)
    quiet = np.pad(utterance(4, 0), 3000) / 8
    soundfile.write(tmp_path / "in.wav", quiet, RATE, subtype="FLOAT")
    resynthesize_file(speech_run, tmp_path / "in.wav", out)
    found, rate = soundfile.read(out)
    assert (len(found), rate, soundfile.info(out).subtype) == (len(quiet), RATE, "PCM_16")
    peak = np.abs(quiet).max()
    loud = resynthesise(run_coder(speech_run, "mean"), quiet / peak, data).signal
    np.testing.assert_allclose(found, loud * peak, atol=1e-4)
    write_sound(tmp_path / "a.wav", 4 * quiet / peak, RATE)
    np.testing.assert_allclose(soundfile.read(tmp_path / "a.wav")[0], quiet / peak, atol=1e-4)
    with pytest.raises(Refusal, match="one on speech expected"):
        resynthesize_file(image_run, tmp_path / "a.wav", tmp_path / "b.wav")


# --- scores

ALL = ("pesq_wb", "pesq_nb", "pesq_nb_raw", "stoi", "estoi", "si_sdr")
WITHOUT_PESQ = "PESQ is optional: its package is not installed"


@pytest.fixture(scope="module")
def spoken() -> Array:
    return utterance(0, 0)


def noisy(signal: Array, level: float) -> Array:
    noise = np.random.default_rng(0).normal(size=len(signal)) * level * signal.std()
    return np.asarray(signal + noise, np.float32)


@given(st.floats(-0.4, 4.45))
def test_raw_p862_inverts_the_map_of_p862_1(raw: float) -> None:
    mapped = 0.999 + 4 / (1 + math.exp(-1.4945 * raw + 4.6607))
    expected = raw_p862(1.0) if mapped < 1 else raw
    assert raw_p862(max(mapped, 1.0)) == pytest.approx(expected, abs=1e-6)


def test_pesq_of_a_recording_with_itself_is_the_top_of_each_scale(spoken: Array) -> None:
    pytest.importorskip("pesq", reason=WITHOUT_PESQ)
    values = score_recording(spoken, spoken, RATE, ALL[:3]).values
    top = {"pesq_wb": 4.644, "pesq_nb": 4.549, "pesq_nb_raw": 4.5}
    assert values == pytest.approx(top, abs=1e-3)


@pytest.mark.slow
def test_more_utterances_than_pesq_has_room_for_are_scored_in_pieces() -> None:
    pytest.importorskip("pesq", reason=WITHOUT_PESQ)
    random, time = np.random.default_rng(0), np.arange(42 * RATE) / RATE
    # 93 of them; 51 crash it.
    bursts = (random.normal(size=len(time)) * (time % 0.45 < 0.2)).astype(np.float32)
    found = score_recording(bursts, bursts, RATE, ["pesq_wb"]).values["pesq_wb"]
    assert found == pytest.approx(4.644, abs=1e-3)


def test_more_noise_never_scores_better_and_leaves_the_random_numbers_of_others_alone(
    spoken: Array,
) -> None:
    names = scores.available_metrics(ALL)
    before = mtrand.get_bit_generator().state["state"]["pos"]
    clear, worse = (
        score_recording(spoken, noisy(spoken, level), RATE, names).values for level in (0.03, 0.3)
    )
    assert all(clear[name] > worse[name] for name in names)
    assert mtrand.get_bit_generator().state["state"]["pos"] == before


def test_what_a_measure_cannot_score_has_a_reason_instead(spoken: Array) -> None:
    names, silent = scores.available_metrics(ALL), np.zeros_like(spoken)
    short = spoken[8000:11200]
    for name, reason in {"pesq_wb": "quarter", "stoi": "0.4 s"}.items():
        if name in names:
            found = score_recording(short, short, RATE, [name])
            assert math.isnan(found.values[name])
            assert reason in found.refused[name]
    without_stoi = [name for name in names if "stoi" not in name]
    for pair in ((spoken, silent), (silent, spoken)):
        assert set(score_recording(*pair, RATE, without_stoi).refused) == set(without_stoi)


def test_pesq_is_left_out_and_said_so_where_it_is_not_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pesq", None)
    assert scores.available_metrics(ALL) == ("stoi", "estoi", "si_sdr")
    (note,) = scores.scoring_notes(ALL, 44100)
    assert note.startswith("pesq_wb, pesq_nb, pesq_nb_raw left out")


@pytest.mark.parametrize(("wide", "narrow", "kept"), [(4.64, 4.55, True), (4.16, 1.15, False)])
def test_wide_band_pesq_far_above_narrow_band_is_left_out_with_a_reason(
    monkeypatch: pytest.MonkeyPatch, spoken: Array, wide: float, narrow: float, kept: bool
) -> None:
    waveform = {"pesq_wb": lambda *_: wide, "pesq_nb": lambda *_: narrow}
    monkeypatch.setattr(scores, "WAVEFORM", waveform)
    found = score_recording(spoken, spoken, 16000, ["pesq_wb", "pesq_nb"])
    assert found.values["pesq_nb"] == narrow
    assert math.isnan(found.values["pesq_wb"]) != kept
    assert ("pesq_wb" in found.refused) != kept


@given(st.floats(-40, 60), st.floats(1e-3, 1e3))
def test_si_sdr_is_the_ratio_to_what_is_orthogonal_and_blind_to_level(
    decibels: float, level: float
) -> None:
    time = np.arange(1000) / 1000
    signal, other = np.sin(2 * np.pi * 5 * time), np.cos(2 * np.pi * 5 * time)
    estimate = level * (signal + 10 ** (-decibels / 20) * other)
    assert scores.si_sdr(signal, estimate, RATE) == pytest.approx(decibels, abs=1e-6)


def test_isd_from_the_true_variance_is_eulers_constant() -> None:
    random = np.random.default_rng(0)
    variance = random.uniform(0.1, 10, 400_000)[:, None]
    assert isd(random.exponential(variance), variance) == pytest.approx(np.euler_gamma, abs=0.01)


def test_a_sound_has_the_scores_and_gains_that_are_known() -> None:
    clean = Signal(np.random.default_rng(0).standard_normal((800, 1)), rate=RATE)
    found = fidelity(clean, 0.9 * clean.values)
    assert found == {"snr": pytest.approx(20)}, "it is too short for PESQ"
    before, after = {"snr": 2.0, "pesq_wb": 1.5}, {"snr": 5.0, "pesq_wb": 1.25}
    assert fidelity_gains(before, after) == {"snr_gain": 3.0, "pesq_wb_gain": -0.25}
    assert fidelity_gains({"snr": 2.0}, after) == {"snr_gain": 3.0}
    assert fidelity_gains({"psnr": 20.0}, {"psnr": 30.0}) == {}
    assert fidelity_gains({"snr": math.inf}, {"snr": math.inf}) == {}, "there was no noise"
