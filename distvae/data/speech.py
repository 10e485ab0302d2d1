"""Speech: rows are power spectra of the frames of recordings, computed once in threads, cached by
content, and memory-mapped.
"""

import csv
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distvae.config import DataConfig, SpeechData
from distvae.config.schema import POWER_FLOOR
from distvae.data import audio, folders, recordings, synthesiser
from distvae.data.dataset import BUILT_IN, Array, Dataset, FileOrArray, Recording
from distvae.data.family import (
    DataFamily,
    Survey,
    Values,
    checked_config,
    family_of,
    register,
    same_place,
)
from distvae.data.folders import SPLITS, fetch, hinting_at_broken
from distvae.files import storage
from distvae.files.paths import SOUNDS
from distvae.files.refusal import Refusal
from distvae.files.untrusted import Plain
from distvae.numerics.arithmetic import torch_threads
from distvae.numerics.arrays import AnyArray, without_mask
from distvae.numerics.metrics import counted

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
    return folders.key_of([FORMAT, shape, content])


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
        storage.wrap_raw(part / f"{split}.raw", part / f"{split}.arrow", config.bins)
    with (part / TABLE).open("w", newline="", encoding="utf-8") as table:
        writer = csv.writer(table)
        writer.writerow(["file", "speaker", "split", "frames"])
        for recording, length in zip(found, lengths, strict=True):
            writer.writerow((recording.file, recording.speaker, recording.split, length))


