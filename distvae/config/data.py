"""Families of data."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from distvae.config.registry import family
from distvae.config.schema import Range
from distvae.config.values import Count, NonNegative, Positive, Share, Whole, Widths
from distvae.files.refusal import Refusal

OVERLAPS = 64
"""Frames that a sample may be in; more of them are nearly alike, and take the disk and a day."""


class Pictures:
    """What data points that are pictures have in common."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, height, width) of a data point."""
        raise NotImplementedError

    @property
    def dims(self) -> int:
        """Values of a data point."""
        return math.prod(self.shape)


@family("data")
@dataclass(frozen=True)
class SpeechData:
    """Power spectra of recordings, one frame a data point."""

    kind: ClassVar[str] = "speech"
    path: str = ""
    """A folder of wav, flac, ogg or mp3, or `built-in speech`; empty: $DISTVAE_DATA, else the
    built-in speech.
    """
    rate: Annotated[int, Range(4000, 192000)] = 16000
    """Sampling rate in Hz everything is resampled to."""
    window: Annotated[int, Range(16, 65536)] = 1024
    """Samples in the sine window."""
    hop: Count = 256
    """Samples from one frame to the next; it must divide the window."""
    trim_db: Positive | None = 30.0
    """Cut leading and trailing parts this many dB below the loudest; null keeps them."""
    level: Literal["peak", "keep"] = "peak"
    """Divide each recording by its largest sample, or keep it."""
    speakers: str = "auto"
    """folder | pattern:REGEX with one group | csv:FILE; auto: speakers.csv, a published corpus'
    layout, or folder.
    """
    split: Literal["auto", "given", "seeded", "loose"] = "auto"
    """Where the split comes from: the table or the top folders (train, val, test), or speakers
    drawn with a seed.

    `loose` asks for none: what was given a split keeps it, everything else is test. It serves
    judging and encoding.
    """
    split_seed: Whole = 0
    val: Share = 0.15
    """Share of the speakers to validate on, when the split is drawn."""
    test: Share = 0.15
    """Share of the speakers to test on, when the split is drawn."""

    def __post_init__(self) -> None:
        """Refuse what no single field shows."""
        if self.window % self.hop or self.hop * 2 > self.window:
            raise Refusal(
                f"data.hop: {self.hop} does not divide data.window = {self.window} at least twice"
            )
        if self.hop * OVERLAPS < self.window:
            least = -(-self.window // OVERLAPS)
            raise Refusal(
                f"data.hop: {self.hop} with data.window = {self.window}; at least {least} expected"
            )
        if self.val + self.test >= 1:
            raise Refusal(f"data.val + data.test: {self.val + self.test:g}; less than 1 expected")

    @property
    def bins(self) -> int:
        """Frequencies of a frame."""
        return self.window // 2 + 1

    @property
    def dims(self) -> int:
        """Values of a data point."""
        return self.bins


@family("data")
@dataclass(frozen=True)
class IdxData(Pictures):
    """Images in the idx files of MNIST and its kin, one image a data point, scaled to [0, 1]."""

    kind: ClassVar[str] = "idx"
    path: str = ""
    """The folder with train-images-idx3-ubyte and t10k-images-idx3-ubyte, gzipped or not; empty:
    $DISTVAE_DATA.
    """
    holdout: Whole = 0
    """Training images kept for validation; 0 validates on the test images, as the papers' curves
    do.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, height, width) of a data point, where it is one of MNIST."""
        return 1, 28, 28


@family("data")
@dataclass(frozen=True)
class ImageData(Pictures):
    """Images scaled to [0, 1], one a data point: CIFAR-10, an .npz archive or a folder of pictures;
    the path tells.
    """

    kind: ClassVar[str] = "images"
    path: str = ""
    """CIFAR-10's folder, python or binary version; an .npz with x_train or x; or a folder of
    pictures, in folders named train, val and test or not, and in folders named for classes or not.
    """
    size: tuple[Count, Count] | None = None
    """Height and width that pictures are cropped to, around their centre, and resized; null keeps
    the files' own.
    """
    colour: Literal["keep", "grey", "rgb"] = "keep"
    """What pictures are converted to; `keep` is grey where all of them are."""
    sizes: tuple[Count, Count] | None = None
    """Images to train and to test on, drawn with split_seed from all there are; null: those that
    the source says.
    """
    holdout: Whole = 0
    """Training images kept for validation where the source has none for it; 0 validates on the test
    images.
    """
    test: Share = 0.15
    """Share of the images to test on, drawn with split_seed, where the source has none for it."""
    split_seed: Whole = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, height, width) of a data point, where size and colour say so."""
        if self.size is None or self.colour == "keep":
            raise Refusal(
                "data.size, data.colour: the images alone know; a size, and grey or rgb, expected"
            )
        return {"grey": 1, "rgb": 3}[self.colour], *self.size


@family("data")
@dataclass(frozen=True)
class BarsData(Pictures):
    """Bars on a square: every bar appears independently, horizontal and vertical ones
    superimpose.
    """

    kind: ClassVar[str] = "bars"
    path: str = ""
    """Nothing: the images are made."""
    size: Annotated[int, Range(2, 64)] = 4
    """Pixels of a side; there are twice as many bars."""
    rows: Count = 500
    active: Positive = 2.0
    """Bars of an image on average."""
    correlated: bool = False
    """The first bar, where it appears, hides the second, and the last the first."""
    variance: NonNegative = 0.01
    """Of the noise."""
    seed: Whole = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, height, width) of a data point."""
        return 1, self.size, self.size


