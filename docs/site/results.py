"""Fill in docs/results.md and the rows of docs/results/TABLE.md: `python -m docs.site.results`.

A page of results is written by hand down to `## Rows`. `claims.yaml` lists the claims, and the
table and row that support each claim. With `--add RUN --table TABLE`, an evaluated run first
becomes a row.
"""

import argparse
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import fmean, median

import yaml

from distvae.files.paths import atomic_file
from distvae.files.untrusted import markdown_table
from distvae.numerics.metrics import counted
from distvae.reproduce.figures import draw_figures
from distvae.reproduce.rows import RowGroup, add_run, group_seeds, read_row, read_rows
from distvae.reproduce.table import half_range, read_table, table_names

DOCS = Path(__file__).parents[1]
FIGURES = {
    "psnr": "PSNR",
    "snr_gain": "SNR gain",
    "pesq_wb_gain": "PESQ wb gain",
    "val_bound": "validation bound",
    "processor_s": "processor s",
    "pesq_wb": "PESQ wb",
    "pesq_nb_raw": "PESQ raw nb",
    "stoi": "STOI",
    "estoi": "ESTOI",
    "si_sdr": "SI-SDR",
    "hoyer": "Hoyer",
    "objective": "objective",
    "bound": "bound",
    "probe_relu": "probe, ReLU",
    "probe_sgd": "probe, SGD",
    "probe_linear": "probe, linear",
    "mig": "MIG",
    "dci": "DCI",
    "sap": "SAP",
    "active": "active",
    "cosine": "cosine",
    "matched": "matched",
    "mcc": "MCC",
    "mcc_ood": "MCC out of distribution",
    "recovered": "recovered",
    "reliability": "reliability",
    "ratio": "step / products",
    "step_us": "step, us",
    "epoch_s": "epoch, s",
    "products_s": "its products, s",
    "ingest_s": "ingest, s",
    "one_resume_s": "resume, s",
    "autograd_us": "by autograd, us",
    "products_us": "products, us",
    "peer_s": "other program, s",
    "ours_s": "ours, s",
    "speedup": "times as fast, median",
    "torchrun_gain": "two by torchrun",
    "ray1_gain": "one under Ray",
    "ray2_gain": "two under Ray",
}
"""The names of figures on pages, in the order in which published figures are shown."""
DECIMALS = {"psnr": 2, "snr": 2, "snr_gain": 2, "pesq_wb_gain": 2, "ssim": 3}
ROWS = "\n## Rows\n"
"""The heading above the generated part of a page."""
LEGEND = (
    "A figure is the mean over seeds ± half their range, or has one seed; the published figure is "
    "in brackets. A dagger † marks scale `day`: fewer epochs, less data or other settings than at "
    "`full`. The file of rows has all rows and figures, settings, seconds and commits."
)
RULES = (
    "A figure is reached if ours is at or above the published one, or below it by at most two of "
    "its standard deviations, where they are known, and active latents if within 10 %. A name with "
    "* is a mean of rows."
)
Groups = Mapping[str, RowGroup]


@dataclass(frozen=True)
class Claim:
    """A metric of a row, or the difference between two rows."""

    claim: str
    table: str
    row: str
    figure: str
    minus: str = ""
    """The row to subtract."""
    over: tuple[str, ...] = ()
    """Words that replace {over} in `row` and `minus`. The claim covers all of them."""
    source: str = ""
    """TABLE/ROW with the published metric, if it is another row."""
    command: str = ""
    """The command that makes the row. The default is `distvae reproduce` with table, scale and
    name.
    """


@dataclass(frozen=True)
class Paper:
    """A paper, or its baselines, whose published metrics are counted together."""

    name: str
    rows: tuple[str, ...]
    """TABLE/PATTERN of the rows that follow the paper."""

    def has(self, table: str, row: str) -> bool:
        """Return whether a row follows the paper."""
        return any(fnmatchcase(f"{table}/{row}", pattern) for pattern in self.rows)


@dataclass(frozen=True)
class Page:
    """The layout of the rows on a page."""

    figures: tuple[str, ...] = ()
    """The figures; by default the published ones."""
    columns: tuple[str, ...] = ()
    """Patterns of names, a column of a grid each; what * stands for is the name of the line."""
    fold: tuple[str, ...] = ()
    """Patterns of names whose rows are shown as one."""
    hide: tuple[str, ...] = ()
    """Patterns of names whose rows are only in the file of rows."""


