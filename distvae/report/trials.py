"""The trials of a sweep as one table: what they tried, what they are worth, and how they ended."""

from collections.abc import Iterator, Sequence
from typing import Any

from distvae.report.blocks import Cell, Column, Order, Row, Table, facts
from distvae.report.numbers import setting, shown, with_spread
from distvae.report.reading import Sweep
from distvae.train.progress import format_duration
from distvae.tune.results import Result

STATES = {
    "finished": "finished",
    "failed": "failed",
    "halted": "halted early",
    "stopped": "stopped",
    "training": "unfinished",
}
"""How a trial ended, in words."""
UNBEATEN = "\N{BLACK STAR}"
CAUSE = "cause"
"""The column of what went wrong."""


def better(mode: str) -> str:
    """What is better in a figure."""
    return "larger" if mode == "max" else "smaller"


def tables(sweep: Sweep) -> Iterator[Table]:
    """Every trial, the best first; why some did not finish; and the figures that are the same for
    all.
    """
    results = [trial.result for trial in sweep.trials]
    names, same = _figures(sweep)
    keys = list(dict.fromkeys(key for result in results for key in result.values))
    numeric = {key: all(_number(result.values.get(key, 0)) for result in results) for key in keys}
    causes = any(result.cause for result in results)
    columns = [
        Column("trial", numeric=True),
        Column(UNBEATEN),
        Column("state"),
        *(Column(key, numeric[key]) for key in keys),
        *(Column(name, True, _order(sweep, name)) for name in names),
        Column("epochs", True),
        Column("last bound", True),
        Column("time", True),
        *([Column(CAUSE)] if causes else []),
    ]
    rows = [Row(list(_cells(result, keys, names, causes)), _tone(result)) for result in results]
    seeds = sweep.facts["seeds"]
    spread = (
        f" Means over {seeds} seeds, \N{PLUS-MINUS SIGN} their standard deviation."
        if seeds > 1
        else ""
    )
    caption = (
        f"{UNBEATEN}: no other trial is better in one figure it is ranked by and no worse in the"
        f" others.{spread}"
    )
    yield Table(columns, rows, caption, sortable=True)
    if causes:
        yield facts(
            [(f"trial {r.number}, {STATES[r.state]}", r.cause) for r in results],
            "Why some did not finish.",
        )
    if same:
        yield facts(same, "What judging gave alike for every trial that finished.")


def _figures(sweep: Sweep) -> tuple[list[str], list[tuple[str, str]]]:
    """The figures worth a column, those trials are ranked by first; and the others with their one
    value.
    """
    found = [trial.result.figures for trial in sweep.finished]
    names = dict.fromkeys([*sweep.metrics, *(name for figures in found for name in figures)])
    told = [name for name in names if not name.endswith(("_std", "_spread"))]
    same = [
        name
        for name in told
        if name not in sweep.metrics and len(found) > 1 and _agree(found, name)
    ]
    return [name for name in told if name not in same], [
        (name, shown(found[0][name])) for name in same
    ]


def _agree(found: Sequence[dict[str, float]], name: str) -> bool:
    return len({figures.get(name) for figures in found}) == 1 and not any(
        f.get(f"{name}_spread") for f in found
    )


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _order(sweep: Sweep, name: str) -> Order:
    """The table comes sorted by the first figure."""
    if name != next(iter(sweep.metrics)) or not sweep.finished:
        return ""
    return "descending" if sweep.metrics[name] == "max" else "ascending"


def _tone(result: Result) -> str:
    return "unbeaten" if result.unbeaten else "" if result.state == "finished" else result.state


def _cells(
    result: Result, keys: Sequence[str], names: Sequence[str], causes: bool
) -> Iterator[Cell]:
    yield Cell(str(result.number), result.number)
    yield Cell(UNBEATEN if result.unbeaten else "", float(result.unbeaten))
    yield Cell(STATES[result.state])
    for key in keys:
        value = result.values.get(key)
        yield Cell(
            "" if key not in result.values else setting(value), value if _number(value) else None
        )
    for name in names:
        yield _figure(result.figures, name)
    yield Cell(str(result.epoch) if result.epoch else "", result.epoch or None)
    yield Cell("" if result.bound is None else shown(result.bound), result.bound)
    yield Cell(format_duration(result.seconds) if result.seconds else "", result.seconds or None)
    if causes:
        yield Cell(result.cause)


def _figure(figures: dict[str, float], name: str) -> Cell:
    if name not in figures:
        return Cell("")
    return Cell(with_spread(figures[name], figures.get(f"{name}_spread")), figures[name])
