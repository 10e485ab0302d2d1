"""Settings of each kind of data."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Protocol

from distvae.config.schema import (
    Count,
    Family,
    NonNegative,
    Positive,
    Range,
    Share,
    Whole,
    Widths,
    family,
)
from distvae.files.refusal import Refusal


class DataConfig(Family, Protocol):
    """The settings of one kind of data: a frozen dataclass registered with `@family("data")`."""

    @property
    def path(self) -> str:
        """The file, folder or URI with the data; empty for generated data."""

    @property
    def dims(self) -> int:
        """Values of a row. Refused if only the data has this number."""


class Generated:
    """Settings of generated data, which has no path."""


class ImageShaped:
    """Settings of data whose rows are images."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, height, width) of a row."""
        raise NotImplementedError

    @property
    def dims(self) -> int:
        """Values of a row."""
        return math.prod(self.shape)


@family("data")
@dataclass(frozen=True)
class AtomsData(Generated):
    """Generated rows: sparse combinations, without noise, of random atoms of norm 1, with positive
    coefficients. The combinations of test rows are not those of training and validation rows.
    """

    kind: ClassVar[str] = "atoms"
    path: str = ""
    """Must be empty: the rows are generated."""
    atoms: Annotated[int, Range(2, 65536)] = 500
    """Number of atoms. The first atom is in half of the training rows and in all test rows."""
    active: Count = 10
    """Number of atoms in a row. Their coefficients are uniform between 0 and 1."""
    rows: Count = 2500
    """Number of rows for training, and again for validation and for testing."""
    seed: Whole = 0
    """Seed of the atoms and of the rows."""

    def __post_init__(self) -> None:
        """Refuse fields that do not fit each other."""
        if 2 * self.active > self.atoms:
            raise Refusal(
                f"data.active: {self.active} with data.atoms = {self.atoms}; at most half of the"
                " atoms expected"
            )

    @property
    def dims(self) -> int:
        """Values of a row: 2 active log(atoms / active), which compressed sensing needs."""
        return math.ceil(2 * self.active * math.log(self.atoms / self.active))


@family("data")
@dataclass(frozen=True)
class BarsData(ImageShaped, Generated):
    """Generated images of horizontal and vertical bars. Each bar appears independently, and
    crossing bars add up.
    """

    kind: ClassVar[str] = "bars"
    path: str = ""
    """Must be empty: the images are generated."""
    size: Annotated[int, Range(2, 64)] = 4
    """Pixels of a side. There are twice as many bars."""
    rows: Count = 500
    """Number of images."""
    active: Positive = 2.0
    """Mean number of bars in an image."""
    correlated: bool = False
    """The first bar, where it appears, hides the second, and the last bar hides the first."""
    variance: NonNegative = 0.01
    """Variance of the noise."""
    seed: Whole = 0
    """Seed of the bars and of the noise."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, height, width) of a row."""
        return 1, self.size, self.size


@family("data")
@dataclass(frozen=True)
class CropData(ImageShaped):
    """Windows drawn at random from pictures, one row per window. Their values are whitened."""

    kind: ClassVar[str] = "crops"
    path: str = ""
    """A picture, or a folder of pictures. Colours are averaged to grey."""
    window: tuple[Count, Count] = (16, 16)
    """Height and width of a window."""
    sizes: tuple[Count, Count, Count] = (100_000, 1_000, 1_000)
    """Number of windows for training, validation and test, drawn from all places of all pictures
    with equal probability and none twice.
    """
    clamped: Annotated[float, Range(0, 1)] = 0.02
    """Share of each picture's pixels that are clamped: the brightest pixels are reduced to the
    largest remaining value.
    """
    contrast: Literal["own", "common"] = "own"
    """`own` scales each picture by the standard deviation of its own grey levels. `common` keeps
    the levels of all pictures.

    With `common`, a 16-bit picture that uses little of its range gives nearly blank windows
    compared with the windows of brighter pictures.
    """
    level: Literal["remove", "keep"] = "remove"
    """Remove the mean of each window before whitening, or keep it, as the released code of TVAE
    does. If it is kept, the level is most of the variance, and fewer other directions are kept.
    """
    kept: Annotated[float, Range(0, 0.9999, above=True)] = 0.95
    """Share of the variance to keep. Whitening drops the directions of least variance."""
    seed: Whole = 0
    """Seed that chooses the windows."""
    skip_broken: bool = False
    """Leave out pictures of a folder that cannot be decoded, instead of refusing the folder."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, height, width) of a row."""
        return 1, *self.window


