"""A sweep over the rows of a published table: what was obtained beside what was published."""

from collections.abc import Iterator

from distvae.report.blocks import Block, Cell, Column, Row, Table, Text
from distvae.report.numbers import shown, with_spread
from distvae.report.reading import Sweep, Trial
from distvae.tune.space import ROW

SUFFIX = "_published"


def rows_told(sweep: Sweep) -> bool:
    """Whether trials are the rows of a table."""
    return bool(sweep.facts.get("rows"))


def published(sweep: Sweep) -> Iterator[Block]:
    """A line for each row and figure for which something was published, in the table's order."""
    order = list(sweep.facts.get("rows", ()))
    found = {
        str(trial.result.values[ROW]): trial
        for trial in sweep.finished
        if ROW in trial.result.values
    }
    lines = [
        _line(name, figure, found[name])
        for name in order
        if name in found
        for figure in _figures(found[name])
    ]
    if not lines:
        if rows_told(sweep):
            yield Text("Nothing was published for the rows that finished.")
        return
    columns = [
        Column("row"),
        Column("figure"),
        *(Column(n, True) for n in ("published", "obtained", "difference")),
    ]
    seeds = sweep.facts["seeds"]
    spread = (
        f" Means over {seeds} seeds, \N{PLUS-MINUS SIGN} their standard deviation."
        if seeds > 1
        else ""
    )
    yield Table(
        columns,
        lines,
        f"The difference is what was obtained less what was published.{spread}",
        sortable=True,
    )


def _figures(trial: Trial) -> list[str]:
    return [name.removesuffix(SUFFIX) for name in trial.result.figures if name.endswith(SUFFIX)]


def _line(name: str, figure: str, trial: Trial) -> Row:
    told = trial.result.figures
    before, after, apart = told[figure + SUFFIX], told[figure], told[f"{figure}_difference"]
    obtained = Cell(with_spread(after, told.get(f"{figure}_spread")), after)
    return Row(
        [
            Cell(name),
            Cell(figure),
            Cell(shown(before), before),
            obtained,
            Cell(f"{apart:+.3g}", apart),
        ]
    )
