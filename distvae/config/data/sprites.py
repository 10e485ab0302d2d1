"""Settings of sprites."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from distvae.config.data.base import Generated, ImageShaped
from distvae.config.registry import family
from distvae.config.schema import Range
from distvae.config.values import Share, Whole
from distvae.files.refusal import Refusal


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
