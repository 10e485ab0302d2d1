"""Reading sound files: decode, mix to one channel, resample, trim and level. Every bad file is
refused.
"""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from distvae.config import SpeechData
from distvae.data import endings
from distvae.data.dataset import Array
from distvae.files.memory import require_memory
from distvae.files.refusal import Refusal
from distvae.files.untrusted import decoding, require_regular_file

if TYPE_CHECKING:
    from soundfile import SoundFile

STANDARD_ERROR = 2
"""The descriptor that libraries in C print to."""
SILENCE = threading.RLock()
"""Held by the thread that has turned that descriptor away."""
Real = TypeVar("Real", np.float32, np.float64)
MAX_CHANNELS = 64
"""The most channels of a recording; a damaged or hostile header may announce a thousand."""
RATES = (1_000, 1_000_000)
"""The least and the largest sampling rate in Hz; from a smaller one, resampling would make any
length.
"""
COPIES = 4
"""Copies of the samples that memory holds while a file is read, as numbers of 32 bits."""
FRAME, HOP = 2048, 512
"""Samples of a frame whose loudness decides where a signal begins, and from one to the next."""
UNREAD = (
    *(".m4a", ".aac", ".mp4", ".wma", ".opus", ".oga", ".webm", ".amr", ".3gp", ".ape"),
    *(".aif", ".aiff", ".au", ".caf", ".sph"),
)
"""Kinds of sound that are not read here; files of a folder that are left out are reported."""


def load_recording(path: Path, config: SpeechData) -> Array:
    """Return the signal of a recording as training sees it. Refuse silence and signals shorter than
    a window.
    """
    return as_trained(path, *decode_audible(path), config)


def as_trained(path: Path, signal: Array, rate: int, config: SpeechData) -> Array:
    """Return the signal of a file as training sees it; refuse one shorter than a window."""
    signal = prepare(resample(signal, rate, config.rate), config)
    if len(signal) < config.window:
        raise Refusal(
            f"{path}: {len(signal)} samples at {config.rate} Hz after trimming; {config.window} or"
            " more expected"
        )
    return signal


def decode_audible(path: Path) -> tuple[Array, int]:
    """Return a file's samples, averaged over its channels, and its rate. Refuse a damaged file and
    one whose average is silent.
    """
    channels, rate = decode(path)
    signal = channels.mean(axis=1)
    if len(signal) and not signal.any():
        raise Refusal(f"{path}: silent; a sound expected")
    return signal, rate


def resample(signal: NDArray[Real], rate: int, wanted: int) -> NDArray[Real]:
    """Return a signal (samples, ...) at another sampling rate."""
    if rate == wanted or not len(signal):
        return signal
    import soxr

    resampled: NDArray[Real] = soxr.resample(signal, rate, wanted, quality="VHQ")
    return resampled


def prepare(signal: Array, config: SpeechData) -> Array:
    """Return a signal scaled to its peak and trimmed, as the configuration asks."""
    if config.level == "peak" and signal.any():
        signal = signal / np.abs(signal).max()
    return signal if config.trim_db is None else trim(signal, config.trim_db)


def checked_signal(signal: NDArray[np.generic], config: SpeechData) -> Array:
    """Return a caller's signal (samples,) at the rate of the configuration, or refuse it."""
    if signal.ndim != 1 or signal.dtype.kind not in "fiu":
        raise Refusal(
            f"signal: {signal.dtype} of shape {signal.shape}; real numbers (samples,) expected"
        )
    if len(signal) < config.window:
        raise Refusal(
            f"signal: {len(signal)} samples; {config.window} or more expected, which is a window"
        )
    if not np.isfinite(signal).all():
        raise Refusal("signal: holds values that are not finite; finite ones expected")
    if not signal.any():
        raise Refusal("signal: silent; a sound expected")
    with np.errstate(over="ignore"):
        narrow = signal.astype(np.float32)
    if not (narrow.any() and np.isfinite(narrow).all()):
        raise Refusal(
            f"signal: samples of up to {np.abs(signal).max():g}; others that 32 bits hold expected"
        )
    return narrow


