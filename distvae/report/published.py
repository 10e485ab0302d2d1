"""A published table: the figures obtained beside the published ones."""

from collections.abc import Iterator

from distvae.numerics.numbers import shown, with_spread
from distvae.report.blocks import Block, Cell, Column, Row, Table, Text
from distvae.report.reading import Sweep, Trial
from distvae.tune.space import ROW

SUFFIX = "_published"


def is_table(sweep: Sweep) -> bool:
    """Return whether the trials of a sweep are the rows of a published table."""
    return bool(sweep.facts.get("rows"))


def published(sweep: Sweep) -> Iterator[Block]:
    """Yield a table with one line for each published figure, in the order of the paper."""
    trials = {}
    for trial in sweep.finished:
        if ROW in trial.result.values:
            trials[str(trial.result.values[ROW])] = trial
    lines = []
    for name in sweep.facts.get("rows", ()):
        if name in trials:
            for figure in _published_figures(trials[name]):
                lines.append(_line(name, figure, trials[name]))
    if lines:
        yield _published_table(lines, sweep.facts["seeds"])
    elif is_table(sweep):
        yield Text("Nothing was published for the rows that finished.")


def _published_table(lines: list[Row], seeds: int) -> Table:
    numeric = ("published", "obtained", "difference")
    columns = [Column("row"), Column("figure"), *(Column(name, True) for name in numeric)]
    caption = "The difference is the obtained figure minus the published one."
    if seeds > 1:
        caption += f" Means over {seeds} seeds, \N{PLUS-MINUS SIGN} their standard deviation."
    return Table(columns, lines, caption, sortable=True)


def _published_figures(trial: Trial) -> list[str]:
    names = trial.result.figures
    figures = [name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX)]
    return [figure for figure in figures if figure in names]


def _line(name: str, figure: str, trial: Trial) -> Row:
    figures = trial.result.figures
    expected, obtained = figures[figure + SUFFIX], figures[figure]
    difference = figures[f"{figure}_difference"]
    return Row(
        [
            Cell(name),
            Cell(figure, measure=figure),
            Cell(shown(expected), expected),
            Cell(with_spread(obtained, figures.get(f"{figure}_spread")), obtained),
            Cell(f"{difference:+.3g}", difference),
        ]
    )
