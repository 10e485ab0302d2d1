"""Settings of each kind of data."""

from distvae.config.data.bars import BarsData
from distvae.config.data.base import DataConfig, Generated
from distvae.config.data.crops import CropData
from distvae.config.data.idx import IdxData
from distvae.config.data.images import ImageData
from distvae.config.data.patches import PatchData
from distvae.config.data.rows import RowsData
from distvae.config.data.speech import SpeechData
from distvae.config.data.sprites import SpritesData

__all__ = [
    "BarsData",
    "CropData",
    "DataConfig",
    "Generated",
    "IdxData",
    "ImageData",
    "PatchData",
    "RowsData",
    "SpeechData",
    "SpritesData",
]