@dataclass(frozen=True)
class Section:
    """A section of the index."""

    name: str
    about: str
    tables: tuple[str, ...]
    claims: tuple[Claim, ...] = ()


@dataclass(frozen=True)
class Contents:
    """The index without its numbers."""

    intro: str
    summary: tuple[str, ...]
    sections: tuple[Section, ...]
    papers: tuple[Paper, ...]
    means: tuple[str, ...]
    """TABLE/PATTERN of rows whose mean is compared with a published mean."""
    pages: Mapping[str, Page]
    """The tables whose page does not show the published figures alone."""


def read_contents(folder: Path) -> Contents:
    """Return the contents of `claims.yaml`."""
    tree = yaml.safe_load((folder / "claims.yaml").read_text())
    papers = tuple(Paper(each["name"], tuple(each["rows"])) for each in tree.pop("papers"))
    sections = []
    for each in tree.pop("sections"):
        claims = tuple(_claim(**claim) for claim in each.pop("claims", ()))
        sections.append(Section(**each, claims=claims))
    pages = {
        table: Page(**{key: tuple(values) for key, values in page.items()})
        for table, page in tree.pop("pages", {}).items()
    }
    return Contents(papers=papers, sections=tuple(sections), pages=pages, **tree)


def _claim(over: Iterable[object] = (), **fields: str) -> Claim:
    words = {name: str(value) for name, value in fields.items()}
    return Claim(**words, over=tuple(map(str, over)))


@dataclass(frozen=True, order=True)
class Distance:
    """The shown difference between a row, or the mean of several rows, and the published value."""

    value: float
    row: str
    margin: float
    """The margin below the published value within which a row still reaches it."""
    both_ways: bool
    """Whether a row must also stay within the margin above the published value."""

    @property
    def reached(self) -> bool:
        """Whether the row reaches the published value."""
        size = abs(self.value) if self.both_ways else -self.value
        return size <= self.margin


def distance(name: str, groups: Iterable[RowGroup], figure: str) -> Distance | None:
    """Return the mean distance of some rows, or None if no published metric exists for them."""
    known = []
    spread = 0.0
    for group in groups:
        published, value = group.published(figure), difference(group, figure)
        if published is not None and value is not None:
            known.append((published, value))
            spread = spread or group.published_spread(figure)
    if not known:
        return None
    published, value = map(fmean, zip(*known, strict=True))
    is_count = figure == "active"
    margin = 0.1 * published if is_count else 2 * spread
    return Distance(float(signed(value, figure)), name, margin, is_count)


def difference(group: RowGroup, figure: str) -> float | None:
    """Return the mean over seeds minus the published value, if both are known."""
    published, values = group.published(figure), group.values(figure)
    return fmean(values) - published if values and published is not None else None


