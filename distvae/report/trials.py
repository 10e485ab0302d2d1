"""The trials of a sweep as one table: settings, figures, and how each ended."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeGuard

from distvae.files.plain import Plain
from distvae.numerics.figures import without_spreads
from distvae.numerics.numbers import setting, shown, with_spread
from distvae.report.blocks import Cell, Column, Order, Row, Table, facts
from distvae.report.exhibits import Exhibits
from distvae.report.reading import Sweep
from distvae.train.progress import format_duration
from distvae.tune.results import Result
from distvae.tune.table import ORIGIN

STATES = {
    "finished": "finished",
    "failed": "failed",
    "halted": "halted early",
    "stopped": "stopped",
    "training": "unfinished",
}
"""The states of trials, in words."""
UNBEATEN = "\N{BLACK STAR}"
CAUSE = "cause"
"""The heading of the column that says why a trial failed."""


@dataclass(frozen=True)
class Layout:
    """The columns of the table that depend on the sweep."""

    ranked: list[str]
    """The figures that rank the trials."""
    keys: list[str]
    """The settings that some trial varies."""
    others: list[str]
    """The other figures."""
    states: bool
    """Whether some trial did not finish."""
    causes: bool
    """Whether some trial has a cause of failure."""
    origins: bool = False
    """Whether some trial continues another."""


def better(mode: str) -> str:
    """Return which values of a figure are better."""
    return "larger" if mode == "max" else "smaller"


def tables(sweep: Sweep, chosen: Exhibits) -> Iterator[Table]:
    """Yield the table of all trials, the causes of failures, and the figures that never differ."""
    results = [trial.result for trial in sweep.trials]
    others, constant = _split_figures(sweep)
    keys = dict.fromkeys(key for result in results for key in result.values)
    ended = any(each.state != "finished" for each in results)
    failed, branched = any(each.cause for each in results), any(each.origin for each in results)
    layout = Layout(list(sweep.metrics), list(keys), others, ended, failed, branched)
    rows = []
    for result in results:
        target = chosen[result.number].anchor if result.number in chosen else ""
        rows.append(Row(list(_cells(result, layout)), _tone(result), target))
    yield Table(_columns(sweep, layout), rows, _caption(sweep), sortable=True)
    if layout.causes:
        causes = [(f"trial {r.number}, {STATES[r.state]}", r.cause) for r in results]
        yield facts(causes, "Why some trials did not finish.")
    if constant:
        same = [Row((Cell(name, measure=name), Cell(text))) for name, text in constant]
        caption = "Figures that are equal for every trial that finished."
        yield Table((Column("what"), Column("value")), same, caption)


def _columns(sweep: Sweep, layout: Layout) -> list[Column]:
    state = Column("state", minor=not layout.states)
    columns = [Column("trial", numeric=True), Column(UNBEATEN), state]
    columns += [Column(name, True, _order(sweep, name), name) for name in layout.ranked]
    for key in layout.keys:
        values = [trial.result.values.get(key, 0) for trial in sweep.trials]
        columns.append(Column(key, all(_is_number(value) for value in values)))
    columns += [Column(ORIGIN)] * layout.origins
    columns += [Column(name, True, measure=name, minor=True) for name in layout.others]
    columns += [Column("epochs", True, minor=True)]
    columns += [Column("last bound", True, measure="bound", minor=True)]
    columns += [Column("time", True, minor=True)]
    columns += [Column(CAUSE, minor=True)] * layout.causes
    return columns


def _caption(sweep: Sweep) -> str:
    caption = (
        f"{UNBEATEN}: no other trial is better in one of the ranking figures and no worse in the "
        "others."
    )
    seeds = sweep.facts["seeds"]
    if seeds > 1:
        caption += f" Means over {seeds} seeds, \N{PLUS-MINUS SIGN} their standard deviation."
    return caption


def _split_figures(sweep: Sweep) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the figures worth a column beside the ranking ones, and the constant with values."""
    by_trial = [trial.result.figures for trial in sweep.finished]
    columns, constant = [], []
    for name in without_spreads(dict.fromkeys(name for each in by_trial for name in each)):
        if name in sweep.metrics or name.endswith("_spread"):
            continue
        if len(by_trial) > 1 and _is_constant(by_trial, name):
            constant.append((name, shown(by_trial[0][name])))
        else:
            columns.append(name)
    return columns, constant


def _is_constant(by_trial: Sequence[dict[str, float]], name: str) -> bool:
    values = {figures.get(name) for figures in by_trial}
    varies_by_seed = any(figures.get(f"{name}_spread") for figures in by_trial)
    return len(values) == 1 and not varies_by_seed


def _is_number(value: Plain) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _order(sweep: Sweep, name: str) -> Order:
    """Return how the rows are sorted by a figure; the table arrives sorted by the first one."""
    if name != next(iter(sweep.metrics)) or not sweep.finished:
        return ""
    return "descending" if sweep.metrics[name] == "max" else "ascending"


def _tone(result: Result) -> str:
    if result.unbeaten:
        return "unbeaten"
    return "" if result.state == "finished" else result.state


def _cells(result: Result, layout: Layout) -> Iterator[Cell]:
    yield Cell(str(result.number), result.number)
    yield Cell(UNBEATEN if result.unbeaten else "", float(result.unbeaten))
    yield Cell(STATES[result.state])
    yield from (_figure_cell(result.figures, name) for name in layout.ranked)
    yield from (_setting_cell(result, key) for key in layout.keys)
    if layout.origins:
        yield Cell(result.origin)
    yield from (_figure_cell(result.figures, name) for name in layout.others)
    yield Cell(str(result.epoch) if result.epoch else "", result.epoch or None)
    yield Cell("" if result.bound is None else shown(result.bound), result.bound)
    yield Cell(format_duration(result.seconds) if result.seconds else "", result.seconds or None)
    if layout.causes:
        yield Cell(result.cause)


def _setting_cell(result: Result, key: str) -> Cell:
    if key not in result.values:
        return Cell("")
    value = result.values[key]
    return Cell(setting(value), value if _is_number(value) else None)


def _figure_cell(figures: dict[str, float], name: str) -> Cell:
    if name not in figures:
        return Cell("")
    return Cell(with_spread(figures[name], figures.get(f"{name}_spread")), figures[name])
