"""Settings that every kind of data has."""

import math
from typing import Protocol

from distvae.config.registry import Family


class DataConfig(Family, Protocol):
    """The settings of one kind of data: a frozen dataclass registered with `@family("data")`."""

    @property
    def path(self) -> str:
        """The file, folder or URI that holds the data; empty where nothing is read."""

    @property
    def dims(self) -> int:
        """Values of a row; refused where only the data itself tells."""


class Generated:
    """Settings of data that is computed. It has no path."""


class ImageShaped:
    """Settings of data whose rows are images."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, height, width) of a row."""
        raise NotImplementedError

    @property
    def dims(self) -> int:
        """Values of a row."""
        return math.prod(self.shape)