@family("data")
@dataclass(frozen=True)
class IdxData(ImageShaped):
    """Images in idx files, the format of MNIST, scaled to [0, 1], one row per image."""

    kind: ClassVar[str] = "idx"
    path: str = ""
    """The folder with train-images-idx3-ubyte and t10k-images-idx3-ubyte, gzipped or not. Empty:
    $DISTVAE_DATA.
    """
    split: Literal["auto", "loose"] = "auto"
    """`loose` holds out no images for validation, and validates on none. It is meant for evaluating
    and encoding.
    """
    holdout: Whole = 0
    """Training images used for validation. 0 validates on the test images, as published learning
    curves do.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, height, width) of a row of MNIST."""
        return 1, 28, 28


@family("data")
@dataclass(frozen=True)
class ImageData(ImageShaped):
    """CIFAR-10, an .npz archive or a folder of pictures, whichever is found at the path. Images are
    scaled to [0, 1], one row per image.
    """

    kind: ClassVar[str] = "images"
    path: str = ""
    """CIFAR-10's folder (binary version), an .npz file with x_train or x, or a folder of
    pictures. Folders named train, val and test give the split, other folders the classes. Empty:
    $DISTVAE_DATA.
    """
    size: tuple[Count, Count] | None = None
    """Height and width. Pictures are cropped around their centre to these proportions and resized;
    null keeps the size of the files.
    """
    colour: Literal["keep", "grey", "rgb"] = "keep"
    """Colour to convert pictures to; `keep` gives grey if all pictures are grey."""
    split: Literal["auto", "loose"] = "auto"
    """`loose` draws no split: images without one count as test, and none is needed to train on. It
    is meant for evaluating and encoding.
    """
    sizes: tuple[Count, Count] | None = None
    """Number of training and test images, drawn with split_seed from all images; null uses the
    split of the source.
    """
    holdout: Whole = 0
    """Training images used for validation if the source has no validation split; 0 validates on the
    test images.
    """
    test: Share = 0.15
    """Share of test images, drawn with split_seed, if the source has no test split."""
    split_seed: Whole = 0
    """Seed of a drawn split."""
    skip_broken: bool = False
    """Leave out pictures of a folder that cannot be decoded, instead of refusing the folder. The
    split of the remaining pictures does not change.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, height, width) of a row, if size and colour are set."""
        if self.size is None or self.colour == "keep":
            raise Refusal(
                "data.size, data.colour: the images alone know; a size, and grey or rgb, expected"
            )
        return {"grey": 1, "rgb": 3}[self.colour], *self.size


