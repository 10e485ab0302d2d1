"""A recording as one channel at one rate."""

from pathlib import Path

from distvae.data.audio import decode, resample
from distvae.data.dataset import Array


def read_mono(path: Path, rate: int) -> Array:
    """Return the mean of a file's channels at a sampling rate."""
    channels, file_rate = decode(path)
    return resample(channels.mean(axis=1), file_rate, rate)
