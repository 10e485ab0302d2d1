"""Settings of the windows of one picture or sound."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from distvae.config.registry import family
from distvae.config.schema import Range
from distvae.config.values import Count, NonNegative, Whole, Widths
from distvae.files.refusal import Refusal


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
        if len(self.window) == 2:
            self._refuse_fields_of_sounds()

    def _refuse_fields_of_sounds(self) -> None:
        for name in ("snr", "rate", "excerpt"):
            if (value := getattr(self, name)) is not None:
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
