"""The figures of trials by the value of each setting, where trials are too few for importances."""

from collections.abc import Iterator, Sequence

from distvae.numerics.numbers import setting, shown
from distvae.report.blocks import Cell, Column, Row, Table
from distvae.report.reading import Sweep
from distvae.tune.results import Result

MAX_VALUES = 6
"""Settings with more values than this, such as those of an interval, are left out."""


def figures_by_value(sweep: Sweep) -> Iterator[Table]:
    """Yield a table with a row for each value of a setting, if some setting differs."""
    results = [trial.result for trial in sweep.finished]
    names = list(sweep.metrics)
    rows = list(_rows(results, names))
    if rows:
        columns = [Column("setting"), Column("value"), Column("trials", numeric=True)]
        columns += [Column(name, numeric=True, measure=name) for name in names]
        yield Table(columns, rows, "Means of the trials with each value, and their ranges.")


def _rows(results: Sequence[Result], names: Sequence[str]) -> Iterator[Row]:
    for key in dict.fromkeys(key for result in results for key in result.values):
        by_value: dict[str, list[Result]] = {}
        for result in results:
            if key in result.values:
                by_value.setdefault(setting(result.values[key]), []).append(result)
        repeated = any(len(members) > 1 for members in by_value.values())
        if repeated and 1 < len(by_value) <= MAX_VALUES:
            for value, members in by_value.items():
                cells = [Cell(key), Cell(value), Cell(str(len(members)), len(members))]
                yield Row([*cells, *(_range(members, name) for name in names)])


def _range(results: Sequence[Result], name: str) -> Cell:
    values = [result.figures[name] for result in results]
    mean = sum(values) / len(values)
    if len(values) == 1:
        return Cell(shown(mean), mean)
    return Cell(f"{shown(mean)} ({shown(min(values))} to {shown(max(values))})", mean)