@family("data")
@dataclass(frozen=True)
class SpritesData(Pictures):
    """One shape on a dark square: ellipse, square or triangle, in 6 sizes, 10 rotations and 16 x 16
    places.
    """

    kind: ClassVar[str] = "sprites"
    path: str = ""
    """Nothing: the images are made."""
    size: Annotated[int, Range(16, 128)] = 32
    """Pixels of a side."""
    rows: Annotated[int, Range(10, 46080)] = 12000
    """Images in all, each of another combination of the 46080."""
    val: Share = 0.1
    """Share of the images to validate on."""
    test: Share = 0.1
    """Share of the images to test on."""
    seed: Whole = 0
    """Decides which combinations there are, and which split each belongs to."""

    def __post_init__(self) -> None:
        """Refuse what no single field shows."""
        if self.val + self.test > 0.9:
            raise Refusal(f"data.val + data.test: {self.val + self.test:g}; at most 0.9 expected")
        if sum(self.held) >= self.rows:
            told = " + ".join(map(str, self.held))
            raise Refusal(
                f"data.val + data.test: {told} of {self.rows} images; one or more left to train on"
                " expected"
            )

    @property
    def held(self) -> tuple[int, int]:
        """Images to validate and to test on, one of each at least."""
        return max(1, round(self.val * self.rows)), max(1, round(self.test * self.rows))

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, height, width) of a data point."""
        return 1, self.size, self.size


@family("data")
@dataclass(frozen=True)
class PatchData:
    """Overlapping windows of one picture or sound, which is restored from itself alone."""

    kind: ClassVar[str] = "patches"
    path: str = ""
    """The picture or the sound, or `built-in picture` or `built-in sound`."""
    noise: NonNegative = 0.0
    """White noise that is added first, to see how well it goes: of 255, or of a sound's largest
    sample.
    """
    drop: Annotated[float, Range(0, 1)] = 0.0
    """Share of a picture's pixels that are dropped first, to see how well they are filled in."""
    dropped: Literal["pixels", "values"] = "pixels"
    """What is dropped of a picture in colours: pixels with all of theirs, or each value by itself.
    """
    noise_seed: Whole = 0
    """Of that noise, and of which pixels are dropped."""
    window: Widths = (8, 8)
    """Height and width of a patch, or samples of a chunk of sound."""
    stride: Count = 1
    """From one window to the next; the last always ends where the data does."""
    channels: Literal["joint", "separate"] = "joint"
    """Whether a window spans the colours of a picture, or the channels of a sound, or each has
    windows of its own.
    """
    scale: Literal["standard", "keep"] = "standard"
    """Subtract the mean and divide by the standard deviation, one number each; or keep the values,
    0 to 255.
    """
    level: Literal["remove", "keep"] = "remove"
    """Whether each window's mean is taken out before training and put back after."""
    merge: Literal["mean", "gaussian"] = "mean"
    """How windows weigh where they overlap: all alike, or less towards their edges."""

    def __post_init__(self) -> None:
        """Refuse what no single field shows."""
        if len(self.window) not in (1, 2):
            raise Refusal(
                f"data.window: {list(self.window)}; [height, width] or [samples] expected"
            )
        if self.drop and self.noise:
            raise Refusal(
                f"data.drop: {self.drop:g} with data.noise = {self.noise:g}; one of the two"
                " expected"
            )
        if self.drop and len(self.window) == 1:
            raise Refusal(
                f"data.drop: {self.drop:g} with windows of a sound; 0, or [height, width] expected"
            )

    @property
    def dims(self) -> int:
        """Values of a data point, where there is one channel."""
        return math.prod(self.window)


@family("data")
@dataclass(frozen=True)
class CropData(Pictures):
    """Windows drawn at random from pictures, their means removed and their values whitened, one a
    data point.
    """

    kind: ClassVar[str] = "crops"
    path: str = ""
    """A picture, or a folder of pictures; of colours the mean is taken."""
    window: tuple[Count, Count] = (16, 16)
    """Height and width of a data point."""
    sizes: tuple[Count, Count, Count] = (100_000, 1_000, 1_000)
    """Windows to train, to validate and to test on, from all places of all pictures alike and none
    twice.
    """
    clamped: Annotated[float, Range(0, 1)] = 0.02
    """Share of each picture's pixels, the brightest, that are brought down to the brightest of the
    others.
    """
    contrast: Literal["own", "common"] = "own"
    """Scale each picture by the standard deviation of its own grey levels, or keep the levels of
    all as they are.

    With `common`, a picture of 16 bits that fills little of its range gives windows that are blank
    beside others.
    """
    kept: Annotated[float, Range(0, 0.9999, above=True)] = 0.95
    """Share of the variance to keep: whitening cuts off the directions of least variance, beginning
    with the mean.
    """
    seed: Whole = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, height, width) of a data point."""
        return 1, *self.window


@family("data")
@dataclass(frozen=True)
class RowsData:
    """Rows of numbers in Arrow files that `distvae ingest` made, one row a data point, as many as
    the disk holds.
    """

    kind: ClassVar[str] = "rows"
    path: str = ""
    """The folder that `distvae ingest` made; empty: $DISTVAE_DATA."""

    @property
    def dims(self) -> int:
        """Values of a data point, which the folder alone knows."""
        raise Refusal(
            "data.kind: 'rows' have as many values as their folder says; a kind of known size"
            " expected"
        )


DataFamily = (
    SpeechData | IdxData | ImageData | BarsData | SpritesData | PatchData | CropData | RowsData
)
