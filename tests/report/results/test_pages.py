"""A table's page has the mean over seeds with half the range as spread; its CSV has every row."""

import csv
from pathlib import Path

import pytest

from distvae.files.refusal import Refusal
from distvae.report.results.build import build
from distvae.report.results.rows import write_row
from tests.report.results.rows import cells, finished_row, write_finished


def page_rows(folder: Path) -> dict[str, dict[str, str]]:
    """Return the cells of the page of the table `speech`, by row and column."""
    build(folder, folder / "index.md")
    head, _, *rows = cells(folder / "speech.md")
    return {row[0]: dict(zip(head, row, strict=True)) for row in rows}


def test_seeds_of_a_row_are_averaged_and_their_spread_is_half_the_range(tmp_path: Path) -> None:
    write_finished(tmp_path, "vae-s0", 0, pesq_wb=2.5, hoyer=0.2)
    write_finished(tmp_path, "vae-s1", 1, pesq_wb=2.7, hoyer=0.2)
    write_finished(tmp_path, "pca", 0, pesq_wb=2.66, hoyer=None)
    rows = page_rows(tmp_path)
    assert rows["vae"]["PESQ wb"] == "2.60 ± 0.10"
    assert rows["vae"]["Hoyer"] == "0.200"
    assert rows["vae"]["seeds"] == "2"
    assert rows["pca"]["Hoyer"] == "-"


def test_a_figure_that_is_not_a_number_is_not_shown(tmp_path: Path) -> None:
    write_finished(tmp_path, "vae-s0", 0, pesq_wb=2.5, hoyer=0.2)
    write_finished(tmp_path, "pca", 0, pesq_wb=2.5, hoyer=0.5)
    file = tmp_path / "speech" / "pca.json"
    file.write_text(file.read_text().replace('"hoyer": 0.5', '"hoyer": NaN'))
    assert page_rows(tmp_path)["pca"]["Hoyer"] == "-"


def test_only_the_largest_scale_counts_and_of_it_every_seed_once(tmp_path: Path) -> None:
    for name, seed, scale, figure in (
        ("vae-s0", 0, "smoke", 1.0),
        ("vae-s1", 1, "day", 2.0),
        ("vae-s2", 2, "day", 2.2),
        ("vae", 2, "day", 2.2),
        ("pca", 0, "smoke", 3.0),
    ):
        row = finished_row(name, seed, pesq_wb=figure) | {"scale": scale}
        write_row(tmp_path, row, force=False)
    rows = page_rows(tmp_path)
    shown = {
        name: [row[key] for key in ("PESQ wb", "scale", "seeds")] for name, row in rows.items()
    }
    assert shown == {"vae": ["2.10 ± 0.10", "day", "2"], "pca": ["3.00", "smoke", "1"]}


def test_a_row_of_a_program_without_history_is_a_row(tmp_path: Path) -> None:
    row = finished_row("pca", 0, pesq_wb=2.66) | {"commit": None}
    write_row(tmp_path, row, force=False)
    assert page_rows(tmp_path)["pca"]["commit"] == "-"


def test_names_with_blanks_bars_and_brackets_stay_in_their_cell(tmp_path: Path) -> None:
    write_finished(tmp_path, "vae | small", 0, pesq_wb=2.5)
    rows = page_rows(tmp_path)
    assert rows[r"vae \| small"]["PESQ wb"] == "2.50"


def test_rows_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("vae-m16", "vae-m8", "vae-m200", "sdm-0.5", "sdm-0.05"):
        write_finished(tmp_path, name, 0, hoyer=0.2)
    assert list(page_rows(tmp_path)) == ["sdm-0.05", "sdm-0.5", "vae-m8", "vae-m16", "vae-m200"]


def test_rows_of_a_section_have_a_table_of_their_own(tmp_path: Path) -> None:
    write_finished(tmp_path, "vae-s0", 0, hoyer=0.2)
    timed = finished_row("vae-beside", 0, speedup=2.5) | {"section": "Speed", "config": {}}
    write_row(tmp_path, timed | {"epochs": None}, force=False)
    build(tmp_path, tmp_path / "index.md")
    first, second = (tmp_path / "speech.md").read_text().split("### Speed")
    assert "| row | Hoyer | seeds | epochs | seconds | commit |" in first
    assert "beside" not in first
    assert second.splitlines()[2:] == [
        "| row | times as fast, median | commit |",
        "| --- | --- | --- |",
        "| vae-beside | 2.50 | 01234567 |",
    ]


def test_a_page_begins_with_its_text_and_links_as_seen_from_the_page(tmp_path: Path) -> None:
    write_finished(tmp_path, "vae-s0", 0, hoyer=0.2)
    (tmp_path / "speech" / "about.md").write_text("# Speech\n\nSee [the log](../../log.md).\n")
    build(tmp_path, tmp_path / "index.md")
    page = (tmp_path / "speech.md").read_text()
    assert page.startswith("# Speech\n\nSee [the log](../log.md).\n")
    assert "[rows.csv](speech/rows.csv)" in page
    assert "[index](index.md)" in page


def test_the_csv_has_every_row_and_the_settings_that_differ(tmp_path: Path) -> None:
    write_finished(tmp_path, "vae-s0", 0, hoyer=0.2, seconds=3.0)
    row = finished_row("vae-s1", 1, hoyer=None) | {"published": {"hoyer": 0.5}, "scale": "day"}
    write_row(tmp_path, row, force=False)
    build(tmp_path, tmp_path / "index.md")
    with (tmp_path / "speech" / "rows.csv").open() as file:
        first, second = csv.DictReader(file)
    assert (first["row"], first["hoyer"], first["config.train.seed"]) == ("vae-s0", "0.2", "0")
    assert (first["seconds"], first["figure.seconds"]) == ("10.0", "3.0")
    assert (second["row"], second["hoyer"], second["published.hoyer"]) == ("vae-s1", "", "0.5")


def test_the_index_cannot_take_the_place_of_a_page(tmp_path: Path) -> None:
    write_finished(tmp_path, "vae-s0", 0, hoyer=0.2)
    with pytest.raises(Refusal, match=r"speech\.md: this is the page of a table"):
        build(tmp_path, tmp_path / "speech.md")


def test_without_a_file_everything_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_finished(tmp_path, "vae-s0", 0, hoyer=0.2)
    build(tmp_path, None)
    assert "| vae | 0.200 |" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["speech"]