def scaled(signal: Array, config: SpeechData) -> tuple[Array, float]:
    """Return a signal scaled as the configuration asks, and the factor that gives its own level
    again.
    """
    level = float(np.abs(signal).max()) if config.level == "peak" else 1.0
    return signal / np.float32(level), level


def trim(signal: Array, top_db: float) -> Array:
    """Cut the ends whose frames lie `top_db` below the loudest. This is librosa.effects.trim
    without importing librosa, which takes seconds.
    """
    padded = np.pad(signal, FRAME // 2)
    power = np.square(np.lib.stride_tricks.sliding_window_view(padded, FRAME)[::HOP]).mean(-1)
    (loud,) = np.nonzero(power > power.max() * 10 ** (-top_db / 10))
    return signal[loud[0] * HOP : (loud[-1] + 1) * HOP] if len(loud) else signal[:0]


def decode(path: Path) -> tuple[Array, int]:
    """Return the samples (N, channels) and the rate of a file; refuse a damaged one."""
    with _opened(path) as sound:
        signal = np.concatenate([np.empty((0, sound.channels), np.float32), *_blocks(path, sound)])
        whole = endings.is_whole(path, sound, len(signal))
        rate = sound.samplerate
    if not whole:
        raise Refusal(f"{path}: truncated; the whole file expected")
    if not np.isfinite(signal).all():
        raise Refusal(f"{path}: holds values that are not finite; finite ones expected")
    return signal, rate


def encoding(path: Path) -> str:
    """Return how the samples of a file are encoded, in libsndfile's words."""
    with _opened(path) as sound:
        return str(sound.subtype)


def head(path: Path) -> tuple[int, float]:
    """Return the rate and the duration in seconds that a file announces, without decoding it.
    Refuse a truncated file.
    """
    with _opened(path) as sound:
        if not endings.reaches_its_end(path, sound):
            raise Refusal(f"{path}: truncated; the whole file expected")
        return sound.samplerate, sound.frames / sound.samplerate


@contextmanager
def _opened(path: Path) -> Iterator["SoundFile"]:
    """Open a sound file. Refuse a damaged file, or one with implausible channels or rates, by its
    name.
    """
    import soundfile

    expected = "an undamaged sound file"
    require_regular_file(path, expected)
    with decoding(path, expected):
        if path.suffix.lower() == ".mp3" and not endings.is_mpeg(path):
            raise Refusal(
                f"{path}: holds no MPEG audio, whatever its name says; {expected} expected"
            )
        with _decoder_silent(path), soundfile.SoundFile(path) as sound:
            if sound.channels > MAX_CHANNELS:
                raise Refusal(f"{path}: {sound.channels} channels; {MAX_CHANNELS} at most expected")
            if not RATES[0] <= sound.samplerate <= RATES[1]:
                wanted = f"{RATES[0]:,} to {RATES[1]:,} Hz"
                raise Refusal(
                    f"{path}: a sampling rate of {sound.samplerate:,} Hz; {wanted} expected"
                )
            yield sound


@contextmanager
def _decoder_silent(path: Path) -> Iterator[None]:
    """Keep what the decoder of MP3 prints about a file from the terminal: faults are refused here.

    It writes to the descriptor of standard error, so nothing else may be written meanwhile.
    """
    if path.suffix.lower() != ".mp3":
        yield
        return
    with SILENCE:
        sys.stderr.flush()
        kept = os.dup(STANDARD_ERROR)
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), STANDARD_ERROR)
        try:
            yield
        finally:
            os.dup2(kept, STANDARD_ERROR)
            os.close(kept)


def _blocks(path: Path, sound: "SoundFile") -> Iterator[Array]:
    """Yield the samples in blocks. A damaged header may announce any length, and a small file may
    decode to a large one.
    """
    held = 0
    while len(block := sound.read(2**20 // sound.channels, dtype="float32", always_2d=True)):
        held += block.nbytes
        require_memory(path, COPIES * held, "its samples")
        yield block
