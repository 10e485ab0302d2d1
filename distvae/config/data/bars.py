"""Settings of bars."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from distvae.config.data.base import Generated, ImageShaped
from distvae.config.registry import family
from distvae.config.schema import Range
from distvae.config.values import Count, NonNegative, Positive, Whole


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
