"""What families of images share: single pictures and arrays of images as rows, and back."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from distvae.data.dataset import Array, FileOrArray, Labels
from distvae.data.family import Values
from distvae.data.images.folder import read_to_form
from distvae.data.pictures import Form
from distvae.files.plain import Plain
from distvae.files.refusal import Refusal
from distvae.numerics.array_types import AnyArray

Shape = tuple[int, ...]
"""(channels, height, width)."""
UNIT_INTERVAL = Values(low=0.0, high=1.0)


class ReadsImages:
    """The part of a family that makes rows of single pictures and of arrays of images."""

    def rows_of(self, media: FileOrArray, shape: Shape) -> AnyArray:
        """Return a picture, one image or several images as rows, and an array of rows unchanged.

        A picture is cropped and resized as in training. Images have their channels last, or none.
        """
        if isinstance(media, Path):
            channels, height, width = shape
            media = read_to_form(media, Form(height, width, "L" if channels == 1 else "RGB"))
            return media.reshape(1, -1) / np.float32(255)
        if not _holds_images(media, shape):
            if media.ndim > 2 and len(shape) == 3:
                channels, *size = shape
                form = tuple(size) if channels == 1 else (*size, channels)
                raise Refusal(
                    f"x: an array of {media.shape}; images of {form}, as the run was trained on, or"
                    " a path, expected"
                )
            return media
        values = media / np.float32(255) if media.dtype == np.uint8 else media
        channels, height, width = shape
        return np.moveaxis(values.reshape(-1, height, width, channels), -1, 1).reshape(
            -1, channels * height * width
        )

    def media_of(self, rows: Array, media: FileOrArray, shape: Shape) -> Array:
        """Return rows as images, with the axes of the images that they were made of."""
        if not isinstance(media, Path) and not _holds_images(media, shape):
            return rows
        images = np.moveaxis(rows.reshape(-1, *shape), 1, -1)
        if isinstance(media, Path):
            return images[0] if shape[0] > 1 else images[0, ..., 0]
        return images.reshape(media.shape)


def _holds_images(array: AnyArray, shape: Shape) -> bool:
    """Return whether an array has one image or several, and not rows."""
    if len(shape) != 3:
        return False
    channels, *size = shape
    forms = [(*size, channels), *([tuple(size)] if channels == 1 else [])]
    return array.shape in forms or array.shape[1:] in forms


def describe_images(shape: Sequence[int], labels: Mapping[str, Labels] | None) -> dict[str, Plain]:
    """Return the facts of a survey: the shape of the images and the number of classes."""
    channels, height, width = shape
    classes: Plain = "none"
    if labels:
        classes = len({int(label) for part in labels.values() for label in part})
    return {"height": height, "width": width, "channels": channels, "classes": classes}
