"""The committed results are what the generator makes of the committed rows."""

import csv
from fnmatch import fnmatchcase
from pathlib import Path
from shutil import copytree
from statistics import fmean

import pytest

from distvae.report.results.build import build
from distvae.report.results.claims import Paper, read_contents
from distvae.report.results.index import Index
from distvae.report.results.rows import SCALES, group_seeds, read_rows, read_tables
from distvae.reproduce.table import SPREAD, TABLES, read_table

DOCS = Path(__file__).parents[3] / "docs"
PAGES = [DOCS / "results.md", *DOCS.glob("results/*.md"), *DOCS.glob("results/*/rows.csv")]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the results that was built anew."""
    docs = tmp_path_factory.mktemp("docs")
    for path in (DOCS / "results").iterdir():
        if path.is_dir():
            copytree(path, docs / "results" / path.name)
    (docs / "results" / "claims.yaml").write_bytes((DOCS / "results/claims.yaml").read_bytes())
    for path in docs.glob("results/*/rows.csv"):
        path.unlink()
    build(docs / "results", docs / "results.md")
    return docs


def test_committed_pages_are_what_the_generator_makes(made: Path) -> None:
    built = [made / "results.md", *made.glob("results/*.md"), *made.glob("results/*/rows.csv")]
    names = sorted(path.relative_to(made) for path in built)
    assert names == sorted(path.relative_to(DOCS) for path in PAGES)
    for name in names:
        same = (made / name).read_bytes() == (DOCS / name).read_bytes()
        assert same, f"docs/{name}: run distvae results docs/results -o docs/results.md"


def test_the_index_is_short_and_links_every_table() -> None:
    text = (DOCS / "results.md").read_text()
    assert len(text.splitlines()) <= 120
    for table in (DOCS / "results").iterdir():
        if table.is_dir():
            assert f"(results/{table.name}.md)" in text


CONTENTS = read_contents(DOCS / "results")


@pytest.mark.parametrize("paper", CONTENTS.papers, ids=lambda paper: paper.name)
def test_a_paper_counts_each_figure_that_its_tables_quote_once(paper: Paper) -> None:
    counted = Index(read_tables(DOCS / "results"), CONTENTS, "").distances(paper)
    quoted = 0
    for table, _, pattern in (row.partition("/") for row in paper.rows):
        obtained = group_seeds(read_rows(DOCS / "results", table))
        for name, figures in quoted_rows(table).items():
            is_mean = pattern == f"{name}-*"
            if is_mean or (name in obtained and fnmatchcase(name, pattern)):
                quoted += figures
    assert sum(map(len, counted.values())) == quoted


def quoted_rows(table: str) -> dict[str, int]:
    """Return the rows of a table's CSV of published figures, and how many figures each has."""
    lines = [line for line in (TABLES / f"{table}.csv").read_text().splitlines() if line[0] != "#"]
    head, *rows = csv.reader(lines)
    shown = [place for place, name in enumerate(head) if place and not name.endswith(SPREAD)]
    return {row[0]: sum(bool(row[place]) for place in shown) for row in rows}


def test_baselines_and_our_own_settings_do_not_count_as_reached_by_the_papers() -> None:
    index = Index(read_tables(DOCS / "results"), CONTENTS, "")
    papers = {paper.name: paper for paper in CONTENTS.papers}
    rows = [d.row for distances in index.distances(papers["TVAE"]).values() for d in distances]
    assert not [
        row for row in rows if row.startswith(("bsc", "gsvae", "bm3d", "stsa", "tvae-wide"))
    ]
    for table in ("presets", "sdm-speech", "ablations"):
        assert not any(paper.has(table, "fast-25") for paper in CONTENTS.papers)


@pytest.mark.parametrize(
    ("table", "ours", "others"),
    [
        ("house", ["tvae-15", "tvae-25", "tvae-50-controlled"], "bsc-{}-controlled"),
        ("house", ["tvae-15", "tvae-25", "tvae-50"], "gsvae-{}"),
        ("barbara", ["tvae-50-500-500", "tvae-256-256-512"], "gsvae-{}"),
    ],
)
def test_the_first_lines_give_the_advance_of_tvae_as_the_rows_have_it(
    table: str, ours: list[str], others: str
) -> None:
    groups = group_seeds(read_rows(DOCS / "results", table))
    names = {"tvae-256-256-512": "128"}
    for row in ours:
        other = groups[others.format(names.get(row, row.split("-")[1]))]
        advance = fmean(groups[row].values("psnr")) - fmean(other.values("psnr"))
        published = (groups[row].published("psnr") or 0) - (other.published("psnr") or 0)
        for figure in (advance, published):
            assert f"{figure:+.2f}" in CONTENTS.summary[0]


@pytest.mark.slow
def test_the_commands_of_the_claims_name_rows_that_can_be_reproduced() -> None:
    for section in read_contents(DOCS / "results").sections:
        for claim in section.claims:
            if claim.command:
                continue
            groups = group_seeds(read_rows(DOCS / "results", claim.table))
            for row in claim.rows() + claim.subtracted_rows():
                (scale,) = [scale for scale in SCALES if scale == groups[row].scale]
                read_table(claim.table, scale).only([row])
