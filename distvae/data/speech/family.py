"""Speech: rows are power spectra of the frames of recordings."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from distvae.config import DataConfig, SpeechData
from distvae.data.dataset import BUILT_IN, Array, Dataset, FileOrArray, Recording
from distvae.data.family import DataFamily, Values, register, same_place
from distvae.data.remote import fetch
from distvae.data.survey import Survey
from distvae.numerics.array_types import AnyArray
from distvae.numerics.plain_arrays import without_mask


@register(SpeechData)
class SpeechFamily(DataFamily[SpeechData]):
    """Recordings of speech."""

    values = Values(row_name="power spectrum")
    built_in = (BUILT_IN,)
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
        from distvae.data.speech.frames import open_speech

        return open_speech(self.config, quiet)

    def recordings(self) -> tuple[Path, list[Recording]]:
        """Return the root folder and the recordings in it, without broken ones if these are to be
        left out.
        """
        from distvae.data.speech.recordings import find_recordings, skip_broken

        root, found = find_recordings(fetch(self.config))
        return root, skip_broken(root, found, self.config)[0]

    def load(self, path: Path) -> Array:
        """Return the signal of a recording as training sees it."""
        from distvae.data import audio

        return audio.load_recording(path, self.config)

    def load_whole(self, path: Path) -> tuple[Array, float]:
        """Return the untrimmed signal of a recording, scaled as in training, and the factor that
        gives its own level again.
        """
        from distvae.data import audio

        signal = audio.load_recording(path, replace(self.config, trim_db=None, level="keep"))
        return audio.scaled(signal, self.config)

    def rows_of(self, media: FileOrArray, shape: tuple[int, ...]) -> AnyArray:
        """Return the power spectra of a recording or a signal (samples,); of others, the array."""
        from distvae.data.speech.frames import power_of_signal

        if not self._is_signal(media):
            return np.asanyarray(media)
        return power_of_signal(self._scaled(media)[0], self.config)

    def media_of(self, rows: Array, media: FileOrArray, shape: tuple[int, ...]) -> Array:
        """Return a signal with the power of rows and the phase of a recording or a signal."""
        from distvae.data.speech.frames import with_power

        if not self._is_signal(media):
            return rows
        signal, level = self._scaled(media)
        return with_power(rows, signal, self.config) * np.float32(level)

    def _is_signal(self, media: FileOrArray) -> bool:
        """Return whether this is a recording, or an array that holds a signal."""
        return isinstance(media, Path) or (media.ndim == 1 and len(media) >= self.window)

    def _scaled(self, media: FileOrArray) -> tuple[Array, float]:
        """Return a signal scaled as in training, and the factor that gives its own level again."""
        from distvae.data import audio

        if isinstance(media, Path):
            return self.load_whole(media)
        return audio.scaled(
            audio.checked_signal(np.asarray(without_mask(media)), self.config), self.config
        )

    def is_same_data(self, trained_on: DataConfig, digest: str) -> tuple[bool, int]:
        """Tell whether these recordings are those of a run, by how they are read, and by their
        place or else their content, and how many values a row has. No spectra are computed.
        """
        from distvae.data.speech.frames import digest_of

        same = replace(self.config, path=trained_on.path) == trained_on and (
            same_place(self.config.path, trained_on.path) or digest_of(fetch(self.config)) == digest
        )
        return same, self.config.dims

    @classmethod
    def survey(cls, path: str) -> Survey | None:
        """Return what is at a path if it is the built-in speech or a folder of recordings."""
        from distvae.data.speech.survey import survey_recordings

        return survey_recordings(path, decoded=False)

    @classmethod
    def examine(cls, path: str, settings: Sequence[str] = ()) -> Survey | None:
        """Return the same, with every recording decoded."""
        from distvae.data.speech.survey import survey_recordings

        return survey_recordings(path, decoded=True, settings=settings)

    @classmethod
    def next_command(cls, survey: Survey) -> str:
        """Return the command that trains on the recordings."""
        return f"distvae train speech-sdm --data {survey.quoted_path}"
