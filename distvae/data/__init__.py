"""Read data files into rows: one family for each kind of data. Data that a caller has beside a run
become rows too: files, folders, signals, images or rows.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from distvae.config import DataConfig, Generated
from distvae.data.dataset import (
    BUILT_IN,
    Array,
    Dataset,
    Factors,
    FileOrArray,
    Labels,
    LazyRows,
    Rows,
    stack,
)
from distvae.data.family import DataFamily, Values, family_of, register, same_place
from distvae.data.folders import fetch, is_remote
from distvae.files.paths import resolve_path
from distvae.files.refusal import Refusal
from distvae.numerics.arrays import AnyArray, plain_array

if TYPE_CHECKING:
    from typing_extensions import TypeIs

__all__ = [
    "DataFamily",
    "Dataset",
    "Media",
    "Values",
    "data_at",
    "factors_of",
    "family_of",
    "is_single_file",
    "labels_of",
    "media_of",
    "open_dataset",
    "register",
    "rows_of",
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
    return family_of(fetch(config)).labels()


def factors_of(config: DataConfig) -> Factors | None:
    """Return the levels of the factors behind every row by split, or None if they are not known."""
    return family_of(fetch(config)).factors()


ARCHIVE = ".npz"
Place = str | Path
Media = ArrayLike | Rows | Tensor | Place | Sequence[Place]
"""A table of rows, an array of signals or images, a path, or several paths."""


def data_at(
    path: str, trained_on: DataConfig, digest: str, assigned: Collection[str] = ()
) -> DataConfig:
    """Return the settings for data at a path.

    The data of a run keep their splits when they are moved. Other data need no splits, and none are
    drawn, unless `assigned` names settings that say how.
    """
    moved = replace(trained_on, path=path)
    dividing = family_of(trained_on).dividing
    if (
        "split" not in dividing
        or not {*dividing}.isdisjoint(assigned)
        or same_place(path, trained_on.path)
    ):
        return moved
    try:
        if family_of(moved).is_same_data(trained_on, digest)[0]:
            return moved
    except Refusal:  # other data may not be divided as the data of the run are
        pass
    return replace(moved, split="loose")


def rows_of(
    config: DataConfig, media: Media, shape: tuple[int, ...], digest: str
) -> ArrayLike | Rows | Tensor:
    """Return the rows of media, by the settings, the digest and the image shape of a run's data."""
    if isinstance(media, Place):
        return _rows_of_path(config, str(media), shape, digest)
    if _are_places(media):
        return _rows_of_paths(config, [str(each) for each in media], shape, digest)
    family, array = family_of(config), _as_array(media)
    if array is None or not family.reads_media:
        return media
    return family.rows_of(array, shape)


def media_of(config: DataConfig, rows: Array, media: Media, shape: tuple[int, ...]) -> Array:
    """Return rows in the form of the media that they were made of. The rows of a folder or of
    several paths stay rows.
    """
    given: FileOrArray | None = None
    if isinstance(media, Place):
        given = Path(media) if _is_single(Path(media)) else None
    elif not _are_places(media):
        given = _as_array(media)
    family = family_of(config)
    if given is None or not family.reads_media:
        return rows
    return family.media_of(rows, given, shape)


def _as_array(media: ArrayLike | Rows | Tensor) -> AnyArray | None:
    """Return an array in memory, or None for rows that are read when they are needed."""
    if isinstance(media, LazyRows):
        return None
    if isinstance(media, np.ma.MaskedArray):
        return media
    try:
        return np.asarray(plain_array(media))
    except ValueError:  # of rows of different lengths, which are refused later
        return None


def _rows_of_paths(
    config: DataConfig, paths: Sequence[str], shape: tuple[int, ...], digest: str
) -> Rows:
    """Return the rows of several files or folders, stacked."""
    parts = [_rows_of_path(config, path, shape, digest) for path in paths]
    for path, part in zip(paths, parts, strict=True):
        if part.shape[1:] != parts[0].shape[1:]:
            raise Refusal(
                f"{path}: {part.shape[1]} values in a row; {parts[0].shape[1]} expected, as in"
                f" {paths[0]}"
            )
    return stack(parts)


def _rows_of_path(config: DataConfig, path: str, shape: tuple[int, ...], digest: str) -> Rows:
    """Return the rows of a file, or all rows of a folder or an archive, split after split."""
    if isinstance(config, Generated):
        raise Refusal(
            f"{path}: a path, but data of kind '{config.kind}' is made, not read; rows or images"
            " expected"
        )
    family = family_of(config)
    place = Path(path).expanduser()
    if family.reads_media and _is_single(place):
        return family.rows_of(place, shape)
    _refuse_absent(config, path)
    dataset = open_dataset(data_at(path, config, digest), quiet=True)
    return stack([dataset.splits[name] for name in dataset.split_names("all")])


def _are_places(media: object) -> "TypeIs[Sequence[Place]]":
    if not isinstance(media, list | tuple):
        return False
    return len(media) > 0 and all(isinstance(each, Place) for each in media)


def is_single_file(config: DataConfig, path: str) -> bool:
    """Return whether a path is a single picture or recording that this kind of data reads. Refuse
    a path that does not exist.
    """
    _refuse_absent(config, path)
    return family_of(config).reads_media and _is_single(Path(path).expanduser())


def _refuse_absent(config: DataConfig, path: str) -> None:
    built_in = family_of(config).built_in
    if not (is_remote(path) or path in built_in or resolve_path(path).exists()):
        raise Refusal(f"{path}: no such file or folder")


def _is_single(path: Path) -> bool:
    """Return whether a path is a single file, and not an archive of images."""
    return path.is_file() and path.suffix.lower() != ARCHIVE
