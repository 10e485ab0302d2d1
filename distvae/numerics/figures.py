"""The groups of metrics. The code that computes a metric also declares its group."""

from collections.abc import Collection, Iterable
from typing import Literal

Group = Literal["quality", "sparsity", "bound", "time"]
SPREAD = "_std"
"""The suffix of the name of a standard deviation."""
_groups: dict[str, Group] = {}


def without_spreads(names: Collection[str]) -> list[str]:
    """Return the names of metrics, leaving out each `NAME_std` whose `NAME` is present."""
    spreads = {name + SPREAD for name in names}
    return [name for name in names if name not in spreads]


def declare(group: Group, *names: str) -> tuple[str, ...]:
    """Declare the group of some metrics, and return their names."""
    _groups.update(dict.fromkeys(names, group))
    return names


def group_of(name: str) -> Group | None:
    """Return the group of a metric, or None if no group was declared.

    A derived metric, such as `pesq_wb_std` or `snr_gain`, has the group of its base metric.
    """
    while name and name not in _groups:
        name = name.rpartition("_")[0]
    return _groups.get(name)


def groups_of(names: Iterable[str]) -> dict[str, Group]:
    """Return the groups of all metrics that have a group."""
    found = {name: group_of(name) for name in names}
    return {name: group for name, group in found.items() if group}
