"""The index of results: how close each table is to its paper, then the claims by subject."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import fmean
from urllib.parse import quote

from distvae.files.markdown import markdown_table
from distvae.files.refusal import Refusal, nearest
from distvae.numerics.numbers import counted
from distvae.report.results.claims import EVERYTHING, FILE, Claim, Contents, Paper, Section
from distvae.report.results.distances import (
    Distance,
    range_cells,
    reached_of,
    table_distances,
)
from distvae.report.results.figures import (
    FIGURES,
    decimals,
    half_range,
    signed,
)
from distvae.report.results.rows import RowGroup

TITLE = "# Results"
"""The first line of the index."""
Tables = Mapping[str, list[RowGroup]]


@dataclass(frozen=True)
class Index:
    """The index of results, as Markdown."""

    tables: Tables
    contents: Contents
    pages: str
    """The folder of the pages as seen from the index."""

    def lines(self) -> Iterator[str]:
        """Return the lines of the index."""
        self._refuse_unmatched()
        self._refuse_double()
        yield TITLE
        if self.contents.intro:
            yield from ("", self.contents.intro)
        if self.contents.summary:
            yield from ("", *(f"- {line}" for line in self.contents.summary))
        yield from self._distances()
        if self.contents.sections:
            yield from ("", LEGEND)
        for section in self.contents.sections:
            yield from self._section(section)
        if others := [table for table in self.tables if table not in self.contents.tables]:
            yield from ("", "## Other tables", "", self._links(others))

    def _refuse_unmatched(self) -> None:
        named = {"means": self.contents.means}
        for paper in self.contents.papers:
            named |= {f"papers: {paper.name}": paper.rows}
        for field, patterns in named.items():
            for pattern in patterns:
                if not any(fnmatchcase(row, pattern) for row in self._rows()):
                    raise Refusal(f"{FILE}: {field}: no row {pattern}; TABLE/ROWS with * expected")

    def _refuse_double(self) -> None:
        """Raise `Refusal` if two papers count the same row."""
        for row in self._rows():
            table, _, name = row.partition("/")
            names = [paper.name for paper in self.contents.papers if paper.has(table, name)]
            if len(names) > 1:
                raise Refusal(
                    f"{FILE}: papers: {row} counts for {' and '.join(names)}; one expected"
                )

    def _rows(self) -> list[str]:
        """Return all rows as TABLE/ROW."""
        return [f"{table}/{group.name}" for table in self.tables for group in self.tables[table]]

    def _compared(self, paper: Paper, table: str) -> dict[str, list[RowGroup]]:
        """Return the rows of a paper that are compared one by one, and those whose mean is."""
        found: dict[str, list[RowGroup]] = {}
        for group in self.tables[table]:
            if not paper.has(table, group.name):
                continue
            path = f"{table}/{group.name}"
            named = (pattern for pattern in self.contents.means if fnmatchcase(path, pattern))
            found.setdefault(next(named, path).removeprefix(f"{table}/"), []).append(group)
        return found

    def distances(self, paper: Paper) -> dict[tuple[str, str], tuple[Distance, ...]]:
        """Return the distances of a paper's rows from what was published, by table and figure."""
        order = [table for table in self.contents.tables if table in self.tables]
        order += [table for table in self.tables if table not in order]
        found = {}
        for table in order:
            compared = self._compared(paper, table)
            published = {name for group in self.tables[table] for name in group.rows[0].published}
            for figure in [*FIGURES, *sorted(published - FIGURES.keys())]:
                if distances := table_distances(compared, figure):
                    found[table, figure] = distances
        return found

    def _distances(self) -> Iterator[str]:
        """Return the table of how far each table is from what was published, and the counts."""
        rows, counts = [], []
        for paper in self.contents.papers or (EVERYTHING,):
            found: list[Distance] = []
            for (table, figure), distances in self.distances(paper).items():
                groups = [group for group in self.tables[table] if paper.has(table, group.name)]
                scales = {
                    group.scale or "-" for group in groups if group.published(figure) is not None
                }
                head = [self._link(table), FIGURES.get(figure, figure), ", ".join(sorted(scales))]
                name = [paper.name] * bool(self.contents.papers)
                rows.append([*name, *head, *range_cells(distances, figure)])
                found += distances
            counts.append(f"{paper.name} {reached_of(found)}".strip())
        if rows:
            head = [*["paper"] * bool(self.contents.papers), *DISTANCES]
            rules = f"{REACHED} {COUNTED}" if self.contents.papers else REACHED
            rules += f" {MEANS}" if self.contents.means else ""
            yield from ("", "## Ours minus published", "", *markdown_table(head, rows))
            yield from ("", f"Reached: {', '.join(counts)}. {rules}")

    def _section(self, section: Section) -> Iterator[str]:
        pages = self._links([table for table in section.tables if table in self.tables])
        yield from ("", f"## {section.name}", "", f"{section.about} All rows: {pages}".strip())
        if section.claims:
            head = ["claim", "published", "ours", "spread", "command"]
            rows = [self._claim(claim) for claim in section.claims]
            yield from ("", *markdown_table(head, rows))

    def _claim(self, claim: Claim) -> list[str]:
        """Return the cells of a claim."""
        try:
            groups = [self._group(claim.table, row) for row in claim.rows()]
            subtracted = [self._group(claim.table, row) for row in claim.subtracted_rows()]
            values = _claimed_values(claim, groups, subtracted)
            published = self._published(claim, groups, subtracted)
        except Refusal as error:
            raise Refusal(f"{FILE}: claim '{claim.claim}': {error}") from error
        smallest = next((group for group in groups if group.scale == "day"), groups[0])
        return [
            claim.claim,
            "-" if published is None else _number(published, claim),
            self._link(claim.table, _ours(fmean(values), published, claim, smallest)),
            _spread(values, claim),
            _command(claim, smallest),
        ]

    def _group(self, table: str, row: str) -> RowGroup:
        """Return the rows of a name, or raise `Refusal`."""
        if table not in self.tables:
            raise Refusal(f"no table {table}; {nearest(table, self.tables)}")
        groups = {group.name: group for group in self.tables[table]}
        if row not in groups:
            raise Refusal(f"no row {row} in {table}; {nearest(row, groups)}")
        return groups[row]

    def _published(
        self, claim: Claim, groups: list[RowGroup], subtracted: list[RowGroup]
    ) -> float | None:
        """Return the published figure, or the difference between two."""
        if claim.source:
            table, _, row = claim.source.partition("/")
            groups = [self._group(table, row)]
        mean = _published_mean(groups, claim.figure)
        if mean is None or not subtracted:
            return mean
        other = _published_mean(subtracted, claim.figure)
        return None if other is None else mean - other

    def _links(self, tables: list[str]) -> str:
        return ", ".join(self._link(table) for table in tables) + "."

    def _link(self, table: str, text: str = "") -> str:
        return f"[{text or table}]({quote((Path(self.pages) / table).as_posix())}.md)"


