"""Settings of images in folders, archives and the files of CIFAR-10."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from distvae.config.data.base import ImageShaped
from distvae.config.registry import family
from distvae.config.values import Count, Share, Whole
from distvae.files.refusal import Refusal


@family("data")
@dataclass(frozen=True)
class ImageData(ImageShaped):
    """CIFAR-10, an .npz archive or a folder of pictures, whichever is found at the path. Images are
    scaled to [0, 1], one row per image.
    """

    kind: ClassVar[str] = "images"
    path: str = ""
    """CIFAR-10's folder (python or binary version), an .npz file with x_train or x, or a folder of
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
