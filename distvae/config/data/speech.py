"""Settings of speech."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from distvae.config.registry import family
from distvae.config.schema import Range
from distvae.config.values import Count, Positive, Share, Whole
from distvae.files.refusal import Refusal

MAX_OVERLAP = 64
"""The most frames that share a sample. Frames that overlap more are nearly alike, and computing and
storing them would take a day and a disk.
"""
CSV = "csv:"
"""The prefix of `speakers` that names a table."""


@family("data")
@dataclass(frozen=True)
class SpeechData:
    """Power spectra of recordings, one row per frame."""

    kind: ClassVar[str] = "speech"
    path: str = ""
    """A folder of wav, flac, ogg or mp3 files, or `built-in speech`. Empty: $DISTVAE_DATA if it is
    set, otherwise the built-in speech.
    """
    rate: Annotated[int, Range(4000, 192000)] = 16000
    """Sampling rate in Hz to which all recordings are resampled."""
    window: Annotated[int, Range(16, 65536)] = 1024
    """Length of the sine window in samples."""
    hop: Count = 256
    """Samples from one frame to the next. It must divide the window."""
    trim_db: Positive | None = 30.0
    """Cut leading and trailing parts this many dB below the loudest part; null keeps them."""
    level: Literal["peak", "keep"] = "peak"
    """Divide each recording by its largest sample, or keep its level."""
    speakers: str = "auto"
    """How speakers are found: `folder`, `pattern:REGEX` with one group, or `csv:FILE`. `auto` uses
    speakers.csv if there is one, then the layout of a published corpus, then the folders; without
    folders each recording counts as a speaker.
    """
    split: Literal["auto", "given", "seeded", "loose"] = "auto"
    """Where the split comes from. `given`: the table or the top folders (train, val, test).
    `seeded`: speakers are drawn at random. `auto`: given if there is one, otherwise seeded.

    `loose` needs no split: recordings without one count as test. It is meant for evaluating and
    encoding.
    """
    split_seed: Whole = 0
    """Seed of a drawn split."""
    val: Share = 0.15
    """Share of the speakers used for validation when the split is drawn."""
    test: Share = 0.15
    """Share of the speakers used for testing when the split is drawn."""
    skip_broken: bool = False
    """Leave out recordings that cannot be decoded or are silent, instead of refusing the folder.
    The split of the remaining recordings does not change.
    """

    def __post_init__(self) -> None:
        """Refuse fields that do not fit each other."""
        if self.window % self.hop or self.hop * 2 > self.window:
            raise Refusal(
                f"data.hop: {self.hop} does not divide data.window = {self.window} at least twice"
            )
        if self.hop * MAX_OVERLAP < self.window:
            smallest = -(-self.window // MAX_OVERLAP)
            raise Refusal(
                f"data.hop: {self.hop} with data.window = {self.window}; at least {smallest}"
                " expected"
            )
        if self.val + self.test >= 1:
            raise Refusal(f"data.val + data.test: {self.val + self.test:g}; less than 1 expected")

    @property
    def bins(self) -> int:
        """Frequencies of a frame."""
        return self.window // 2 + 1

    @property
    def dims(self) -> int:
        """Values of a row."""
        return self.bins
