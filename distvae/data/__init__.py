"""From files to data points."""

from dataclasses import replace
from typing import TYPE_CHECKING

from distvae.config import (
    BarsData,
    CropData,
    DataFamily,
    IdxData,
    ImageData,
    PatchData,
    RowsData,
    SpritesData,
)
from distvae.data.dataset import BUILT_IN, Dataset
from distvae.data.remote import here, is_remote

if TYPE_CHECKING:
    from distvae.data.images.source import Factors, Labels


def open_dataset(config: DataFamily, quiet: bool = False) -> Dataset:
    """The dataset a configuration describes; spectra of speech are computed once and kept in the
    cache.
    """
    found = _open(_here(config), quiet)
    if not is_remote(config.path):
        return found
    name = (
        found.root.name if found.name == BUILT_IN else found.name
    )  # for the built-in speech lies in the cache, too
    return replace(found, name=name, uri=config.path)


def _here(config: DataFamily) -> DataFamily:
    """The configuration for the data as it is on this machine, brought here if it is not."""
    return replace(config, path=here(config.path))


def _open(config: DataFamily, quiet: bool) -> Dataset:
    if isinstance(config, BarsData):
        from distvae.data.images.bars import open_bars

        return open_bars(config)
    if isinstance(config, IdxData):
        from distvae.data.images.idx import open_images

        return open_images(config)
    if isinstance(config, ImageData):
        from distvae.data.images import collection as images

        return images.open_images(config, quiet)
    if isinstance(config, SpritesData):
        from distvae.data.images.sprites import open_sprites

        return open_sprites(config)
    if isinstance(config, PatchData):
        from distvae.data.windows.patches import open_patches

        return open_patches(config)
    if isinstance(config, CropData):
        from distvae.data.windows.crops import open_crops

        return open_crops(config)
    if isinstance(config, RowsData):
        from distvae.data.tables.rows import open_rows

        return open_rows(config, quiet)
    from distvae.data.speech.frames import open_speech

    return open_speech(config, quiet)


def labels_of(config: DataFamily) -> "dict[str, Labels] | None":
    """The class of every data point by split, where the data has classes."""
    config = _here(config)
    if isinstance(config, IdxData):
        from distvae.data.images.idx import labels

        return labels(config)
    if isinstance(config, ImageData):
        from distvae.data.images import collection as images

        return images.labels(config)
    if isinstance(config, SpritesData):
        from distvae.data.images import sprites

        return sprites.labels(config)
    return None


def factors_of(config: DataFamily) -> "Factors | None":
    """What decides every data point by split, where that is known."""
    if isinstance(config, SpritesData):
        from distvae.data.images import sprites

        return sprites.factors(config)
    return None
