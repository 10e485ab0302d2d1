"""Rows are read as they were written, and damaged files are named."""

import math
from pathlib import Path

import pytest

from distvae.files.refusal import Refusal
from distvae.reproduce.rows import read_rows, write_row
from tests.reproduce.finished import finished_row

DAMAGED = {
    "{": "not the JSON",
    '{"row": "a"}': "'commit' is missing",
}


@pytest.mark.parametrize("line", DAMAGED)
def test_a_damaged_row_is_named(tmp_path: Path, line: str) -> None:
    write_row(tmp_path, finished_row("vae-s0", 0, hoyer=0.2), force=False)
    with (tmp_path / "speech.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(Refusal, match=rf"speech\.jsonl: line 2: .*damaged: {DAMAGED[line]}"):
        read_rows(tmp_path, "speech")


@pytest.mark.parametrize(("name", "value"), [("published", [3]), ("note", 3)])
def test_a_part_of_a_row_that_has_the_wrong_type_is_named(
    name: str, value: object, tmp_path: Path
) -> None:
    write_row(tmp_path, finished_row("vae-s0", 0, hoyer=0.2) | {name: value}, force=False)
    with pytest.raises(Refusal, match=rf"line 1: damaged: '{name}' is missing or of the wrong"):
        read_rows(tmp_path, "speech")


def test_a_row_is_not_replaced_unasked(tmp_path: Path) -> None:
    for name, figure in {"b": 0.2, "a": 0.1}.items():
        write_row(tmp_path, finished_row(name, 0, hoyer=figure), force=False)
    with pytest.raises(Refusal, match="has a row b; --force replaces it"):
        write_row(tmp_path, finished_row("b", 0, hoyer=0.9), force=False)
    write_row(tmp_path, finished_row("a", 0, hoyer=0.3), force=True)
    rows = {row.name: row.figures for row in read_rows(tmp_path, "speech")}
    assert rows == {"a": {"hoyer": 0.3}, "b": {"hoyer": 0.2}}


@pytest.mark.parametrize("table", ["../elsewhere", ""])
def test_a_table_is_one_file_of_the_folder(table: str, tmp_path: Path) -> None:
    row = finished_row("vae-s0", 0, hoyer=0.9) | {"table": table}
    with pytest.raises(Refusal, match="names no table"):
        write_row(tmp_path / "rows", row, force=False)
    assert not list(tmp_path.rglob("*.jsonl"))


def test_a_figure_that_is_not_a_number_is_null(tmp_path: Path) -> None:
    row = finished_row("vae-s0", 0, hoyer=0.2, pesq_wb_std=math.nan)
    write_row(tmp_path, row, force=False)
    assert '"pesq_wb_std": null' in (tmp_path / "speech.jsonl").read_text()
    (read,) = read_rows(tmp_path, "speech")
    assert read.figures == {"hoyer": 0.2}