LEGEND = (
    "In the tables below, ours is the mean over seeds, with its difference from the published "
    "figure in brackets. The spread is half the range. A dagger † marks scale `day`: fewer epochs, "
    "less data or other settings than at `full`. `distvae reproduce` needs `--data FOLDER`."
)


DISTANCES = ["table", "figure", "scale", "at or above", "reached", "median", "lowest", "highest"]
REACHED = (
    "A figure is reached if ours is at or above the published one, or below it by at most two of "
    "its standard deviations, where they are known. Active latents must be within 10 %."
)
COUNTED = (
    "Each published figure counts once, by the rows that follow its paper; our own settings are "
    "not counted. Baselines are counted apart: one far above its published figure is no success."
)
MEANS = "A name with * stands for several rows, whose mean is compared with a published mean."


def _claimed_values(
    claim: Claim, groups: list[RowGroup], subtracted: list[RowGroup]
) -> list[float]:
    """Return the figure of every seed of a row, or of several rows the mean of each. Subtract that
    of the row to subtract.
    """
    by_row = [_seed_values(group, claim.figure) for group in groups]
    if subtracted:
        others = [_seed_values(group, claim.figure) for group in subtracted]
        by_row = [_differences(*pair) for pair in zip(by_row, others, strict=True)]
    return by_row[0] if len(by_row) == 1 else [fmean(values) for values in by_row]


def _seed_values(group: RowGroup, figure: str) -> list[float]:
    """Return a figure of each seed of a row. Raise `Refusal` if none has it."""
    values = group.values(figure)
    if not values:
        raise Refusal(f"no {figure} in row {group.name}")
    return values


def _differences(values: list[float], others: list[float]) -> list[float]:
    """Return the differences seed by seed; from the mean where there are more or fewer others."""
    if len(others) != len(values):
        others = [fmean(others)] * len(values)
    return [value - other for value, other in zip(values, others, strict=True)]


def _published_mean(groups: list[RowGroup], figure: str) -> float | None:
    known = [value for group in groups if (value := group.published(figure)) is not None]
    return fmean(known) if len(known) == len(groups) else None


def _number(value: float, claim: Claim) -> str:
    """Return a published figure or difference as it is shown."""
    return signed(value, claim.figure) if claim.minus else f"{value:g}"


def _ours(mean: float, published: float | None, claim: Claim, group: RowGroup) -> str:
    """Return our figure, its distance from the published one, and a dagger below full scale."""
    text = f"{mean:.{decimals(mean, claim.figure)}f}"
    if claim.minus:
        text = signed(mean, claim.figure)
    elif published is not None:
        text += f" ({signed(mean - published, claim.figure)})"
    return f"{text} †" if published is not None and group.scale == "day" else text


def _spread(values: list[float], claim: Claim) -> str:
    """Return half the range of the values and how many they are."""
    count = counted(len(values), "row" if len(claim.rows()) > 1 else "seed")
    if len(values) == 1:
        return count
    return f"± {half_range(values):.{decimals(fmean(values), claim.figure)}f}, {count}"


def _command(claim: Claim, group: RowGroup) -> str:
    """Return the command that makes the rows of a claim, '-' if no table reproduces them."""
    if claim.command:
        return f"`{claim.command}`"
    if not group.scale:
        return "-"
    scale = "" if group.scale == "full" else f" --scale {group.scale}"
    names = [name.replace("{over}", "*") for name in (claim.row, claim.minus) if name]
    only = [f"--only '{name}'" if "*" in name else f"--only {name}" for name in names]
    return f"`distvae reproduce {claim.table}{scale} {' '.join(only)}`"
