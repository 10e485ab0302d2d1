"""Settings that every kind of data has."""

import math
from typing import Protocol

from distvae.config.registry import Family


class DataConfig(Family, Protocol):
    """The settings of one kind of data: a frozen dataclass registered with `@family("data")`."""

    @property
    def path(self) -> str:
        """The file, folder or URI with the data; empty for generated data."""

    @property
    def dims(self) -> int:
        """Values of a row. Refused if only the data has this number."""


class Generated:
    """Settings of generated data, which has no path."""


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