@register(SpeechData)
class SpeechFamily(DataFamily[SpeechData]):
    """Recordings of speech."""

    values = Values(row_name="power spectrum")
    built_in = (BUILT_IN,)
    reads_media = True
    dividing = ("split", "split_seed", "val", "test")

    @property
    def rate(self) -> int:
        """Sampling rate in Hz."""
        return self.config.rate

    @property
    def window(self) -> int:
        """Samples of a frame."""
        return self.config.window

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""
        return self.config.hop

    def open(self, quiet: bool = False) -> Dataset:
        """Return the power spectra by split, computed now or read from the cache."""
        config = self.config
        root, everything = recordings.find_recordings(config)
        found, skipped = recordings.skip_broken(root, everything, config, quiet)
        key = _key(root, found, config)
        folder = folders.cache_folder() / "frames" / key
        folders.build_once(folder, lambda part: _build(part, root, found, config, quiet))
        splits = {split: storage.read_arrow(folder / f"{split}.arrow") for split in SPLITS}
        with (folder / TABLE).open(newline="", encoding="utf-8") as stream:
            lengths = tuple(int(row["frames"]) for row in csv.DictReader(stream))
        unnamed = recordings.without_speakers(root, everything, config)
        note = "; ".join(filter(None, (recordings.left_out(root, config), unnamed, skipped)))
        name = BUILT_IN if root == synthesiser.place() else root.name
        name = f"{name}: {note}" if note else name
        return Dataset(name, "frame", key, splits, root, tuple(found), lengths)

    def recordings(self) -> tuple[Path, list[Recording]]:
        """Return the root folder and its recordings, without broken ones if data.skip_broken asks
        for it.
        """
        root, found = recordings.find_recordings(fetch(self.config))
        return root, recordings.skip_broken(root, found, self.config)[0]

    def load(self, path: Path) -> Array:
        """Return the signal of a recording as training sees it."""
        return audio.load_recording(path, self.config)

    def load_whole(self, path: Path) -> tuple[Array, float]:
        """Return the untrimmed signal of a recording, scaled as in training, and the factor that
        undoes the scaling.
        """
        signal = audio.load_recording(path, replace(self.config, trim_db=None, level="keep"))
        return audio.scaled(signal, self.config)

    def rows_of(self, media: FileOrArray, shape: tuple[int, ...]) -> AnyArray:
        """Return the power spectra of a recording or a signal (samples,), or an array of rows as
        it is.
        """
        if not self._is_signal(media):
            return np.asanyarray(media)
        return power_of_signal(self._scaled(media)[0], self.config)

    def media_of(self, rows: Array, media: FileOrArray, shape: tuple[int, ...]) -> Array:
        """Return a signal with the power of rows and the phase of a recording or a signal."""
        if not self._is_signal(media):
            return rows
        signal, level = self._scaled(media)
        return with_power(rows, signal, self.config) * np.float32(level)

    def _is_signal(self, media: FileOrArray) -> bool:
        """Return whether media are a recording or a signal, and not rows."""
        return isinstance(media, Path) or (media.ndim == 1 and len(media) >= self.window)

    def _scaled(self, media: FileOrArray) -> tuple[Array, float]:
        """Return a signal scaled as in training, and the factor that undoes the scaling."""
        if isinstance(media, Path):
            return self.load_whole(media)
        signal = audio.checked_signal(np.asarray(without_mask(media)), self.config)
        return audio.scaled(signal, self.config)

    def is_same_data(self, trained_on: DataConfig, digest: str) -> tuple[bool, int]:
        """Tell whether these recordings are the recordings of a run, and how many values a row has.

        The settings are compared, and the place or else the content. No spectra are computed.
        """
        same = replace(self.config, path=trained_on.path) == trained_on and (
            same_place(self.config.path, trained_on.path)
            or _key(*self.recordings(), self.config) == digest
        )
        return same, self.config.dims

    @classmethod
    def survey(cls, path: str) -> Survey | None:
        """Return the survey of the built-in speech or of a folder of recordings."""
        return cls.examine(path, decoded=False)

    @classmethod
    def examine(
        cls, path: str, settings: Sequence[str] = (), decoded: bool = True
    ) -> Survey | None:
        """Return the same survey under some settings, after every recording was decoded."""
        root = synthesiser.folder() if path == BUILT_IN else Path(path)
        if not root.is_dir() or not folders.list_files(root, SOUNDS):
            return None
        config: SpeechData = checked_config("speech", path, settings)
        names = recordings.sound_files(root)
        is_told = config.speakers != "auto" or (root / recordings.TABLE).is_file()
        layout = None if is_told else recordings.recognise(names)
        wrong = []
        if layout is None:
            found = recordings.find_speakers(root, config)
        else:
            found = recordings.speakers_of_corpus(layout, root, filter(layout.match, names))
            stray = [name for name in names if not (layout.match(name) or layout.is_beside(name))]
            if stray:
                lead = f"{len(stray)} files lie where {layout.name} has no recording"
                wrong.append(f"{lead}: {folders.some_names(stray)}")
        try:
            found = recordings.assign_splits(found, config)
        except Refusal as refusal:
            wrong.append(str(refusal))

        split_of = {each.file: each.split for each in found}
        decode, skip = audio.decode_audible, config.skip_broken
        seen = folders.inspect(root, split_of, audio.head, decode, decoded, skip)
        found = [each for each in found if each.file not in seen.left_out]
        unnamed = recordings.without_speakers(root, found, config)
        wrong += filter(
            None, (recordings.left_out(root, config), unnamed, _short(seen.heads, config))
        )

        rate_counts = Counter(rate for rate, _ in seen.heads.values())
        facts: dict[str, Plain] = {
            "speakers": len({each.speaker for each in found}),
            "rates": {str(rate): count for rate, count in rate_counts.most_common()},
        }
        if seen.note:
            facts["left out"] = seen.note
        splits: dict[str, dict[str, float]] = {}
        for split in ("", *SPLITS):
            chosen = [each for each in found if each.split == split and each.file in seen.heads]
            if chosen:
                splits[split] = {
                    "recordings": len(chosen),
                    "speakers": len({each.speaker for each in chosen}),
                    "hours": math.fsum(seen.heads[each.file][1] for each in chosen) / 3600,
                }
        title = layout.name if layout else "a tree of recordings"
        return Survey(
            path, title, "speech", splits, facts, tuple(wrong), seen.unreadable, tuple(settings)
        )

    @classmethod
    def next_command(cls, survey: Survey) -> str:
        """Return the command that trains on the recordings."""
        return f"distvae train speech --data {survey.quoted_path}"


def recordings_of(config: DataConfig) -> SpeechFamily | None:
    """Return the data as recordings, or None if it is something else."""
    family = family_of(config)
    return family if isinstance(family, SpeechFamily) else None


def _short(heads: Mapping[str, tuple[int, float]], config: SpeechData) -> str:
    """Return a note on the recordings that are shorter than a window, or ''."""
    short = [
        file for file, (_, seconds) in heads.items() if round(seconds * config.rate) < config.window
    ]
    if not short:
        return ""
    return (
        f"{counted(len(short), 'recording')} shorter than a window of {config.window} samples at"
        f" {config.rate:,} Hz, which training refuses: {folders.some_names(short)}"
    )