class Index:
    """The index of results: the distance of each table from its paper, then claims by subject."""

    def __init__(self, tables: Mapping[str, Groups], contents: Contents) -> None:
        self.tables, self.contents = tables, contents
        rows = [f"{table}/{name}" for table, groups in tables.items() for name in groups]
        for pattern in (*contents.means, *(row for paper in contents.papers for row in paper.rows)):
            if not any(fnmatchcase(row, pattern) for row in rows):
                raise SystemExit(f"claims.yaml: no row {pattern}")
        for row in rows:
            table, _, name = row.partition("/")
            counting = [paper.name for paper in contents.papers if paper.has(table, name)]
            if len(counting) > 1:
                raise SystemExit(f"claims.yaml: {row} counts for {' and '.join(counting)}")

    def lines(self) -> Iterator[str]:
        """Yield the lines of the index."""
        yield from ("# Results", "", self.contents.intro, "")
        yield from (f"- {line}" for line in self.contents.summary)
        yield from self._distances()
        yield from ("", "## Rows", "", LEGEND)
        for section in self.contents.sections:
            pages = ", ".join(link(table) for table in section.tables)
            yield from ("", f"## {section.name}", "", f"{section.about.strip()} Rows: {pages}.")
            if section.claims:
                head = ["claim", "published", "ours", "spread", "command"]
                yield from ("", *markdown_table(head, map(self._claim, section.claims)))

    def distances(self, paper: Paper) -> dict[tuple[str, str], list[Distance]]:
        """Return the distances of a paper's rows from the published values, by table and metric."""
        found = {}
        for table in (table for section in self.contents.sections for table in section.tables):
            compared: dict[str, list[RowGroup]] = {}
            for name, group in self.tables[table].items():
                if paper.has(table, name):
                    path = f"{table}/{name}"
                    means = (mean for mean in self.contents.means if fnmatchcase(path, mean))
                    compared.setdefault(next(means, path).removeprefix(f"{table}/"), []).append(
                        group
                    )
            published = {
                name for groups in compared.values() for g in groups for name in g.rows[0].published
            }
            for figure in [*FIGURES, *sorted(published - FIGURES.keys())]:
                each = (distance(name, groups, figure) for name, groups in compared.items())
                if distances := sorted(filter(None, each)):
                    found[table, figure] = distances
        return found

    def _distances(self) -> Iterator[str]:
        """Yield the table of distances of each table from the published values, and the counts."""
        rows, counts = [], []
        for paper in self.contents.papers:
            all_distances: list[Distance] = []
            for (table, figure), distances in self.distances(paper).items():
                ends = (distances[0], distances[-1])
                rows.append(
                    [
                        paper.name,
                        link(table),
                        FIGURES.get(figure, figure),
                        reached(distances),
                        signed(median(distance.value for distance in distances), figure),
                        *(f"{signed(end.value, figure)} ({end.row})" for end in ends),
                    ]
                )
                all_distances += distances
            counts.append(f"{paper.name} {reached(all_distances)}")
        head = ["paper", "table", "figure", "reached", "median", "lowest", "highest"]
        yield from ("", "## Ours minus published", "", *markdown_table(head, rows))
        yield from ("", f"Reached: {', '.join(counts)}. {RULES}")

    def _claim(self, claim: Claim) -> list[str]:
        """Return the cells of a claim: published, ours, the spread and the command."""
        rows, others = (
            [self._group(claim.table, row.replace("{over}", word)) for word in claim.over or ("",)]
            for row in (claim.row, claim.minus or claim.row)
        )
        values = [self._values(claim, *pair) for pair in zip(rows, others, strict=True)]
        shown = values[0] if len(values) == 1 else [fmean(each) for each in values]
        mean, published = fmean(shown), self._published(claim, rows, others)
        smallest = next((group for group in rows if group.scale == "day"), rows[0])
        ours = f"{mean:.{decimals(mean, claim.figure)}f}"
        if claim.minus:
            ours = signed(mean, claim.figure)
        elif published is not None:
            ours += f" ({signed(mean - published, claim.figure)})"
        if published is not None and smallest.scale == "day":
            ours += " †"
        spread = ""
        if len(shown) > 1:
            places = decimals(mean, claim.figure)
            several = counted(len(shown), "row" if len(rows) > 1 else "seed")
            spread = f"± {half_range(shown):.{places}f}, {several}"
        return [
            claim.claim,
            told(published, claim),
            link(claim.table, ours),
            spread,
            command(claim, smallest),
        ]

    def _group(self, table: str, row: str) -> RowGroup:
        if row not in self.tables.get(table, {}):
            raise SystemExit(f"claims.yaml: no row {row} in {table}")
        return self.tables[table][row]

    def _values(self, claim: Claim, group: RowGroup, other: RowGroup) -> list[float]:
        """Return the metric of each seed, minus the metric of row `other` if the claim has one."""
        values, others = group.values(claim.figure), other.values(claim.figure)
        if not values or not others:
            raise SystemExit(f"claims.yaml: no {claim.figure} in row {group.name} or {other.name}")
        if not claim.minus:
            return values
        if len(others) != len(values):
            others = [fmean(others)] * len(values)
        return [value - subtracted for value, subtracted in zip(values, others, strict=True)]

    def _published(
        self, claim: Claim, rows: list[RowGroup], others: list[RowGroup]
    ) -> float | None:
        """Return the published metric, or the difference between two published metrics."""
        if claim.source:
            rows = [self._group(*claim.source.split("/"))]
        means = []
        for groups in (rows, others) if claim.minus else (rows,):
            known = [value for g in groups if (value := g.published(claim.figure)) is not None]
            if len(known) < len(groups):
                return None
            means.append(fmean(known))
        return means[0] - sum(means[1:])


