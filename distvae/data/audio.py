"""Reading sound files: decode, mix to one channel, resample, trim and level.

Every bad file is refused. Of the decoders, FLAC's alone notices that the end of a file is missing.
"""

import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from distvae.config import SpeechData
from distvae.data.dataset import Array
from distvae.files.paths import require_memory
from distvae.files.refusal import Refusal
from distvae.files.untrusted import decoding, require_regular_file

if TYPE_CHECKING:
    from soundfile import SoundFile

STANDARD_ERROR = 2
"""The descriptor that libraries in C print to."""
SILENCE = threading.RLock()
"""Held by the thread that has redirected standard error."""
Real = TypeVar("Real", np.float32, np.float64)
MAX_CHANNELS = 64
"""The most channels of a recording; a damaged or hostile header may announce a thousand."""
RATES = (1_000, 1_000_000)
"""The smallest and the largest sampling rate in Hz. Resampling from a smaller rate could make a
signal of any length.
"""
COPIES = 4
"""Copies of the samples that memory holds while a file is read, as numbers of 32 bits."""
SEARCHED = 2**16
"""Bytes at the beginning of a file in which its header is."""
FIRST_FRAME = 2**11
"""Bytes of an MP3 in which its first frame is, where the encoder may write the length."""
PIPED = 2**31 - 1
"""A WAV file announces this number of bytes or more if its writer did not know the length."""
FRAME, HOP = 2048, 512
"""Samples of a frame, and from one frame to the next, where the ends of a signal are trimmed."""
UNREAD = (
    *(".m4a", ".aac", ".mp4", ".wma", ".opus", ".oga", ".webm", ".amr", ".3gp", ".ape"),
    *(".aif", ".aiff", ".au", ".caf", ".sph"),
)
"""Kinds of sound that are not read. Their files in a folder are reported."""


def load_recording(path: Path, config: SpeechData) -> Array:
    """Return the signal of a recording as training sees it. Refuse silence and signals shorter than
    a window.
    """
    return as_trained(path, *decode_audible(path), config)


def as_trained(path: Path, signal: Array, rate: int, config: SpeechData) -> Array:
    """Return a signal as training sees it; refuse a signal shorter than a window."""
    signal = prepare(resample(signal, rate, config.rate), config)
    if len(signal) < config.window:
        raise Refusal(
            f"{path}: {len(signal)} samples at {config.rate} Hz after trimming; {config.window} or"
            " more expected"
        )
    return signal


def decode_audible(path: Path) -> tuple[Array, int]:
    """Return a file's samples, averaged over its channels, and its rate. Refuse a damaged file and
    silence.
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
    """Return a signal scaled as the configuration asks, and the factor that undoes the scaling."""
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
    """Return the samples (N, channels) and the rate of a file; refuse a damaged file."""
    with _opened(path) as sound:
        signal = np.concatenate([np.empty((0, sound.channels), np.float32), *_blocks(path, sound)])
        is_whole = _has_its_end(path, sound, len(signal))
        rate = sound.samplerate
    if not is_whole:
        raise Refusal(f"{path}: truncated; the whole file expected")
    if not np.isfinite(signal).all():
        raise Refusal(f"{path}: holds values that are not finite; finite ones expected")
    return signal, rate


def encoding(path: Path) -> str:
    """Return how the samples of a file are encoded, in libsndfile's words."""
    with _opened(path) as sound:
        return str(sound.subtype)


def head(path: Path) -> tuple[int, float]:
    """Return the rate and the duration in seconds that the header of a file announces."""
    with _opened(path) as sound:
        return sound.samplerate, sound.frames / sound.samplerate


def _has_its_end(path: Path, sound: "SoundFile", samples: int) -> bool:
    """Return whether a decoded file had all the samples that it announces."""
    with path.open("rb") as stream:
        start = stream.read(SEARCHED)
        if sound.format == "MP3":
            stream.seek(_tag_size(start))
            # without such a frame at the beginning, the number of samples is a guess
            return samples >= sound.frames or not re.search(b"Xing|Info", stream.read(FIRST_FRAME))
    if sound.format == "OGG":
        return _ends_ogg(path.read_bytes())
    if sound.format in ("WAV", "WAVEX", "RF64"):
        return path.stat().st_size >= _end_of_wav(start)
    if sound.format == "NIST":
        count = re.search(rb"sample_count -i (\d+)", start)
        return count is None or samples >= int(count[1])
    return bool(samples >= sound.frames)


def _tag_size(start: bytes) -> int:
    """Return the bytes of the ID3 tag at the start of an MP3."""
    if start[:3] != b"ID3":
        return 0
    return 10 + sum(
        (byte & 127) << shift for byte, shift in zip(start[6:10], (21, 14, 7, 0), strict=False)
    )


def _end_of_wav(start: bytes) -> int:
    """Return the place where the samples of a WAV file end, 0 if the file does not say."""
    place = 12
    while place + 8 <= len(start):
        size = int.from_bytes(start[place + 4 : place + 8], "little")
        if start[place : place + 4] == b"data":
            if start[:4] == b"RF64":
                return place + 8 + int.from_bytes(start[28:36], "little")
            return place + 8 + size if size < PIPED else 0
        place += 8 + size + size % 2
    return 0


def _ends_ogg(content: bytes) -> bool:
    """Return whether the last page is complete and marked as the last."""
    page = content[content.rfind(b"OggS") :]
    lengths = page[27 : 27 + page[26]] if len(page) > 27 else b""
    return len(page) >= 27 + len(lengths) + sum(lengths) and page[5] & 4 == 4


@contextmanager
def _opened(path: Path) -> Iterator["SoundFile"]:
    """Open a sound file. Refuse a damaged file, and implausible channels and rates."""
    expected = "an undamaged sound file"
    require_regular_file(path, expected)
    import soundfile

    with decoding(path, expected), _decoder_silent(path):
        try:
            sound = soundfile.SoundFile(path)
        except soundfile.LibsndfileError as error:
            if path.suffix.lower() != ".mp3":
                raise
            # of an MP3, libsndfile says that the file does not exist
            raise Refusal(f"{path}: holds no MPEG audio; {expected} expected") from error
        with sound:
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
    """Silence the decoder of MP3, which prints its complaints in C to standard error."""
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
