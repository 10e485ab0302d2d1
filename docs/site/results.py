"""Fill in docs/results.md and the rows of docs/results/TABLE.md: `python -m docs.site.results`.

A page of results is written by hand down to `## Rows`. `claims.yaml` says what was claimed, and
which row of which table answers it. With `--add RUN --table TABLE`, an evaluated run first becomes
a row.
"""

import argparse
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import fmean, median

import yaml

from distvae.files.markdown import markdown_table
from distvae.files.output import atomic_file
from distvae.numerics.numbers import counted
from distvae.reproduce.compare import half_range, published_text
from distvae.reproduce.record import add_run
from distvae.reproduce.rows import RowGroup, group_seeds, read_rows

DOCS = Path(__file__).parents[1]
FIGURES = {
    "psnr": "PSNR",
    "ssim": "SSIM",
    "snr": "SNR",
    "snr_gain": "SNR gain",
    "pesq_wb_gain": "PESQ wb gain",
    "val_bound": "validation bound",
    "val_objective": "validation objective",
    "processor_s": "processor s",
    "pesq_wb": "PESQ wb",
    "pesq_nb_raw": "PESQ raw nb",
    "stoi": "STOI",
    "estoi": "ESTOI",
    "si_sdr": "SI-SDR",
    "isd": "IS div.",
    "hoyer": "Hoyer",
    "hoyer_active": "Hoyer, active",
    "effective_atoms": "eff. atoms",
    "effective_effects": "eff. effects",
    "live_atoms": "live",
    "objective": "objective",
    "probe_sgd": "probe, SGD",
    "probe_linear": "probe, linear",
    "active": "active",
    "recovered": "recovered",
    "reliability": "reliability",
    "sigma": "sigma",
    "ratio": "step / products",
    "step_us": "step, us",
    "autograd_us": "by autograd, us",
    "products_us": "products, us",
    "adam_us": "Adam, us",
    "share": "products and Adam / step",
    "peer_s": "other program, s",
    "ours_s": "ours, s",
    "speedup": "times as fast, median",
    "speedup_min": "minimum",
    "speedup_max": "maximum",
    "plain_s": "one process, s",
    "apart_gain": "two apart, times",
    "torchrun_gain": "two by torchrun",
    "ray1_gain": "one under Ray",
    "ray2_gain": "two under Ray",
    "gflops": "GFLOP/s",
}
"""The figures that a page shows, in the order of its columns; the file of rows has all of them."""
DECIMALS = {"psnr": 2, "snr": 2, "snr_gain": 2, "pesq_wb_gain": 2, "ssim": 3}
ROWS = "\n## Rows\n"
"""The heading from which on a page is made of rows."""
LEGEND = (
    "In the tables below, ours is the mean over seeds, with its difference from the published "
    "figure in brackets. The spread is half the range. A dagger † marks scale `day`: fewer epochs, "
    "less data or other settings than at `full`. `distvae reproduce` needs `--data FOLDER`."
)
RULES = (
    "A figure is reached if ours is at or above the published one, or below it by at most two of "
    "its standard deviations, where they are known. Active latents must be within 10 %. "
    "Each published figure counts once, by the rows that follow its paper; our own settings are "
    "not counted. Baselines are counted apart: one far above its published figure is no success. "
    "A name with * stands for several rows, whose mean is compared with a published mean."
)
Groups = Mapping[str, RowGroup]


@dataclass(frozen=True)
class Claim:
    """A figure of a row, or the difference between two rows."""

    claim: str
    table: str
    row: str
    figure: str
    minus: str = ""
    """The row to subtract."""
    over: tuple[str, ...] = ()
    """Words that take the place of {over} in `row` and `minus`: the claim is about all of them."""
    source: str = ""
    """TABLE/ROW that has the published figure, where it is not the row itself."""
    command: str = ""
    """The command that makes the row; by default `distvae reproduce` with table, scale and name."""


@dataclass(frozen=True)
class Paper:
    """A paper, or the baselines in it, whose published figures are counted together."""

    name: str
    rows: tuple[str, ...]
    """TABLE/PATTERN of the rows that follow the paper."""

    def has(self, table: str, row: str) -> bool:
        """Return whether a row follows the paper."""
        return any(fnmatchcase(f"{table}/{row}", pattern) for pattern in self.rows)


