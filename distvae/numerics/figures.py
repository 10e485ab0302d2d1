"""The groups of figures. Each measure declares its figures where it is defined or registered."""

from collections.abc import Collection, Iterable
from typing import Literal

Group = Literal["quality", "sparsity", "bound", "time"]
SPREAD = "_std"
"""The end of the name of a spread."""
_groups: dict[str, Group] = {}


def without_spreads(names: Collection[str]) -> list[str]:
    """Return the names of figures without those of the spread (`_std`) of another one of them."""
    spreads = {name + SPREAD for name in names}
    return [name for name in names if name not in spreads]


def declare(group: Group, *names: str) -> tuple[str, ...]:
    """Declare the group of some figures, and return their names."""
    _groups.update(dict.fromkeys(names, group))
    return names


def group_of(name: str) -> Group | None:
    """Return the group of a figure, or None if none was declared.

    A figure that is derived from another, such as `pesq_wb_std` or `snr_gain`, is in its group.
    """
    while name and name not in _groups:
        name = name.rpartition("_")[0]
    return _groups.get(name)


def groups_of(names: Iterable[str]) -> dict[str, Group]:
    """Return the groups of those figures that have one."""
    found = {name: group_of(name) for name in names}
    return {name: group for name, group in found.items() if group}
