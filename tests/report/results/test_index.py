"""The index says how far each table is from its paper, and answers the claims."""

from pathlib import Path

import pytest

from distvae.files.refusal import Refusal
from distvae.report.results.build import build
from distvae.report.results.rows import write_row
from tests.report.results.rows import cells, finished_row


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of rows with published figures."""
    for name, figure, published in (
        ("a-s0", 2.0, 2.5),
        ("a-s1", 2.2, 2.5),
        ("b", 3.0, 1.0),
        ("c", 1.0, 1.001),
        ("d", 9.0, None),
    ):
        row = finished_row(name, int(name[-1] == "1"), pesq_wb=figure) | {"scale": "day"}
        row |= {"published": {"pesq_wb": published}} if published else {}
        write_row(tmp_path, row, force=False)
    return tmp_path


def claimed(folder: Path, claim: str) -> list[str]:
    """Return the cells of an index with one claim."""
    text = f"sections: [{{name: Speech, tables: [speech], claims: [{{{claim}}}]}}]"
    (folder / "claims.yaml").write_text(text)
    build(folder, folder / "index.md")
    return cells(folder / "index.md")[-1]


def test_the_index_begins_with_how_far_rows_are_from_what_was_published(folder: Path) -> None:
    build(folder, folder / "index.md")
    head, _, line, *_ = cells(folder / "index.md")
    assert dict(zip(head, line, strict=True)) == {
        "table": "[speech](speech.md)",
        "figure": "PESQ wb",
        "scale": "day",
        "at or above": "2 of 3",
        "lowest": "-0.40 (a)",
        "median": "+0.00",
        "highest": "+2.00 (b)",
    }


def test_a_claim_has_the_published_figure_ours_the_spread_and_the_command(folder: Path) -> None:
    assert claimed(folder, "claim: A, table: speech, row: a, figure: pesq_wb") == [
        "A",
        "2.5",
        "[2.10 (-0.40) †](speech.md)",
        "± 0.10, 2 seeds",
        "`distvae reproduce speech --scale day --only a`",
    ]


def test_a_claim_about_two_rows_is_their_difference(folder: Path) -> None:
    claim = "claim: A above B, table: speech, row: a, minus: b, figure: pesq_wb, command: do it"
    assert claimed(folder, claim) == [
        "A above B",
        "+1.50",
        "[-0.90 †](speech.md)",
        "± 0.10, 2 seeds",
        "`do it`",
    ]


def test_a_claim_over_several_rows_is_their_mean(folder: Path) -> None:
    claim = 'claim: All, table: speech, row: "{over}", over: [b, d], figure: pesq_wb'
    assert claimed(folder, claim)[:4] == ["All", "-", "[6.00](speech.md)", "± 3.00, 2 rows"]


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ("claim: A, table: speech, row: e, figure: pesq_wb", "claim 'A': no row e in speech"),
        ("claim: A, table: spech, row: a, figure: pesq_wb", "no table spech.*speech"),
        ("claim: A, table: speech, row: a, figure: stoi", "no stoi in row a"),
        ("claim: A, table: speech, row: a", "a claim without 'figure': A"),
        ("claim: A, tabel: speech", "a claim: no key tabel.*table"),
    ],
)
def test_a_claim_that_cannot_be_answered_is_refused(folder: Path, claim: str, message: str) -> None:
    with pytest.raises(Refusal, match=rf"claims\.yaml: .*{message}"):
        claimed(folder, claim)
