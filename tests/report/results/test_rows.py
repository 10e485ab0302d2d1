"""Rows are read as they were written, and damaged files are named."""

import json
from pathlib import Path

import pytest

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
