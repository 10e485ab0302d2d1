"""Rows are read as they were written, and damaged files are named."""

import json
import math
from pathlib import Path

import pytest

from distvae.commands.results import ResultsOptions, build_results
from distvae.files.refusal import Refusal
from distvae.report.results.build import build
from distvae.report.results.rows import write_row
from tests.report.results.rows import finished_row, write_finished

DAMAGED = {
    "{": "not the JSON",
    "[3]": "not the JSON",
    '{"row": "a"}': "'commit' is missing",
    "{}": "'row' is missing",
}


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_row_is_named(tmp_path: Path, content: str) -> None:
    write_finished(tmp_path, "vae-s0", 0, hoyer=0.2)
    (tmp_path / "speech" / "pca.json").write_text(content)
    with pytest.raises(Refusal, match=rf"pca\.json: .*damaged: {DAMAGED[content]}"):
        build(tmp_path, None)


def test_a_row_is_not_replaced_unasked(tmp_path: Path) -> None:
    write_finished(tmp_path, "vae-s0", 0, hoyer=0.2)
    with pytest.raises(Refusal, match="--force"):
        write_row(tmp_path, finished_row("vae-s0", 0, hoyer=0.9), force=False)
    row = json.loads((tmp_path / "speech" / "vae-s0.json").read_text())
    assert row["figures"]["hoyer"] == 0.2


@pytest.mark.parametrize("table", ["../elsewhere", "a/b", "", ".."])
def test_a_table_is_one_folder_below(table: str, tmp_path: Path) -> None:
    row = finished_row("vae-s0", 0, hoyer=0.9) | {"table": table}
    with pytest.raises(Refusal, match="names no table"):
        write_row(tmp_path / "rows", row, force=False)
    assert not list(tmp_path.rglob("*.json"))


def test_a_folder_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="no rows"):
        build(tmp_path, None)


@pytest.mark.parametrize(
    ("name", "value"), [("published", [3]), ("scale", ["day"]), ("note", 3), ("section", {})]
)
def test_a_part_of_a_row_that_has_the_wrong_type_is_named(
    name: str, value: object, tmp_path: Path
) -> None:
    write_row(tmp_path, finished_row("vae-s0", 0, hoyer=0.2) | {name: value}, force=False)
    with pytest.raises(
        Refusal, match=rf"vae-s0\.json: damaged: '{name}' is missing or of the wrong"
    ):
        build(tmp_path, None)


def test_a_row_is_valid_json_where_a_figure_is_not_a_number(tmp_path: Path) -> None:
    write_finished(tmp_path, "vae-s0", 0, hoyer=0.2, pesq_wb_std=math.nan)
    text = (tmp_path / "speech" / "vae-s0.json").read_text()
    assert "NaN" not in text
    assert json.loads(text)["figures"] == {"hoyer": 0.2, "pesq_wb_std": None}


def test_a_folder_that_holds_no_rows_is_no_table(tmp_path: Path) -> None:
    write_finished(tmp_path, "vae-s0", 0, hoyer=0.2)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").touch()
    build(tmp_path, tmp_path / "index.md")
    pages = ["index.md", "pictures", "speech", "speech.md"]
    assert sorted(path.name for path in tmp_path.iterdir()) == pages
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["a.png"]


def test_a_file_that_is_no_index_is_not_replaced_unasked(tmp_path: Path) -> None:
    write_finished(tmp_path, "vae-s0", 0, hoyer=0.2)
    notes = tmp_path / "notes.md"
    notes.write_text("# Results of mine\n")
    with pytest.raises(Refusal, match=r"notes\.md: exists and is no index of results; .* --force"):
        build_results(tmp_path, ResultsOptions(out=notes))
    assert notes.read_text() == "# Results of mine\n"
    build_results(tmp_path, ResultsOptions(out=notes, force=True))
    build_results(tmp_path, ResultsOptions(out=notes))
    assert notes.read_text().startswith("# Results\n")
