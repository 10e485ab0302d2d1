"""The object behind each kind of data, what it may be asked for, and the report of
`distvae data check`.

Every kind of data is a subclass of `DataFamily`, registered for its settings. It says how the data
is opened. Evaluating, encoding and drawing ask for its labels, its factors, and rows of a caller's
files and arrays. Recordings, windows and superposed causes have more, in `speech.py`, `windows.py`
and `generated.py`.
"""

import math
import shlex
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from inspect import getattr_static
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, TypeAlias, TypeVar

from distvae.config import DataConfig, Generated
from distvae.config.recipes import override, parse_assignments
from distvae.config.schema import FAMILIES, Registry, load_extensions, read_section
from distvae.data.dataset import Array, Dataset, Factors, FileOrArray, Labels
from distvae.data.folders import fetch, is_remote, local_path
from distvae.files.paths import resolve_path
from distvae.files.refusal import Refusal
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
    reads_media: ClassVar[bool] = False
    """Whether rows can be made of a single file, or of arrays that hold signals or images."""

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

    def labels(self) -> dict[str, Labels] | None:
        """Return the class of every row by split; None if the rows at this path have none."""
        return None

    def factors(self) -> Factors | None:
        """Return the level of every known factor that determines a row; None if none is known."""
        return None

    def rows_of(self, media: FileOrArray, shape: tuple[int, ...]) -> AnyArray:
        """Return the rows of a file, or of an array, which may hold rows already. `shape` is the
        image shape of a run. Families that read media have this method and the next.
        """
        raise NotImplementedError

    def media_of(self, rows: Array, media: FileOrArray, shape: tuple[int, ...]) -> Array:
        """Return rows in the form of the file or the array that they were made of."""
        raise NotImplementedError

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


AnyFamily: TypeAlias = DataFamily[Any]
"""A kind of data, built from the settings of a configuration."""
DATA: Registry[type[AnyFamily]] = Registry("data")


def register(config: type) -> Callable[[C], C]:
    """Register the decorated class as the family of a configuration class."""
    return DATA.register(config)


MODULES = {
    **dict.fromkeys(("atoms", "bars", "sprites"), "generated"),
    **{"rows": "rows", "idx": "images", "images": "images", "speech": "speech"},
    **{"patches": "windows", "crops": "crops"},
}
"""The file of each kind of data of the package, which is imported when its kind is asked for."""


def family_of(config: DataConfig) -> AnyFamily:
    """Return the object behind the settings of some data. Nothing is read."""
    _import(config.kind)
    return DATA.implementation(config)(config)


def family_of_kind(kind: str) -> type[AnyFamily]:
    """Return the class behind a kind of data."""
    _import(kind)
    return DATA[FAMILIES["data"][kind]]


def all_families() -> list[type[AnyFamily]]:
    """Return the families of the package and of the other packages that were imported."""
    for kind in MODULES:
        _import(kind)
    return [*DATA.values()]


def _import(kind: str) -> None:
    if kind in MODULES:
        import_module(f"distvae.data.{MODULES[kind]}")


def same_place(path: str, own: str) -> bool:
    """Return whether a path is the path of a run's data, which is absolute or a name of built-in
    data.
    """
    return path == own or Path(path).absolute() == Path(own)


def next_command(survey: Survey) -> str:
    """Return a command to continue with after a survey, with the settings that it needs."""
    command = family_of_kind(survey.kind).next_command(survey)
    return " ".join([command, *map(shlex.quote, survey.settings)])


def kinds_with(ability: str) -> list[str]:
    """Return the kinds of data whose families have a method of their own, such as `labels`."""
    inherited = getattr(DataFamily, ability)
    families = [each for each in all_families() if getattr(each, ability) is not inherited]
    return sorted(config.kind for config, family in DATA.items() if family in families)


IN_THIS_ORDER = ("rows", "idx", "images", "speech", "patches")
"""The kinds of the package that recognise their data. The first kind that recognises a path reads
it.
"""
RUN_FILES = ("run.json", "config.yaml")
"""Files of a run folder. Its pictures are no data."""


def survey(path: str) -> Survey:
    """Return the survey of a path or a URI. Pictures and recordings in folders are opened, but not
    decoded.
    """
    return _ask(path, lambda family, place: family.survey(place))


def examine(path: str, settings: Sequence[str] = ()) -> Survey:
    """Return the survey of a path or a URI, under settings like `data.skip_broken=true`. Pictures
    and recordings in folders are decoded to find broken files.
    """
    found = _ask(path, lambda family, place: family.examine(place, settings))
    for word in settings:
        if word not in found.settings:
            raise Refusal(f"{word}: changes nothing that is checked of {found.layout}; omit it")
    return found


def _ask(path: str, ask: Callable[[type[AnyFamily], str], Survey | None]) -> Survey:
    """Return the first answer of a family."""
    families = _families()
    for family in families:
        if path in family.built_in and (found := ask(family, path)) is not None:
            return found
    place = resolve_path(local_path(path))
    if not place.exists():
        built_in = [repr(name) for family in families for name in family.built_in]
        raise Refusal(f"{path}: no such file or folder; data, or {', '.join(built_in)}, expected")
    if all((place / name).is_file() for name in RUN_FILES):
        raise Refusal(f"{path}: the folder of a run; the data to train on expected")
    for family in families:
        if (found := ask(family, str(place))) is not None:
            return replace(found, path=path) if is_remote(path) else found
    raise Refusal(
        f"{place}: no data known here; recordings, idx files, rows of 'distvae ingest', CIFAR-10's"
        " batches, an .npz archive or pictures expected"
    )


def _families() -> list[type[AnyFamily]]:
    """Return the families to ask, beginning with families of other packages, which are more
    specific. A package that cannot be imported is reported.
    """
    try:
        load_extensions("data")
    except Refusal as error:
        print(f"distvae: {error}; its data are not recognised", file=sys.stderr)
    own = [family_of_kind(kind) for kind in IN_THIS_ORDER]
    return [*(family for family in all_families() if family not in own), *own]


def survey_of_another_kind(path: str, config: DataConfig) -> Survey | None:
    """Return the survey of a path, or None if the configured kind of data is to read it.

    A kind that no survey finds, like windows of pictures, gives way to a folder of rows only.
    """
    found = survey(path) if _follows_path(config) else family_of_kind("rows").survey(path)
    return found if found and found.kind != config.kind else None


def _follows_path(config: DataConfig) -> bool:
    """Return whether a survey can find the configured kind of data."""
    own, inherited = (getattr_static(each, "survey") for each in (family_of(config), DataFamily))
    return isinstance(config, Generated) or own is not inherited
