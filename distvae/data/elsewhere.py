"""Data at another path than that of a run: its own, moved there, or other data of the kind."""

from collections.abc import Collection
from dataclasses import replace

from distvae.config import DataConfig
from distvae.data.family import family_of, same_place
from distvae.files.refusal import Refusal


def data_at(
    path: str, trained_on: DataConfig, digest: str, assigned: Collection[str] = ()
) -> DataConfig:
    """Return the settings for data at a path.

    A run's own data keep their splits where they were moved. Other data need none, and no split is
    drawn of them, unless `assigned` names settings that say how to.
    """
    moved = replace(trained_on, path=path)
    dividing = family_of(trained_on).dividing
    if (
        "split" not in dividing
        or not {*dividing}.isdisjoint(assigned)
        or same_place(path, trained_on.path)
        or _is_moved(moved, trained_on, digest)
    ):
        return moved
    return replace(moved, split="loose")


def _is_moved(moved: DataConfig, trained_on: DataConfig, digest: str) -> bool:
    """Return whether data have the content and the splits of a run's."""
    try:
        return family_of(moved).is_same_data(trained_on, digest)[0]
    except Refusal:  # they cannot be divided as the run's are
        return False
