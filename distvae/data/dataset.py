"""What training sees of data: arrays by split, and for recordings where each came from."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distvae.refusal import Refusal

Array = NDArray[np.float32]
BUILT_IN = "built-in speech"
"""The name of the synthetic speech, and the data.path that stands for it."""


@dataclass(frozen=True)
class Recording:
    """One sound file of a dataset."""

    file: str
    """Relative to the dataset's root, with forward slashes."""
    speaker: str
    split: str
    """train | val | test"""


@dataclass(frozen=True)
class Dataset:
    """Data points by split."""

    name: str
    """What a person would call it."""
    unit: str
    """What one data point is: frame | image | window."""
    digest: str
    """Changes with the content and with every parameter of the preparation."""
    splits: Mapping[str, Array]
    """train, val and test: (N, D) float32, memory-mapped where they may be large."""
    root: Path
    recordings: tuple[Recording, ...] = field(default=())
    """Speech only: every file with its speaker and split, in a fixed order."""
    lengths: tuple[int, ...] = field(default=())
    """Speech only: the frames of each recording; within a split the rows follow the recordings' order."""

    @property
    def dims(self) -> int:
        """Values of one data point."""
        return int(self.splits["train"].shape[1])

    @property
    def origin(self) -> str:
        """What data.path has to be to find it again."""
        return BUILT_IN if self.name == BUILT_IN else str(self.root)

    def named(self, split: str) -> list[str]:
        """The splits that a name stands for: itself; or `all`, without those that are another one's data again."""
        if split == "all":
            first: dict[int, str] = {}
            for name, rows in self.splits.items():
                first.setdefault(id(rows), name)
            return list(first.values())
        if split not in self.splits:
            raise Refusal(f"no split '{split}'; {', '.join(self.splits)} or all expected")
        return [split]

    def rows(self, split: str) -> Iterator[tuple[Recording, slice]]:
        """The recordings of a split, each with the rows it gave."""
        start = 0
        for recording, length in zip(self.recordings, self.lengths, strict=True):
            if recording.split == split:
                yield recording, slice(start, start + length)
                start += length