@dataclass(frozen=True)
class Section:
    """A part of the index."""

    name: str
    about: str
    tables: tuple[str, ...]
    claims: tuple[Claim, ...] = ()


@dataclass(frozen=True)
class Contents:
    """The index without its figures."""

    intro: str
    summary: tuple[str, ...]
    sections: tuple[Section, ...]
    papers: tuple[Paper, ...]
    means: tuple[str, ...]
    """TABLE/PATTERN of rows whose mean is compared, because a mean is what was published."""


def read_contents(folder: Path) -> Contents:
    """Return what `claims.yaml` says."""
    tree = yaml.safe_load((folder / "claims.yaml").read_text())
    papers = tuple(Paper(each["name"], tuple(each["rows"])) for each in tree.pop("papers"))
    sections = []
    for each in tree.pop("sections"):
        claims = tuple(_claim(**claim) for claim in each.pop("claims", ()))
        sections.append(Section(**each, claims=claims))
    return Contents(papers=papers, sections=tuple(sections), **tree)


def _claim(over: Iterable[object] = (), **fields: str) -> Claim:
    words = {name: str(value) for name, value in fields.items()}
    return Claim(**words, over=tuple(map(str, over)))


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


def distance(name: str, groups: Iterable[RowGroup], figure: str) -> Distance | None:
    """Return the mean distance of some rows, None if no figure was published for them."""
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
    """Return the mean over seeds minus the published value, where both are known."""
    published, values = group.published(figure), group.values(figure)
    return fmean(values) - published if values and published is not None else None


class Index:
    """The index of results: how close each table is to its paper, then the claims by subject."""

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
        yield from ("", LEGEND)
        for section in self.contents.sections:
            pages = ", ".join(link(table) for table in section.tables)
            yield from ("", f"## {section.name}", "", f"{section.about.strip()} All rows: {pages}.")
            if section.claims:
                head = ["claim", "published", "ours", "spread", "command"]
                yield from ("", *markdown_table(head, map(self._claim, section.claims)))

    def distances(self, paper: Paper) -> dict[tuple[str, str], list[Distance]]:
        """Return the distances of a paper's rows from what was published, by table and figure."""
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
        """Yield the table of how far each table is from what was published, and the counts."""
        rows, counts = [], []
        for paper in self.contents.papers:
            all_distances: list[Distance] = []
            for (table, figure), distances in self.distances(paper).items():
                groups = [g for name, g in self.tables[table].items() if paper.has(table, name)]
                scales = {g.scale or "-" for g in groups if g.published(figure) is not None}
                above = sum(distance.value >= 0 for distance in distances)
                ends = (distances[0], distances[-1])
                rows.append(
                    [
                        paper.name,
                        link(table),
                        FIGURES.get(figure, figure),
                        ", ".join(sorted(scales)),
                        f"{above} of {len(distances)}",
                        reached(distances),
                        signed(median(distance.value for distance in distances), figure),
                        *(f"{signed(end.value, figure)} ({end.row})" for end in ends),
                    ]
                )
                all_distances += distances
            counts.append(f"{paper.name} {reached(all_distances)}")
        head = ["paper", "table", "figure", "scale", "at or above", "reached", "median", "lowest"]
        yield from ("", "## Ours minus published", "", *markdown_table([*head, "highest"], rows))
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
        spread = counted(len(shown), "row" if len(rows) > 1 else "seed")
        if len(shown) > 1:
            places = decimals(mean, claim.figure)
            spread = f"± {half_range(shown):.{places}f}, {spread}"
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
        """Return the figure of each seed, minus that of the other row."""
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
        """Return the published figure, or the difference between two."""
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
    """Return a published figure, or the difference between two, as it is shown."""
    if published is None:
        return "-"
    return signed(published, claim.figure) if claim.minus else f"{published:g}"


def reached(distances: Sequence[Distance]) -> str:
    """Say how many figures are reached, and of how many."""
    return f"{sum(distance.reached for distance in distances)} of {len(distances)}"


def command(claim: Claim, group: RowGroup) -> str:
    """Return the command that makes the rows of a claim, '-' if no table reproduces them."""
    if claim.command:
        return f"`{claim.command}`"
    if not group.scale:
        return "-"
    scale = "" if group.scale == "full" else f" --scale {group.scale}"
    names = [name.replace("{over}", "*") for name in (claim.row, claim.minus) if name]
    only = [f"--only '{name}'" if "*" in name else f"--only {name}" for name in names]
    return f"`distvae reproduce {claim.table}{scale} {' '.join(only)}`"


