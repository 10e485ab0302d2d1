"""Read the picture or sound that windows are cut from, and corrupt it for a benchmark."""

from pathlib import Path

import numpy as np

from distvae.config import PatchData
from distvae.data.audio import resample
from distvae.data.examples import PICTURE, SOUND, example
from distvae.data.signals import Signal, read_signal
from distvae.data.windows.missing import drop_at_random
from distvae.files.refusal import Refusal
from distvae.numerics.array_types import Doubles


def read_source(config: PatchData) -> Signal:
    """Return the picture or sound that a configuration names, or the part of a sound that it asks
    for.
    """
    if not config.path:
        raise Refusal(
            f"data.path: empty; --data PATH expected: a picture, a sound, '{PICTURE}' or '{SOUND}'"
        )
    signal = example(config.path) or read_signal(Path(config.path).expanduser())
    if signal.rate is None:
        return signal
    rate = config.rate or signal.rate
    values: Doubles = resample(signal.values, signal.rate, rate)
    if config.excerpt is not None:
        values = _cut(values, rate, config)
    return signal.with_values(values, rate)


def _cut(values: Doubles, rate: int, config: PatchData) -> Doubles:
    """Return the samples of an excerpt, which the sound must have in full."""
    assert config.excerpt is not None
    start, seconds = config.excerpt
    first, last = round(start * rate), round((start + seconds) * rate)
    if not first < last <= len(values):
        raise Refusal(
            f"data.excerpt: {list(config.excerpt)} of {Path(config.path).name}, which lasts"
            f" {len(values) / rate:g} s; a start and a length in seconds within it expected"
        )
    return values[first:last]


def corrupt(signal: Signal, config: PatchData) -> Signal:
    """Return a signal as a model sees it: with white noise or without some pixels, if the
    configuration asks for it.
    """
    if config.drop:
        gone = drop_at_random(config)(signal)
        return signal.with_values(np.where(gone, np.nan, signal.values))
    level = noise_level(signal, config)
    return signal.noisy(level, config.noise_seed) if level else signal


def noise_level(signal: Signal, config: PatchData) -> float:
    """Return the standard deviation of the noise that `corrupt` adds to a signal."""
    if config.snr is None:
        return config.noise
    return float(np.sqrt(np.square(signal.values).mean())) * 10 ** (-config.snr / 20)
