"""The pages of results: distances of rows from published values, and the committed pages."""

from collections.abc import Mapping
from pathlib import Path
from shutil import copytree

import pytest

from distvae.reproduce.rows import SCALES, write_row
from distvae.reproduce.table import read_table
from docs.site.results import DOCS, build, read_contents, read_tables

CLAIMS = """
intro: How close?
summary: []
papers: [{{name: Ours, rows: ["{papers}"]}}]
means: {means}
pages: {{}}
sections: [{{name: Speech, about: '', tables: [{table}], claims: []}}]
"""


def put(docs: Path, name: str, seed: int, figures: Mapping[str, float], **fields: object) -> None:
    """Write a finished row, of the table `speech` unless another is given."""
    row = {"table": "speech", "row": name, "commit": "0123456789ab", "seconds": 10.0, "epochs": 30}
    row |= {"config": {"train.seed": seed}, "figures": figures}
    write_row(docs / "results", row | fields, force=False)


def built(docs: Path, papers: str = "speech/*", means: str = "[]") -> list[dict[str, str]]:
    """Build pages and return the lines of the table of papers, by the names of columns."""
    table = papers.partition("/")[0]
    claimed = CLAIMS.format(papers=papers, means=means, table=table)
    (docs / "results" / "claims.yaml").write_text(claimed)
    for rows in (docs / "results").glob("*.jsonl"):
        rows.with_suffix(".md").touch()
    build(docs)
    return lines_of(docs / "results.md")


def lines_of(page: Path) -> list[dict[str, str]]:
    """Return the lines of the table of a page, by the names of columns."""
    lines = [line for line in page.read_text().splitlines() if line.startswith("|")]
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(head, row, strict=True)) for row in rows]


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    """Return a folder of rows with published figures."""
    published = {"a-s0": 2.5, "a-s1": 2.5, "b": 1.0, "c": 1.001, "d": None}
    obtained = {"a-s0": 2.0, "a-s1": 2.2, "b": 3.0, "c": 1.0, "d": 9.0}
    for name, value in published.items():
        fields = {"published": {"pesq_wb": value}} if value else {}
        put(tmp_path, name, int(name == "a-s1"), {"pesq_wb": obtained[name]}, scale="day", **fields)
    return tmp_path


def test_the_index_has_the_distance_of_rows_from_published_figures_and_a_mean_counts_once(
    docs: Path,
) -> None:
    assert built(docs) == [
        {
            "paper": "Ours",
            "table": "[speech](results/speech.md)",
            "figure": "PESQ wb",
            "reached": "2 of 3",
            "lowest": "-0.40 (a)",
            "median": "+0.00",
            "highest": "+2.00 (b)",
        }
    ]
    for name, value in {"clip-1": 1.0, "clip-2": 5.0, "clip-3": 2.0, "whole": 2.0}.items():
        put(docs, name, 0, {"pesq_wb": value}, table="sounds", published={"pesq_wb": 2.5})
    (line,) = built(docs, "sounds/*", "['sounds/clip-*']")
    shown = [line[name] for name in ("reached", "median", "lowest", "highest")]
    assert shown == ["1 of 2", "-0.16", "-0.50 (whole)", "+0.17 (clip-*)"]


@pytest.mark.parametrize(
    ("figure", "spread", "value", "reached"),
    [
        ("pesq_wb", 0.0, 2.49, "0 of 1"),
        ("pesq_wb", 0.1, 2.31, "1 of 1"),
        ("active", 0.0, 2.7, "1 of 1"),
        ("active", 0.0, 2.8, "0 of 1"),
    ],
)
def test_a_figure_is_reached_within_two_standard_deviations_or_an_active_number_within_a_tenth(
    figure: str, spread: float, value: float, reached: str, tmp_path: Path
) -> None:
    spreads = {figure: spread}
    put(tmp_path, "a", 0, {figure: value}, published={figure: 2.5}, published_spread=spreads)
    assert built(tmp_path)[0]["reached"] == reached
    assert f"Reached: Ours {reached}." in (tmp_path / "results.md").read_text()


def test_only_the_largest_scale_counts_and_of_it_every_seed_once(tmp_path: Path) -> None:
    for name, seed, scale, figure in (
        ("vae-s0", 0, "smoke", 1.0),
        ("vae-s1", 1, "day", 2.0),
        ("vae-s2", 2, "day", 2.2),
        ("vae", 2, "day", 2.2),
        ("pca", 0, "smoke", 3.0),
    ):
        put(tmp_path, name, seed, {"pesq_wb": figure}, scale=scale)
    built(tmp_path)
    shown = {line["row"]: line["PESQ wb"] for line in lines_of(tmp_path / "results" / "speech.md")}
    assert shown == {"vae": "2.10 ± 0.10", "pca": "3.00"}


def test_committed_pages_are_what_the_rows_make(tmp_path: Path) -> None:
    copytree(DOCS / "results", tmp_path / "results")
    build(tmp_path)
    for page in [tmp_path / "results.md", *(tmp_path / "results").glob("*.md")]:
        name = page.relative_to(tmp_path)
        same = page.read_bytes() == (DOCS / name).read_bytes()
        assert same, f"docs/{name}: run python -m docs.site.results"


@pytest.mark.slow
def test_the_commands_of_the_claims_name_rows_that_can_be_reproduced() -> None:
    rows = read_tables(DOCS / "results")
    for section in read_contents(DOCS / "results").sections:
        for claim in (claim for claim in section.claims if not claim.command):
            for name in filter(None, (claim.row, claim.minus)):
                for row in (name.replace("{over}", word) for word in claim.over or ("",)):
                    (scale,) = [scale for scale in SCALES if scale == rows[claim.table][row].scale]
                    read_table(claim.table, scale).only([row])
