"""Sound files to signals: decoded, mixed to one channel, resampled, trimmed and levelled; every bad file refused."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from distvae.config import SpeechData
from distvae.data.dataset import Array
from distvae.refusal import Refusal

if TYPE_CHECKING:
    from soundfile import SoundFile

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
WAV = ("WAV", "WAVEX")
"""What libsndfile calls that format."""


def load(path: Path, config: SpeechData) -> Array:
    """The signal of a recording as training sees it; silence and what is shorter than a window are refused."""
    signal = read(path, config.rate)
    if len(signal) and not signal.any():
        raise Refusal(f"{path}: silent; leave it out")
    signal = prepare(signal, config)
    if len(signal) < config.window:
        raise Refusal(
            f"{path}: {len(signal)} samples at {config.rate} Hz after trimming; {config.window} or more expected"
        )
    return signal


def read(path: Path, rate: int) -> Array:
    """A file's samples, the mean of its channels, at a sampling rate; a damaged file is refused."""
    channels, own_rate = decode(path)
    signal: Array = channels.mean(axis=1)
    if own_rate == rate or not len(signal):
        return signal
    import soxr

    return np.asarray(soxr.resample(signal, own_rate, rate, quality="VHQ"))


def prepare(signal: Array, config: SpeechData) -> Array:
    """Level a signal by its peak, cut its quiet ends: each as the configuration asks."""
    if config.level == "peak" and signal.any():
        signal = signal / np.abs(signal).max()
    return signal if config.trim_db is None else trim(signal, config.trim_db)


def trim(signal: Array, top_db: float, frame: int = 2048, hop: int = 512) -> Array:
    """Cut the ends whose frames lie `top_db` below the loudest: librosa.effects.trim, without its import of seconds."""
    padded = np.pad(signal, frame // 2)
    power = np.square(np.lib.stride_tricks.sliding_window_view(padded, frame)[::hop]).mean(-1)
    (loud,) = np.nonzero(power > power.max() * 10 ** (-top_db / 10))
    return signal[loud[0] * hop : (loud[-1] + 1) * hop] if len(loud) else signal[:0]


def decode(path: Path) -> tuple[Array, int]:
    """The samples (N, channels) and the rate of a file; a damaged one is refused."""
    import soundfile

    _refuse_unreadable(path)
    try:
        with soundfile.SoundFile(path) as sound:
            signal = np.concatenate([np.empty((0, sound.channels), np.float32), *_blocks(sound)])
            whole = _whole(path, sound, len(signal))
            rate = sound.samplerate
    except (soundfile.LibsndfileError, OSError, UnicodeEncodeError) as error:
        raise Refusal(f"{path}: cannot be decoded ({_reason(error)}); an undamaged sound file expected") from error
    if not whole:
        raise Refusal(f"{path}: truncated; the whole file expected")
    if not np.isfinite(signal).all():
        raise Refusal(f"{path}: holds values that are not finite; leave it out")
    return signal, rate


def head(path: Path) -> tuple[int, float]:
    """The rate and the seconds that a file announces, its samples not decoded; a WAV that is cut short is refused."""
    import soundfile

    _refuse_unreadable(path)
    try:
        info = soundfile.info(path)
    except (soundfile.LibsndfileError, OSError, UnicodeEncodeError) as error:
        raise Refusal(f"{path}: cannot be decoded ({_reason(error)}); an undamaged sound file expected") from error
    if info.format in WAV and _cut(info.extra_info):
        raise Refusal(f"{path}: truncated; the whole file expected")
    return info.samplerate, info.frames / info.samplerate


def _refuse_unreadable(path: Path) -> None:
    try:
        path.open("rb").close()
    except OSError as error:
        raise Refusal(f"{path}: {error.strerror}; a sound file that can be read expected") from error


def _blocks(sound: "SoundFile") -> Iterator[Array]:
    """Piece by piece: a damaged header announces any length."""
    while len(block := sound.read(2**20, dtype="float32", always_2d=True)):
        yield block


def _reason(error: Exception) -> str:
    return str(getattr(error, "error_string", error)).strip().rstrip(".")


def _whole(path: Path, sound: "SoundFile", samples: int) -> bool:
    """Whether a file holds all that it announces; libsndfile itself notices only in FLAC."""
    if sound.format in WAV:
        return not _cut(sound.extra_info)
    if sound.format == "OGG" and not _ends_ogg(path.read_bytes()):
        return False
    if sound.format == "MP3" and not re.search(b"Xing|Info", path.read_bytes()):
        return True  # no frame count was written: what `sound.frames` says is a guess
    return bool(samples >= sound.frames)


def _cut(told: str) -> bool:
    """Whether libsndfile tells of fewer bytes in a WAV file than its header announces."""
    wrong = re.search(r"data : (\d+) \(should be (\d+)\)", told)
    pipe = 2**31 - 1  # or more is announced where the writer did not know
    return wrong is not None and int(wrong[2]) < int(wrong[1]) < pipe


def _ends_ogg(content: bytes) -> bool:
    """Whether the last page is complete and says that it is the last."""
    page = content[content.rfind(b"OggS") :]
    lengths = page[27 : 27 + page[26]] if len(page) > 27 else b""
    return len(page) >= 27 + len(lengths) + sum(lengths) and page[5] & 4 == 4
