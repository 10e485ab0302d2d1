"""Read data files into rows: one family for each kind of data."""

from dataclasses import replace

from distvae.config import DataConfig
from distvae.data.crops import CropFamily
from distvae.data.dataset import BUILT_IN, Dataset, Factors, Labels
from distvae.data.family import DataFamily, HasFactors, HasLabels, Values, family_of, register
from distvae.data.folders import fetch, is_remote
from distvae.data.generated import BarsFamily, SpritesFamily
from distvae.data.idx import IdxFamily
from distvae.data.images import ImageFamily
from distvae.data.rows import RowsFamily
from distvae.data.speech import SpeechFamily
from distvae.data.windows import PatchFamily

__all__ = [
    "BarsFamily",
    "CropFamily",
    "DataFamily",
    "Dataset",
    "IdxFamily",
    "ImageFamily",
    "PatchFamily",
    "RowsFamily",
    "SpeechFamily",
    "SpritesFamily",
    "Values",
    "factors_of",
    "family_of",
    "labels_of",
    "open_dataset",
    "register",
]


def open_dataset(config: DataConfig, quiet: bool = False) -> Dataset:
    """Return the dataset that a configuration describes.

    Data at a URI is copied to this machine first.
    """
    dataset = family_of(fetch(config)).open(quiet)
    if not is_remote(config.path):
        return dataset
    # speech that was copied into the cache is not the built-in speech
    name = dataset.root.name if dataset.name == BUILT_IN else dataset.name
    return replace(dataset, name=name, uri=config.path)


def labels_of(config: DataConfig) -> dict[str, Labels] | None:
    """Return the class of every row by split, or None if the data has no classes."""
    family = family_of(fetch(config))
    return family.labels() if isinstance(family, HasLabels) else None


def factors_of(config: DataConfig) -> Factors | None:
    """Return the levels of the factors behind every row by split, or None if they are not known."""
    family = family_of(fetch(config))
    return family.factors() if isinstance(family, HasFactors) else None
