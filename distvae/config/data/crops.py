"""Settings of windows drawn at random from pictures."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from distvae.config.data.base import ImageShaped
from distvae.config.registry import family
from distvae.config.schema import Range
from distvae.config.values import Count, Whole


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
