"""Scores of sounds and pictures against their definitions."""

import math
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import mtrand

from distvae.data.signals import Signal
from distvae.data.synthesiser import RATE, utterance
from distvae.tasks import scores
from distvae.tasks.scores import Array, fidelity, fidelity_gains, isd, raw_p862, score_recording

ALL = ("pesq_wb", "pesq_nb", "pesq_nb_raw", "stoi", "estoi", "si_sdr")


@pytest.fixture(scope="module")
def spoken() -> Array:
    return utterance(0, 0)


def noisy(signal: Array, level: float) -> Array:
    noise = np.random.default_rng(0).normal(size=len(signal)) * level * signal.std()
    return np.asarray(signal + noise, np.float32)


@given(st.floats(-0.4, 4.45))
def test_raw_p862_inverts_the_map_of_p862_1(raw: float) -> None:
    mapped = 0.999 + 4 / (1 + math.exp(-1.4945 * raw + 4.6607))
    assert raw_p862(max(mapped, 1.0)) == pytest.approx(
        raw_p862(1.0) if mapped < 1 else raw, abs=1e-6
    )


def test_pesq_of_a_recording_with_itself_is_the_top_of_each_scale(spoken: Array) -> None:
    pytest.importorskip("pesq", reason="PESQ is optional: its package is not installed")
    values = score_recording(spoken, spoken, RATE, ALL[:3]).values
    assert values == pytest.approx(
        {"pesq_wb": 4.644, "pesq_nb": 4.549, "pesq_nb_raw": 4.5}, abs=1e-3
    )


@pytest.mark.slow
def test_more_utterances_than_pesq_has_room_for_are_scored_in_pieces() -> None:
    pytest.importorskip("pesq", reason="PESQ is optional: its package is not installed")
    random, time = np.random.default_rng(0), np.arange(42 * RATE) / RATE
    # 93 of them; 51 crash it.
    bursts = (random.normal(size=len(time)) * (time % 0.45 < 0.2)).astype(np.float32)
    assert score_recording(bursts, bursts, RATE, ["pesq_wb"]).values["pesq_wb"] == pytest.approx(
        4.644, abs=1e-3
    )


def test_more_noise_never_scores_better(spoken: Array) -> None:
    names = scores.available_metrics(ALL)
    clear, worse = (
        score_recording(spoken, noisy(spoken, level), RATE, names).values for level in (0.03, 0.3)
    )
    assert all(clear[name] > worse[name] for name in names)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("pesq_wb", "quarter"), ("stoi", "0.4 s")],
)
def test_a_recording_too_short_for_a_measure_has_no_score_of_it(
    spoken: Array, name: str, reason: str
) -> None:
    if name.startswith("pesq"):
        pytest.importorskip("pesq", reason="PESQ is optional: its package is not installed")
    found = score_recording(spoken[8000:11200], spoken[8000:11200], RATE, [name])
    assert math.isnan(found.values[name])
    assert reason in found.refused[name]


def test_a_silent_side_is_refused_by_pesq_and_si_sdr(spoken: Array) -> None:
    silent = np.zeros_like(spoken)
    names = [name for name in scores.available_metrics(ALL) if "stoi" not in name]
    assert set(score_recording(spoken, silent, RATE, names).refused) == set(names)
    assert set(score_recording(silent, spoken, RATE, names).refused) == set(names)


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


def test_scoring_leaves_the_random_numbers_of_others_alone(spoken: Array) -> None:
    before = mtrand.get_bit_generator().state["state"]["pos"]
    score_recording(spoken, noisy(spoken, 0.3), RATE, ["estoi"])
    assert mtrand.get_bit_generator().state["state"]["pos"] == before


def sound(values: np.ndarray) -> Signal:
    return Signal(values[:, None], rate=16000)


def test_an_error_of_a_tenth_is_twenty_decibels_down() -> None:
    clean = sound(np.random.default_rng(0).standard_normal(800))
    assert fidelity(clean, 0.9 * clean.values)["snr"] == pytest.approx(20)


def test_nothing_is_gained_over_a_sound_without_noise() -> None:
    assert fidelity_gains({"snr": math.inf}, {"snr": 30.0}) == {}
    assert fidelity_gains({"snr": math.inf}, {"snr": math.inf}) == {}


def test_a_measure_that_refuses_says_nothing() -> None:
    clean = sound(np.sin(np.arange(800)))  # too short for PESQ
    assert fidelity(clean, 0.9 * clean.values).keys() == {"snr"}


def test_what_is_gained_is_the_difference_of_what_both_have() -> None:
    before, after = {"snr": 2.0, "pesq_wb": 1.5}, {"snr": 5.0, "pesq_wb": 1.25}
    assert fidelity_gains(before, after) == {"snr_gain": 3.0, "pesq_wb_gain": -0.25}
    assert fidelity_gains({"snr": 2.0}, after) == {"snr_gain": 3.0}
    assert fidelity_gains({"psnr": 20.0}, {"psnr": 30.0}) == {}
