"""The index of results: how close each table is to its paper, then the claims by subject."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import fmean
from urllib.parse import quote

from distvae.files.markdown import markdown_table
from distvae.files.refusal import Refusal, nearest
from distvae.numerics.numbers import counted
from distvae.report.results.claims import FILE, Claim, Contents, Section
from distvae.report.results.distances import (
    Distance,
    range_cells,
    reached_in_all,
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
        self._refuse_unknown("other_data", self.contents.other_data)
        self._refuse_unknown("repeated", self.contents.repeated)
        self._refuse_unmatched()
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

    def _refuse_unknown(self, field: str, named: Sequence[str]) -> None:
        for table in named:
            if table not in self.tables:
                raise Refusal(f"{FILE}: {field}: no table {table}; {nearest(table, self.tables)}")

    def _refuse_unmatched(self) -> None:
        for pattern in self.contents.means:
            table, _, rows = pattern.partition("/")
            if not any(fnmatchcase(group.name, rows) for group in self.tables.get(table, [])):
                raise Refusal(f"{FILE}: means: no row {pattern}; TABLE/ROWS with * expected")

    def _compared(self, table: str) -> dict[str, list[RowGroup]]:
        """Return the rows of a table that are compared one by one, and those whose mean is."""
        found: dict[str, list[RowGroup]] = {}
        for group in self.tables[table]:
            path = f"{table}/{group.name}"
            named = (pattern for pattern in self.contents.means if fnmatchcase(path, pattern))
            found.setdefault(next(named, path).removeprefix(f"{table}/"), []).append(group)
        return found

    def _distances(self) -> Iterator[str]:
        """Return the table of how far each table is from what was published."""
        order = [table for table in self.contents.tables if table in self.tables]
        order += [table for table in self.tables if table not in order]
        rows = []
        listed = set()
        found: dict[bool, list[Distance]] = {False: [], True: []}
        for table in order:
            is_other = table in self.contents.other_data
            for figure in FIGURES:
                distances = table_distances(self._compared(table), figure)
                if distances and (figure, *distances) not in listed:  # tables may share their runs
                    listed.add((figure, *distances))
                    scales = {group.scale or "-" for group in self.tables[table]}
                    head = [self._link(table), FIGURES[figure], ", ".join(sorted(scales))]
                    rows.append([*head, *range_cells(distances, figure)])
                    if table not in self.contents.repeated:
                        found[is_other] += distances
        if rows:
            rules = f"{REACHED} {REPEATED}" if self.contents.repeated else REACHED
            rules += f" {MEANS}" if self.contents.means else ""
            yield from ("", "## Ours minus published", "", *markdown_table(DISTANCES, rows))
            yield from ("", f"{reached_in_all(found[False], found[True])} {rules}")

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
    "less data or other settings than were published. `distvae reproduce` needs `--data FOLDER`."
)


DISTANCES = ["table", "figure", "scale", "at or above", "reached", "median", "lowest", "highest"]
REACHED = (
    "A figure is reached if ours is at or above the published one, or below it by at most two of "
    "its standard deviations over runs, where they are known. Active latents must be within 10 %."
)
REPEATED = (
    "Each published figure counts once, in the table that follows the paper; tables of our own "
    "settings are left out of the count."
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