def rows_lines(table: str, groups: Sequence[RowGroup]) -> Iterator[str]:
    """Yield the lines of a page below its heading `## Rows`."""
    yield f"All figures: [{table}.jsonl]({table}.jsonl). Back to the [index](../results.md)."
    ordered = sorted(groups, key=natural_order)
    for section in sorted({group.section for group in groups}):
        if section:
            yield from ("", f"### {section}")
        yield from ("", *rows_table([group for group in ordered if group.section == section]))
    notes = sorted(f"`{group.name}`: {group.note}." for group in groups if group.note)
    if notes:
        yield from ("", *(f"- {note}" for note in notes))


def natural_order(group: RowGroup) -> list[tuple[float, str]]:
    """Return a key that sorts m8 before m16."""
    parts = re.split(r"(\d+(?:\.\d+)?)", group.name)  # words at even places, numbers at odd ones
    return [(float(part), "") if place % 2 else (0.0, part) for place, part in enumerate(parts)]


def rows_table(groups: list[RowGroup]) -> list[str]:
    """Return a Markdown table with a line for each row, its seeds together."""
    shown = [figure for figure in FIGURES if any(group.values(figure) for group in groups)]
    if all(g.values("val_objective") == g.values("val_bound") for g in groups):
        shown = [figure for figure in shown if figure != "val_objective"]
    compared = [f for f in shown if any(group.published(f) is not None for group in groups)]
    others = [figure for figure in shown if figure not in compared]
    scaled = any(group.scale for group in groups)
    trained = any(row.epochs is not None or row.seed is not None for g in groups for row in g.rows)
    head = ["row"]
    for figure in compared:
        head += [FIGURES[figure], "published", "difference"]
    head += [*(FIGURES[figure] for figure in others), *["scale"] * scaled]
    head += [*["seeds", "epochs", "seconds"] * trained, "commit"]
    rows = []
    for group in groups:
        cells = [group.name]
        for figure in compared:
            published, apart = group.published(figure), difference(group, figure)
            spread = group.published_spread(figure)
            cells.append(with_half_range(group.values(figure), figure=figure))
            cells.append("-" if published is None else published_text(published, spread))
            cells.append("-" if apart is None else signed(apart, figure))
        cells += [with_half_range(group.values(figure), figure=figure) for figure in others]
        cells += [group.scale or "-"] * scaled
        if trained:
            epochs = [float(row.epochs) for row in group.rows if row.epochs is not None]
            seconds = [row.seconds for row in group.rows if row.seconds is not None]
            cells.append(str(len(group.rows)))
            cells += [with_half_range(epochs, 0), with_half_range(seconds, 0)]
        rows.append([*cells, group.commits])
    return markdown_table(head, rows)


def decimals(mean: float, figure: str = "") -> int:
    """Return how many decimals a mean is shown with."""
    if figure in DECIMALS:
        return DECIMALS[figure]
    if abs(mean) >= 20:
        return 1
    return 2 if abs(mean) >= 2 else 3


def with_half_range(values: Sequence[float], places: int | None = None, figure: str = "") -> str:
    """Return the mean of the values and half their range, '-' if there are none."""
    if not values:
        return "-"
    mean, half = fmean(values), half_range(values)
    if places is None:
        places = decimals(mean, figure)
    text = f"{mean:.{places}f}"
    return f"{text} ± {half:.{places}f}" if half and places else text


def signed(value: float, figure: str) -> str:
    """Return a difference with its sign."""
    return f"{value:+z.{DECIMALS.get(figure, 2)}f}"


def read_tables(folder: Path) -> dict[str, Groups]:
    """Return the rows of every table that has a page, by table and name."""
    pages = sorted(page for page in folder.glob("*.md"))
    return {page.stem: group_seeds(read_rows(folder, page.stem)) for page in pages}


def build(docs: Path) -> None:
    """Write the index, and the rows of each page."""
    tables = read_tables(docs / "results")
    for table, groups in tables.items():
        page = docs / "results" / f"{table}.md"
        text = page.read_text(encoding="utf-8").partition(ROWS)[0].rstrip()
        write(page, [text, *ROWS.splitlines(), "", *rows_lines(table, list(groups.values()))])
    write(docs / "results.md", Index(tables, read_contents(docs / "results")).lines())


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