@family("data")
@dataclass(frozen=True)
class PatchData:
    """Overlapping windows of one picture or sound, one row per window, to restore it without other
    data.
    """

    kind: ClassVar[str] = "patches"
    path: str = ""
    """The picture or sound file, or `built-in picture` or `built-in sound`."""
    noise: NonNegative = 0.0
    """Standard deviation of white noise that is added first, to measure how well it is removed. The
    values of a picture go up to 255, the samples of a sound up to 1.
    """
    snr: Annotated[float, Range(-100, 200)] | None = None
    """Instead of `noise`: the signal-to-noise ratio in dB of a sound under the white noise that is
    added first.
    """
    drop: Annotated[float, Range(0, 1)] = 0.0
    """Share of a picture's pixels, or of a sound's samples, that are dropped first, to measure how
    well they are filled in.
    """
    dropped: Literal["pixels", "values"] = "pixels"
    """Drop whole pixels of a colour picture and samples of all channels, or drop single values."""
    gap: Count = 1
    """Smallest size of a dropped piece: consecutive samples of a sound, or the side of a square of
    pixels.
    """
    noise_seed: Whole = 0
    """Seed of the noise and of the choice of dropped values."""
    rate: Count | None = None
    """Sampling rate in Hz that a sound is resampled to first; null keeps its own."""
    excerpt: tuple[NonNegative, NonNegative] | None = None
    """Start and length in seconds of the part of a sound that is used; null uses all of it."""
    window: Widths = (8, 8)
    """Height and width of a patch, or samples of a chunk of sound."""
    stride: Count = 1
    """Step from one window to the next. The last window always ends where the data ends."""
    channels: Literal["joint", "separate"] = "joint"
    """`joint`: one window spans all colours of a picture or channels of a sound. `separate`: each
    channel has its own windows.
    """
    scale: Literal["standard", "unit", "keep"] = "standard"
    """`standard`: subtract one mean from all values and divide by one standard deviation. `unit`:
    divide the values of a picture by 255, to the range from 0 to 1, and the values of a sound by
    its largest sample. `keep`: do not scale.
    """
    level: Literal["remove", "keep"] = "remove"
    """Subtract each window's mean before training and add it back afterwards, or keep it."""
    merge: Literal["mean", "gaussian"] = "mean"
    """Weights of overlapping windows: all equal, or smaller towards the edges of a window."""

    def __post_init__(self) -> None:
        """Refuse fields that do not fit each other."""
        if len(self.window) not in (1, 2):
            raise Refusal(
                f"data.window: {list(self.window)}; [height, width] or [samples] expected"
            )
        if len(self.corruption) > 1:
            (first, one), (second, other) = list(self.corruption.items())[:2]
            raise Refusal(
                f"data.{second}: {other:g} with data.{first} = {one:g}; one of the two expected"
            )
        for name in ("snr", "rate", "excerpt"):
            if len(self.window) == 2 and (value := getattr(self, name)) is not None:
                raise Refusal(
                    f"data.{name}: {value} for a picture, but it is for sounds; null, or a"
                    " data.window of [samples] expected"
                )

    @property
    def corruption(self) -> dict[str, float]:
        """The setting that corrupts the values first: `noise`, `snr`, `drop`, or none."""
        settings = {"noise": self.noise or None, "snr": self.snr, "drop": self.drop or None}
        return {name: amount for name, amount in settings.items() if amount is not None}

    @property
    def dims(self) -> int:
        """Values of a row of data with a single channel."""
        return math.prod(self.window)


@family("data")
@dataclass(frozen=True)
class RowsData:
    """Rows of numbers: a table, or the Arrow files that `distvae ingest` wrote, which may exceed
    memory.
    """

    kind: ClassVar[str] = "rows"
    path: str = ""
    """A table (.csv, .npy, .parquet, .arrow), of which a tenth validates and tests, or the folder
    that `distvae ingest` wrote. Empty: $DISTVAE_DATA.
    """
    columns: tuple[str, ...] = ()
    """Names of the columns of a table to take, in this order; none takes all."""

    @property
    def dims(self) -> int:
        """Refuse: only the folder has the number of values of a row."""
        raise Refusal(
            "data.kind: 'rows' have as many values as their folder says; a kind of known size"
            " expected"
        )


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


@family("data")
@dataclass(frozen=True)
class SpritesData(ImageShaped, Generated):
    """Generated images of one shape on a dark square: an ellipse, square or triangle in 6 sizes, 10
    rotations and 16 x 16 places.
    """

    kind: ClassVar[str] = "sprites"
    path: str = ""
    """Must be empty: the images are generated."""
    size: Annotated[int, Range(16, 128)] = 32
    """Pixels of a side."""
    rows: Annotated[int, Range(10, 46080)] = 12000
    """Number of images in all splits. Each image is a different one of the 46080 combinations."""
    val: Share = 0.1
    """Share of the images used for validation."""
    test: Share = 0.1
    """Share of the images used for testing."""
    seed: Whole = 0
    """Seed that chooses the combinations and the split of each."""

    def __post_init__(self) -> None:
        """Refuse fields that do not fit each other."""
        if self.val + self.test > 0.9:
            raise Refusal(f"data.val + data.test: {self.val + self.test:g}; at most 0.9 expected")
        if sum(self.held_out) >= self.rows:
            counts = " + ".join(map(str, self.held_out))
            raise Refusal(
                f"data.val + data.test: {counts} of {self.rows} images; one or more left to train"
                " on expected"
            )

    @property
    def held_out(self) -> tuple[int, int]:
        """Numbers of validation and of test images, each at least one."""
        return max(1, round(self.val * self.rows)), max(1, round(self.test * self.rows))

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, height, width) of a row."""
        return 1, self.size, self.size
