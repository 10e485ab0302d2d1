"""Fidelity of sounds: decibels against their definition, and gains over the noisy sound."""

import math

import numpy as np
import pytest

from distvae.data.signals import Signal
from distvae.tasks.fidelity import fidelity, fidelity_gains


def sound(values: np.ndarray) -> Signal:
    return Signal(values[:, None], rate=16000)


def test_an_error_of_a_tenth_is_twenty_decibels_down() -> None:
    clean = sound(np.random.default_rng(0).standard_normal(800))
    assert fidelity(clean, 0.9 * clean.values)["snr"] == pytest.approx(20)


def test_a_perfect_sound_is_infinitely_close() -> None:
    clean = sound(np.sin(np.arange(800)))
    assert fidelity(clean, clean.values)["snr"] == math.inf


def test_of_a_silent_reference_nothing_is_told() -> None:
    assert fidelity(sound(np.zeros(800)), np.ones((800, 1))) == {}


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
