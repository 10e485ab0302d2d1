"""The committed results are what the generator makes of the committed rows."""

from pathlib import Path
from shutil import copytree

import pytest

from distvae.report.results.build import build
from distvae.report.results.claims import read_contents
from distvae.report.results.rows import SCALES, group_seeds, read_rows
from distvae.reproduce.table import read_table

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