def link(table: str, text: str = "") -> str:
    """Return a link from the index to the page of a table."""
    return f"[{text or table}](results/{table}.md)"


def told(published: float | None, claim: Claim) -> str:
    """Return a published metric, or the difference between two, as shown on the page."""
    if published is None:
        return "-"
    return signed(published, claim.figure) if claim.minus else f"{published:g}"


def reached(distances: Sequence[Distance]) -> str:
    """Return the number of reached values and the number of all values as text."""
    return f"{sum(distance.reached for distance in distances)} of {len(distances)}"


def command(claim: Claim, group: RowGroup) -> str:
    """Return the command that makes the rows of a claim, or '-' if no table reproduces them."""
    if claim.command:
        return f"`{claim.command}`"
    if not group.scale:
        return "-"
    scale = "" if group.scale == "full" else f" --scale {group.scale}"
    names = [name.replace("{over}", "*") for name in (claim.row, claim.minus) if name]
    only = [f"--only '{name}'" if "*" in name else f"--only {name}" for name in names]
    return f"`distvae reproduce {claim.table}{scale} {' '.join(only)}`"


def rows_lines(table: str, groups: Mapping[str, RowGroup], page: Page) -> Iterator[str]:
    """Yield the lines of a page below its heading `## Rows`."""
    yield f"All figures: [{table}.jsonl]({table}.jsonl). [How to read them](../results.md#rows)."
    joined = [*folded(groups.values(), page.fold), *quoted_groups(table)]
    kept = (g for g in joined if not any(fnmatchcase(g.name, pattern) for pattern in page.hide))
    ordered = sorted(kept, key=lambda group: natural_key(group.name))
    for section in sorted({group.section for group in ordered}):
        shown = [group for group in ordered if group.section == section]
        figures = page.figures or shown_figures(shown)
        if section:
            yield from ("", f"### {section}")
        if page.columns:
            for figure in figures:
                yield from ("", *grid(shown, figure, page.columns))
            shown = [group for group in shown if not place(group.name, page.columns)]
        if shown:
            yield from ("", *rows_table(shown, figures))
    notes: dict[str, list[str]] = {}
    for group in ordered:
        if group.note:
            notes.setdefault(group.note, []).append(f"`{group.name}`")
    if notes:
        yield ""
    for note, names in notes.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        yield f"- {', '.join(names[:3])}{more}: {note}."


def quoted_groups(table: str) -> list[RowGroup]:
    """Return the rows that a table quotes from its paper, as rows without figures of ours."""
    if table not in table_names():
        return []
    empty: dict[str, object] = {
        "config": {},
        "figures": {},
        **dict.fromkeys(("commit", "seconds", "epochs")),
    }
    quoted = [
        read_row(json.dumps({"row": entry.name, "published": entry.published, **empty}), table)
        for entry in read_table(table).quoted
    ]
    return [RowGroup(row.name, (row,)) for row in quoted]


def folded(groups: Iterable[RowGroup], patterns: Sequence[str]) -> list[RowGroup]:
    """Return the groups. Groups that match the same pattern become one group with its name."""
    joined: dict[str, list[RowGroup]] = {}
    for group in groups:
        names = (pattern for pattern in patterns if fnmatchcase(group.name, pattern))
        joined.setdefault(next(names, group.name), []).append(group)
    return [
        RowGroup(name, tuple(row for group in found for row in group.rows))
        for name, found in joined.items()
    ]


def natural_key(name: str) -> list[tuple[float, str]]:
    """Return a key of a name that sorts m8 before m16."""
    parts = re.split(r"(\d+(?:\.\d+)?)", name)  # words at even places, numbers at odd ones
    return [(float(part), "") if number % 2 else (0.0, part) for number, part in enumerate(parts)]


def shown_figures(groups: Sequence[RowGroup]) -> list[str]:
    """Return the figures that were published, or else the first figure that rows have."""
    compared = [f for f in FIGURES if any(group.published(f) is not None for group in groups)]
    return compared or [f for f in FIGURES if any(group.values(f) for group in groups)][:1]


