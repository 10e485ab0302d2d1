"""How far figures are above what was published, and how many of them reach it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from distvae.report.results.figures import difference, signed
from distvae.report.results.rows import RowGroup


@dataclass(frozen=True, order=True)
class Distance:
    """How far a row, or the mean of several, is above what was published for it, as it is shown."""

    value: float
    row: str
    margin: float
    """How far below what was published a row may be that reaches it."""
    both_ways: bool
    """Whether it may be no further above it either."""

    @property
    def reached(self) -> bool:
        """Whether the row reaches what was published."""
        size = abs(self.value) if self.both_ways else -self.value
        return size <= self.margin


def table_distances(compared: Mapping[str, list[RowGroup]], figure: str) -> tuple[Distance, ...]:
    """Return the distances of the rows that have a published figure, lowest first."""
    found = (_distance(name, groups, figure) for name, groups in compared.items())
    return tuple(sorted(filter(None, found)))


def _distance(name: str, groups: list[RowGroup], figure: str) -> Distance | None:
    """Return the mean distance of some rows, None if no figure was published for them."""
    known = [
        (published, value)
        for group in groups
        if (published := group.published(figure)) is not None
        and (value := difference(group, figure)) is not None
    ]
    if not known:
        return None
    published, value = map(fmean, zip(*known, strict=True))
    count = figure == "active"
    margin = 0.1 * published if count else 2 * groups[0].published_spread(figure)
    return Distance(float(signed(value, figure)), name, margin, count)


def range_cells(distances: tuple[Distance, ...], figure: str) -> list[str]:
    """Return how many rows are at or above and reach what was published, and their range."""
    above = sum(distance.value >= 0 for distance in distances)
    return [
        f"{above} of {len(distances)}",
        reached_of(distances),
        signed(median(distance.value for distance in distances), figure),
        *(f"{signed(d.value, figure)} ({d.row})" for d in (distances[0], distances[-1])),
    ]


def reached_of(distances: Sequence[Distance]) -> str:
    """Say how many figures are reached, and of how many."""
    return f"{sum(distance.reached for distance in distances)} of {len(distances)}"
