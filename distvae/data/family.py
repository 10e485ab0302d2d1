"""The object behind each kind of data, the capabilities that it may have, and the report of
`distvae data check`.

Every kind of data is a subclass of `DataFamily`, registered for its settings. It says how the data
is opened. What else is possible depends on small protocols that it may satisfy: `HasLabels`,
`HasFactors`, `HasRecordings`, `HasCauses`, `ReadsMedia`, and `HasWindows` in `windows.py`.
Evaluating, encoding and drawing ask for these and never for a particular kind.
"""

import math
import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import (
    Any,
    ClassVar,
    Generic,
    NamedTuple,
    Protocol,
    TypeAlias,
    TypeVar,
    runtime_checkable,
)

from distvae.config import DataConfig
from distvae.config.recipes import override, parse_assignments
from distvae.config.schema import FAMILIES, Registry, read_section
from distvae.data.dataset import (
    Array,
    Combinations,
    Dataset,
    Factors,
    FileOrArray,
    Labels,
    Recording,
)
from distvae.data.folders import fetch
from distvae.files.untrusted import Plain
from distvae.numerics.arrays import AnyArray


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


Settings = TypeVar("Settings", bound=DataConfig)
C = TypeVar("C", bound=Callable[..., object])


class Values(NamedTuple):
    """The values that a row may hold."""

    low: float = -math.inf
    high: float = math.inf
    may_be_missing: bool = False
    """Whether NaN is allowed, for values that were not observed."""
    row_name: str = ""
    """The name of a row in messages; empty takes the unit of the dataset."""


class DataFamily(ABC, Generic[Settings]):
    """One kind of data, built from its settings."""

    values: ClassVar[Values] = Values()
    built_in: ClassVar[tuple[str, ...]] = ()
    """Names that stand for data of the package instead of a path."""
    dividing: ClassVar[tuple[str, ...]] = ()
    """Settings that divide rows into splits. With a setting `split`, `loose` draws no splits."""

    def __init__(self, config: Settings) -> None:
        self.config = config

    @abstractmethod
    def open(self, quiet: bool = False) -> Dataset:
        """Return the rows by split. The path of the settings is on this machine."""

    def is_same_data(self, trained_on: DataConfig, digest: str) -> tuple[bool, int]:
        """Tell whether this is the data of a run, and how many values a row has.

        `trained_on` and `digest` are the settings and the digest of the run's data.
        """
        dataset = family_of(fetch(self.config)).open(quiet=True)
        return dataset.digest == digest, dataset.dims

    @classmethod
    def survey(cls, path: str) -> Survey | None:
        """Return the survey of a path if this family reads it, otherwise None.

        The path is a name in `built_in`, or a file or folder on this machine.
        """
        return None

    @classmethod
    def examine(cls, path: str, settings: Sequence[str] = ()) -> Survey | None:
        """Return the survey of a path after every file was decoded, where that finds more.

        The survey lists the settings that were obeyed, such as `data.skip_broken=true`.
        """
        return cls.survey(path)

    @classmethod
    def next_command(cls, survey: Survey) -> str:
        """Return a command to continue with after a survey."""
        unit_interval = cls.values.low >= 0 and cls.values.high <= 1
        likelihood = "" if unit_interval else " model.likelihood=gaussian"
        settings = f"data.kind={survey.kind}{likelihood}"
        return f"distvae train mnist-vae {settings} --data {shlex.quote(survey.path)}"


@runtime_checkable
class HasLabels(Protocol):
    """Data whose rows may have classes."""

    def labels(self) -> dict[str, Labels] | None:
        """Return the class of every row by split; None if the rows at this path have none."""


@runtime_checkable
class HasFactors(Protocol):
    """Data whose rows are determined by known factors."""

    def factors(self) -> Factors:
        """Return the level of every factor for every row."""


@runtime_checkable
class HasRecordings(Protocol):
    """Data whose rows are power spectra of the frames of recordings."""

    @property
    def rate(self) -> int:
        """Sampling rate in Hz."""

    @property
    def window(self) -> int:
        """Samples of a frame."""

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""

    def recordings(self) -> tuple[Path, list[Recording]]:
        """Return the root folder and the recordings in it."""

    def load(self, path: Path) -> Array:
        """Return the signal of a recording as training sees it."""

    def load_whole(self, path: Path) -> tuple[Array, float]:
        """Return the untrimmed signal of a recording, scaled as in training, and the factor that
        undoes the scaling.
        """


@runtime_checkable
class ReadsMedia(Protocol):
    """Data whose rows can be made of a single file, or of arrays that hold signals or images."""

    def rows_of(self, media: FileOrArray, shape: tuple[int, ...]) -> AnyArray:
        """Return the rows of a file, or of an array, which may hold rows already.

        `shape` is the image shape of a run.
        """

    def media_of(self, rows: Array, media: FileOrArray, shape: tuple[int, ...]) -> Array:
        """Return rows in the form of the file or the array that they were made of."""


@runtime_checkable
class HasCauses(Protocol):
    """Data generated by superposition of binary causes, whose distribution is known."""

    @property
    def probability(self) -> float:
        """Probability that a cause is active. All causes have the same probability."""

    @property
    def variance(self) -> float:
        """Variance of the noise."""

    def causes(self) -> Array:
        """Return (C, D): what each cause adds to a row."""

    def visible(self, active: Array) -> Array:
        """Return (N, C): the causes that can be seen when some are active."""

    def combinations(self) -> Combinations | None:
        """Return combinations of dependent causes; None if the causes are independent."""


AnyFamily: TypeAlias = DataFamily[Any]
"""A kind of data, built from the settings of a configuration."""
DATA: Registry[type[AnyFamily]] = Registry("data")


def register(config: type) -> Callable[[C], C]:
    """Register the decorated class as the family of a configuration class."""
    return DATA.register(config)


def family_of(config: DataConfig) -> AnyFamily:
    """Return the object behind the settings of some data. Nothing is read."""
    return DATA.implementation(config)(config)


def same_place(path: str, own: str) -> bool:
    """Return whether a path is the path of a run's data, which is absolute or a name of built-in
    data.
    """
    return path == own or Path(path).absolute() == Path(own)


def recordings_of(config: DataConfig) -> HasRecordings | None:
    """Return the data as recordings, or None if it is something else."""
    family = family_of(config)
    return family if isinstance(family, HasRecordings) else None


def causes_of(config: DataConfig) -> HasCauses | None:
    """Return the data as a superposition of known causes, or None if it is something else."""
    family = family_of(config)
    return family if isinstance(family, HasCauses) else None


def next_command(survey: Survey) -> str:
    """Return a command to continue with after a survey, with the settings that it needs."""
    command = family_of_kind(survey.kind).next_command(survey)
    return " ".join([command, *map(shlex.quote, survey.settings)])


def family_of_kind(kind: str) -> type[AnyFamily]:
    """Return the class behind a kind of data."""
    return DATA[FAMILIES["data"][kind]]


def kinds_with(capability: type) -> list[str]:
    """Return the kinds of data whose families satisfy a protocol."""
    return sorted(config.kind for config, family in DATA.items() if issubclass(family, capability))
