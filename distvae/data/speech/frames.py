"""Power spectra of recordings: computed once in threads, cached by content, and memory-mapped.

The short-time Fourier transform has an exact inverse, and both training and scoring use it.
"""

import csv
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distvae.config import SpeechData
from distvae.config.values import POWER_FLOOR
from distvae.data import audio, folders
from distvae.data.dataset import BUILT_IN, Array, Dataset, Recording
from distvae.data.folders import SPLITS, hinting_at_broken
from distvae.data.speech import recordings, synthesiser
from distvae.data.tables import rows as tables
from distvae.numerics.arithmetic import torch_threads

FORMAT = 2
"""Version of the cached files. Another version computes the spectra again."""
TABLE = "recordings.csv"


@dataclass(frozen=True)
class Stft:
    """Frames under a symmetric sine window, un-normalised, centred on multiples of the hop. The
    signal is reflected at its ends.

    The inverse is exact to the last digits of float32. At a hop of half the window it is exact to
    3e-5, because only the window's edge sees the last samples of a signal.
    """

    window: int
    hop: int

    def frames(self, samples: int) -> int:
        """Return the number of frames of a signal with a number of samples."""
        return (samples + 2 * (self.window // 2) - self.window) // self.hop + 1

    def spectrum(self, signal: Tensor) -> Tensor:
        """Return the complex spectrum (..., frames, bins) of a signal (..., samples) longer than
        half a window.
        """
        spectrum = torch.stft(
            signal,
            self.window,
            self.hop,
            window=self._sine(signal),
            pad_mode="reflect",
            return_complex=True,
        )
        return spectrum.mT

    def signal(self, spectrum: Tensor, length: int) -> Tensor:
        """Return the signal (..., length) of a spectrum (..., frames, bins) by overlap and add."""
        return torch.istft(
            spectrum.mT, self.window, self.hop, window=self._sine(spectrum.real), length=length
        )

    def _sine(self, like: Tensor) -> Tensor:
        phase = (torch.arange(self.window, dtype=torch.float64) + 0.5) * (torch.pi / self.window)
        return phase.sin().to(like)


def power(spectrum: Tensor) -> Tensor:
    """Return |X|^2 with a floor, because recordings hold digital silence."""
    return torch.view_as_real(spectrum).square().sum(-1).clamp_min(POWER_FLOOR)


def open_speech(config: SpeechData, quiet: bool = False) -> Dataset:
    """Return the power spectra of a folder of recordings by split, cached or computed now."""
    root, everything = recordings.find_recordings(config)
    found, skipped = recordings.skip_broken(root, everything, config, quiet)
    key = _key(root, found, config)
    folder = folders.cache_folder() / "frames" / key
    folders.build_once(folder, lambda part: _build(part, root, found, config, quiet))
    splits = {split: tables.read_arrow(folder / f"{split}.arrow") for split in SPLITS}
    unnamed = recordings.without_speakers(root, everything, config)
    note = "; ".join(filter(None, (recordings.left_out(root, config), unnamed, skipped)))
    name = BUILT_IN if root == synthesiser.place() else root.name
    name = f"{name}: {note}" if note else name
    return Dataset(name, "frame", key, splits, root, tuple(found), _lengths(folder))


def digest_of(config: SpeechData) -> str:
    """Return the digest of the data. No spectra are computed."""
    root, everything = recordings.find_recordings(config)
    return _key(root, recordings.skip_broken(root, everything, config)[0], config)


def power_of_signal(signal: Array, config: SpeechData) -> Array:
    """Return the power spectrum (frames, bins) of a signal."""
    spectrum = Stft(config.window, config.hop).spectrum(torch.from_numpy(signal))
    return np.asarray(power(spectrum).contiguous().numpy())


def with_power(power: Array, signal: Array, config: SpeechData) -> Array:
    """Return a signal with this power (frames, bins) and the phase of a signal."""
    transform = Stft(config.window, config.hop)
    phase = transform.spectrum(torch.from_numpy(signal)).angle()
    found = torch.polar(torch.from_numpy(power).clamp_min(0).sqrt(), phase)
    return np.asarray(transform.signal(found, len(signal)).numpy())


def _power(root: Path, recording: Recording, config: SpeechData) -> Array:
    path = root / recording.file
    with hinting_at_broken(root, config.skip_broken):
        signal, rate = audio.decode_audible(path)
    return power_of_signal(audio.as_trained(path, signal, rate, config), config)


def _key(root: Path, found: list[Recording], config: SpeechData) -> str:
    """Return a digest of the recordings, their speakers and splits, and the settings of frames."""
    digests = folders.digests(root / recording.file for recording in found)
    content = [
        (r.file, r.speaker, r.split, digest) for r, digest in zip(found, digests, strict=True)
    ]
    shape = [config.rate, config.window, config.hop, config.trim_db, config.level]
    return hashlib.sha256(json.dumps([FORMAT, shape, content]).encode()).hexdigest()


def _build(part: Path, root: Path, found: list[Recording], config: SpeechData, quiet: bool) -> None:
    """Write the frames of every split and the table of recordings into a folder."""
    raw = {split: (part / f"{split}.raw").open("wb") for split in SPLITS}
    lengths = []
    try:
        frames = folders.map_in_order(lambda recording: _power(root, recording, config), found)
        computed = zip(found, frames, strict=True)
        with torch_threads(1):  # torch would start threads in each of these threads
            for recording, block in folders.with_progress(
                computed, "Power spectra of recordings", len(found), quiet
            ):
                raw[recording.split].write(block.data)
                lengths.append(len(block))
    finally:
        for stream in raw.values():
            stream.close()
    for split in SPLITS:
        tables.wrap(part / f"{split}.raw", part / f"{split}.arrow", config.bins)
    with (part / TABLE).open("w", newline="", encoding="utf-8") as table:
        writer = csv.writer(table)
        writer.writerow(["file", "speaker", "split", "frames"])
        for recording, length in zip(found, lengths, strict=True):
            writer.writerow((recording.file, recording.speaker, recording.split, length))


def _lengths(folder: Path) -> tuple[int, ...]:
    with (folder / TABLE).open(newline="", encoding="utf-8") as stream:
        return tuple(int(row["frames"]) for row in csv.DictReader(stream))