def place(name: str, columns: Sequence[str]) -> tuple[str, str] | None:
    """Return the column of a grid that a row belongs to, and the name of its line."""
    for column in sorted(columns, key=len, reverse=True):
        before, _, after = column.partition("*")
        if len(name) >= len(column) and name.startswith(before) and name.endswith(after):
            return column, name[len(before) : len(name) - len(after)]
    return None


def grid(groups: Sequence[RowGroup], figure: str, columns: Sequence[str]) -> list[str]:
    """Return a Markdown table of one figure; a row is named by its column with its line for *."""
    cells: dict[str, dict[str, str]] = {}
    for group in groups:
        found = place(group.name, columns)
        if found and (cell := compared_cell(group, figure)):
            cells.setdefault(found[1], {})[found[0]] = cell
    head = [FIGURES.get(figure, figure), *(f"`{column}`" for column in columns)]
    lines = sorted(cells, key=natural_key)
    rows = ([line, *(cells[line].get(column, "") for column in columns)] for line in lines)
    return markdown_table(head, rows)


def rows_table(groups: Sequence[RowGroup], figures: Sequence[str]) -> list[str]:
    """Return a Markdown table with a line for each row, its seeds together."""
    shown = [figure for figure in figures if any(compared_cell(each, figure) for each in groups)]
    head = ["row", *(FIGURES.get(figure, figure) for figure in shown)]
    return markdown_table(
        head, ([g.name, *(compared_cell(g, figure) for figure in shown)] for g in groups)
    )


def compared_cell(group: RowGroup, figure: str) -> str:
    """Return a figure of a row and in brackets the published one, '' if the row has neither."""
    values, published = group.values(figure), group.published(figure)
    ours = with_half_range(values, figure) if values else ""
    if published is None:
        return ours
    return f"{ours}{'†' if group.scale == 'day' else ''} ({published:g})".strip()


def decimals(mean: float, figure: str = "") -> int:
    """Return the number of decimals with which a mean is shown."""
    if figure in DECIMALS:
        return DECIMALS[figure]
    if abs(mean) >= 20:
        return 1
    return 2 if abs(mean) >= 2 else 3


def with_half_range(values: Sequence[float], figure: str) -> str:
    """Return the mean of the values and half their range."""
    mean, half = fmean(values), half_range(values)
    places = decimals(mean, figure)
    text = f"{mean:.{places}f}"
    return f"{text} ± {half:.{places}f}" if half else text


def signed(value: float, figure: str) -> str:
    """Return a difference with its sign."""
    return f"{value:+z.{DECIMALS.get(figure, 2)}f}"


def read_tables(folder: Path) -> dict[str, Groups]:
    """Return the rows of every table that has a page, by table and name."""
    pages = sorted(page for page in folder.glob("*.md"))
    return {page.stem: group_seeds(read_rows(folder, page.stem)) for page in pages}


def build(docs: Path) -> None:
    """Write the index and the rows of each page, and draw the figures of papers."""
    tables, contents = read_tables(docs / "results"), read_contents(docs / "results")
    (docs / "images").mkdir(exist_ok=True)
    for table, groups in tables.items():
        page = docs / "results" / f"{table}.md"
        text = page.read_text(encoding="utf-8").partition(ROWS)[0].rstrip()
        write(
            page,
            [
                text,
                *ROWS.splitlines(),
                "",
                *rows_lines(table, groups, contents.pages.get(table, Page())),
            ],
        )
        if table in table_names():
            draw_figures(read_table(table), docs / "results", docs / "images")
    write(docs / "results.md", Index(tables, contents).lines())


def write(path: Path, lines: Iterable[str]) -> None:
    """Write a page."""
    with atomic_file(path) as partial:
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m docs.site.results", description=__doc__)
    parser.add_argument("--add", type=Path, metavar="RUN", help="make this run a row of --table")
    parser.add_argument("--table", default="runs")
    parser.add_argument("--force", action="store_true", help="replace the row of that name")
    parsed = parser.parse_args()
    if parsed.add:
        add_run(DOCS / "results", parsed.add, parsed.table, force=parsed.force)
    build(DOCS)
