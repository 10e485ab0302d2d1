"""The report of `distvae data check`: the layout of a path, the amount of data, and its faults."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from distvae.config.recipes import override, parse_assignments
from distvae.config.schema import read_section
from distvae.data.dataset import Dataset
from distvae.files.plain import Plain


@dataclass(frozen=True)
class Survey:
    """The data found at a path, and their faults."""

    path: str
    layout: str
    """The layout that was recognised, in words."""
    kind: str
    """The data.kind that reads it."""
    splits: dict[str, dict[str, float]]
    """The size of each split: images, or recordings, speakers and hours."""
    facts: dict[str, Plain] = field(default_factory=dict)
    """Other facts: the shape, the rates, the classes."""
    wrong: tuple[str, ...] = ()
    """How it departs from its protocol."""
    unreadable: tuple[str, ...] = ()
    """The files that cannot be read, and why."""
    settings: tuple[str, ...] = ()
    """The settings that the next command needs, like `data.skip_broken=true`."""

    @property
    def exit_code(self) -> int:
        """Return 0 for whole data, 1 if the data depart from their protocol, 2 if a file cannot be
        read.
        """
        if self.unreadable:
            return 2
        return 1 if self.wrong else 0

    @property
    def quoted_path(self) -> str:
        """Return the path as a word of a shell's command line."""
        return shlex.quote(self.path)


def checked_config(kind: str, path: str, settings: Sequence[str]) -> Any:
    """Return the settings of data at a path, with settings of a command line."""
    tree = {"data": {"kind": kind, "path": path}}
    return read_section("data", override(tree, parse_assignments([*settings]))["data"])


def count_rows(dataset: Dataset, unit: str) -> dict[str, dict[str, float]]:
    """Return the number of rows of each split that does not repeat another split."""
    return {split: {unit: len(dataset.splits[split])} for split in dataset.split_names("all")}
