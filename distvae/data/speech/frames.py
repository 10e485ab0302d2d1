"""Power spectra of recordings: computed side by side once, kept by content, memory-mapped ever
after.
"""

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import torch

from distvae.config import SpeechData
from distvae.data import audio, files, folders
from distvae.data.broken import hinting_at_broken
from distvae.data.dataset import BUILT_IN, Array, Dataset, Recording
from distvae.data.speech import recordings, stft, synthesiser
from distvae.data.splits import SPLITS
from distvae.data.tables import arrow
from distvae.numerics.arithmetic import torch_threads

FORMAT = 2  # of the cached files; a change makes old ones unknown
TABLE = "recordings.csv"


def open_speech(config: SpeechData, quiet: bool = False) -> Dataset:
    """Return the power spectra of a folder of recordings by split, cached or computed now."""
    root, everything = recordings.find_recordings(config)
    found, skipped = recordings.skip_broken(root, everything, config, quiet)
    key = _key(root, found, config)
    folder = folders.cache_folder() / "frames" / key
    folders.build_once(folder, lambda part: _build(part, root, found, config, quiet))
    splits = {split: arrow.read_arrow(folder / f"{split}.arrow") for split in SPLITS}
    unnamed = recordings.without_speakers(root, everything, config)
    note = "; ".join(filter(None, (recordings.left_out(root, config), unnamed, skipped)))
    name = f"{_name(root)}: {note}" if note else _name(root)
    return Dataset(name, "frame", key, splits, root, tuple(found), _lengths(folder))


def digest_of(config: SpeechData) -> str:
    """Return the digest of the data, of which no spectra are computed."""
    root, everything = recordings.find_recordings(config)
    return _key(root, recordings.skip_broken(root, everything, config)[0], config)


def power_of_signal(signal: Array, config: SpeechData) -> Array:
    """Return the power spectrum (frames, bins) of a signal."""
    spectrum = stft.Stft(config.window, config.hop).spectrum(torch.from_numpy(signal))
    return np.asarray(stft.power(spectrum).contiguous().numpy())


def with_power(power: Array, signal: Array, config: SpeechData) -> Array:
    """Return a signal with this power (frames, bins) and the phase of a signal."""
    transform = stft.Stft(config.window, config.hop)
    phase = transform.spectrum(torch.from_numpy(signal)).angle()
    found = torch.polar(torch.from_numpy(power).clamp_min(0).sqrt(), phase)
    return np.asarray(transform.signal(found, len(signal)).numpy())


def _power(root: Path, recording: Recording, config: SpeechData) -> Array:
    path = root / recording.file
    with hinting_at_broken(root, config.skip_broken):
        signal, rate = audio.decode_audible(path)
    return power_of_signal(audio.as_trained(path, signal, rate, config), config)


def _name(root: Path) -> str:
    return BUILT_IN if root == synthesiser.place() else root.name


def _key(root: Path, found: list[Recording], config: SpeechData) -> str:
    """Return a digest of the recordings, their speakers and splits, and the parameters that shape
    their frames.
    """
    digests = files.digests(root / recording.file for recording in found)
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
        frames = files.map_in_order(lambda recording: _power(root, recording, config), found)
        computed = zip(found, frames, strict=True)
        with torch_threads(1):  # torch would start a team of its own in each of ours
            for recording, block in files.with_progress(
                computed, "Power spectra of recordings", len(found), quiet
            ):
                raw[recording.split].write(block.data)
                lengths.append(len(block))
    finally:
        for stream in raw.values():
            stream.close()
    for split in SPLITS:
        arrow.wrap(part / f"{split}.raw", part / f"{split}.arrow", config.bins)
    _write_table(part / TABLE, found, lengths)


def _write_table(path: Path, found: list[Recording], lengths: list[int]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", "speaker", "split", "frames"])
        writer.writerows(
            (r.file, r.speaker, r.split, n) for r, n in zip(found, lengths, strict=True)
        )


def _lengths(folder: Path) -> tuple[int, ...]:
    with (folder / TABLE).open(newline="", encoding="utf-8") as stream:
        return tuple(int(row["frames"]) for row in csv.DictReader(stream))
