"""Settings of images in idx files."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from distvae.config.data.base import ImageShaped
from distvae.config.registry import family
from distvae.config.values import Whole


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
