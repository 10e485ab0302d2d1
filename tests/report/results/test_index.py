"""The index says how far each table is from its paper, and answers the claims."""

from pathlib import Path

import pytest

from distvae.files.refusal import Refusal
from distvae.report.results.build import build
from distvae.report.results.rows import write_row
from tests.report.results.rows import cells, finished_row, write_finished


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
        "reached": "2 of 3",
        "lowest": "-0.40 (a)",
        "median": "+0.00",
        "highest": "+2.00 (b)",
    }


@pytest.mark.parametrize(
    ("figure", "spread", "value", "reached"),
    [
        ("pesq_wb", 0.0, 2.49, "0 of 1"),
        ("pesq_wb", 0.1, 2.31, "1 of 1"),
        ("pesq_wb", 0.1, 2.29, "0 of 1"),
        ("active", 0.0, 2.7, "1 of 1"),
        ("active", 0.0, 2.8, "0 of 1"),
        ("active", 0.0, 2.2, "0 of 1"),
    ],
)
def test_a_figure_is_reached_within_two_standard_deviations_or_an_active_number_within_a_tenth(
    figure: str, spread: float, value: float, reached: str, tmp_path: Path
) -> None:
    row = finished_row("a", 0, **{figure: value})
    row |= {"published": {figure: 2.5}, "published_spread": {figure: spread}}
    write_row(tmp_path, row, force=False)
    build(tmp_path, tmp_path / "index.md")
    head, _, line, *_ = cells(tmp_path / "index.md")
    assert dict(zip(head, line, strict=True))["reached"] == reached
    assert f"Reached: {reached}." in (tmp_path / "index.md").read_text()


def test_each_paper_counts_the_rows_that_follow_it_and_baselines_count_apart(folder: Path) -> None:
    for name, value in {"ours": 2.4, "baseline": 9.0, "twice": 9.0}.items():
        row = finished_row(name, 0, bits=value) | {"table": "sounds", "published": {"bits": 2.5}}
        write_row(folder, row, force=False)
    papers = "[{name: First, rows: [sounds/ours, speech/b]}, {name: others, rows: [sounds/base*]}]"
    (folder / "claims.yaml").write_text(f"papers: {papers}")
    build(folder, folder / "index.md")
    assert "Reached: First 1 of 2, others 1 of 1. " in (folder / "index.md").read_text()
    listed = [line[:3] for line in cells(folder / "index.md")[2:]]
    assert listed == [
        ["First", "[sounds](sounds.md)", "bits"],
        ["First", "[speech](speech.md)", "PESQ wb"],
        ["others", "[sounds](sounds.md)", "bits"],
    ]


def test_a_row_that_two_papers_count_is_refused(folder: Path) -> None:
    papers = "[{name: First, rows: [speech/*]}, {name: Second, rows: [speech/b]}]"
    (folder / "claims.yaml").write_text(f"papers: {papers}")
    with pytest.raises(Refusal, match="papers: speech/b counts for First and Second; one expected"):
        build(folder, folder / "index.md")


def test_rows_of_a_published_mean_are_compared_by_their_mean_and_count_once(folder: Path) -> None:
    for name, value in {"clip-1": 1.0, "clip-2": 5.0, "clip-3": 2.0, "whole": 2.0}.items():
        row = finished_row(name, 0, pesq_wb=value) | {"table": "sounds"}
        write_row(folder, row | {"published": {"pesq_wb": 2.5}}, force=False)
    papers = "[{name: Sounds, rows: [sounds/*]}]"
    (folder / "claims.yaml").write_text(f"means: [sounds/clip-*]\npapers: {papers}")
    build(folder, folder / "index.md")
    text = (folder / "index.md").read_text()
    assert "1 of 2 | 1 of 2 | -0.16 | -0.50 (whole) | +0.17 (clip-*)" in text
    assert "Reached: Sounds 1 of 2. " in text


def test_a_mean_of_rows_that_are_not_there_is_refused(folder: Path) -> None:
    (folder / "claims.yaml").write_text("means: [speech/clip-*]")
    with pytest.raises(Refusal, match=r"means: no row speech/clip-\*; TABLE/ROWS with \* expected"):
        build(folder, folder / "index.md")


def test_a_paper_whose_rows_are_not_there_is_refused(folder: Path) -> None:
    (folder / "claims.yaml").write_text("papers: [{name: First, rows: [speach/*]}]")
    with pytest.raises(Refusal, match=r"papers: First: no row speach/\*; TABLE/ROWS"):
        build(folder, folder / "index.md")


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
        "± 0.100, 2 seeds",
        "`do it`",
    ]


def test_a_claim_over_several_rows_is_their_mean(folder: Path) -> None:
    claim = 'claim: All, table: speech, row: "{over}", over: [b, d], figure: pesq_wb'
    assert claimed(folder, claim)[:4] == ["All", "-", "[6.00](speech.md)", "± 3.00, 2 rows"]


def test_a_difference_over_several_rows_is_taken_row_by_row(tmp_path: Path) -> None:
    for name, figures in {"a-x": (30, 31), "b-x": (40, 41), "a-y": (20,), "b-y": (30, 31)}.items():
        for seed, figure in enumerate(figures):
            write_finished(tmp_path, f"{name}-s{seed}", seed, pesq_wb=figure)
    claim = 'claim: B, table: speech, row: "b-{over}", minus: "a-{over}", over: [x, y]'
    shown = claimed(tmp_path, f"{claim}, figure: pesq_wb")
    assert shown[2:4] == ["[+10.25](speech.md)", "± 0.25, 2 rows"]


def test_a_claim_over_rows_of_several_seeds_counts_the_rows(folder: Path) -> None:
    claim = 'claim: All, table: speech, row: "{over}", over: [a, b], figure: pesq_wb'
    assert claimed(folder, claim)[2:4] == ["[2.55 (+0.80) †](speech.md)", "± 0.45, 2 rows"]


def test_a_mean_over_rows_of_two_scales_is_labelled_as_the_smaller(tmp_path: Path) -> None:
    for name, scale in {"x-a": "full", "x-b": "day"}.items():
        row = finished_row(name, 0, pesq_wb=2.0) | {"scale": scale, "published": {"pesq_wb": 2.5}}
        write_row(tmp_path, row, force=False)
    claim = 'claim: All, table: speech, row: "x-{over}", over: [a, b], figure: pesq_wb'
    shown = claimed(tmp_path, claim)
    assert shown[2] == "[2.00 (-0.50) †](speech.md)"
    assert "--scale day" in shown[4]


def test_a_spread_has_as_many_decimals_as_its_mean(tmp_path: Path) -> None:
    write_finished(tmp_path, "vae-s0", 0, hoyer=0.501)
    write_finished(tmp_path, "vae-s1", 1, hoyer=0.509)
    shown = claimed(tmp_path, "claim: VAE, table: speech, row: vae, figure: hoyer")
    assert shown[2:4] == ["[0.505](speech.md)", "± 0.004, 2 seeds"]


@pytest.mark.parametrize(("given", "shown"), [("", "-"), (", command: do it", "`do it`")])
def test_a_row_of_no_reproduced_table_has_the_command_that_its_claim_gives(
    given: str, shown: str, tmp_path: Path
) -> None:
    write_finished(tmp_path, "vae-s0", 0, hoyer=0.5)
    claim = f"claim: VAE, table: speech, row: vae, figure: hoyer{given}"
    assert claimed(tmp_path, claim)[4] == shown


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
