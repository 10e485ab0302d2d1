"""Rows are read as they were written; a run becomes a row when it is finished and evaluated."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from distvae.files.refusal import Refusal
from distvae.reproduce.rows import add_run, read_rows, write_row
from distvae.train.run_folder import read_epochs
from distvae.train.session import fit
from tests import tiny
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


def test_a_run_becomes_a_row_only_when_it_was_evaluated(tmp_path: Path) -> None:
    list(fit(tiny.config(), tiny.dataset(), tmp_path / "vae-s0"))
    with pytest.raises(Refusal, match="distvae evaluate"):
        add_run(tmp_path / "rows", tmp_path / "vae-s0", "tiny", force=False)
    evaluation = tmp_path / "vae-s0" / "evaluation" / "test"
    evaluation.mkdir(parents=True)
    (evaluation / "summary.json").write_text('{"hoyer": 0.25}')
    epochs = tmp_path / "vae-s0" / "epochs.jsonl"
    content = epochs.read_bytes()
    epochs.write_bytes(b"")
    with pytest.raises(
        Refusal, match=r"epochs\.jsonl: has no epoch; the file that training wrote expected"
    ):
        add_run(tmp_path / "rows", tmp_path / "vae-s0", "tiny", force=False)
    epochs.write_bytes(content)
    add_run(tmp_path / "rows", tmp_path / "vae-s0", "tiny", force=False)
    (row,) = read_rows(tmp_path / "rows", "tiny")
    assert row.figures["hoyer"] == 0.25
    assert row.config["model.latent"] == 4
    assert "data.path" not in row.config


def test_the_figures_are_of_the_epoch_whose_weights_were_kept(tmp_path: Path) -> None:
    """If missing values are completed, the kept epoch may be later and have a lower bound."""
    rows = np.where(np.random.default_rng(0).random((64, 12)) < 0.6, np.nan, 0)
    rows += np.random.default_rng(1).normal(size=(64, 12))
    data = replace(tiny.dataset(), splits={"train": rows.astype(np.float32)})
    for missing in ("masked", "completed"):
        run = tmp_path / missing
        model = {"kind": "tvae", "latent": 7, "missing": missing, "variance": 4.0}
        estep = {"kind": "evolution", "states": 6, "parents": 3, "children": 2, "block": 32}
        list(fit(tiny.config(model=model, estep=estep), data, run))
        (run / "evaluation" / "test").mkdir(parents=True)
        (run / "evaluation" / "test" / "summary.json").write_text('{"hoyer": 0.25}')
        add_run(tmp_path / "rows", run, missing, force=False)
        (row,) = read_rows(tmp_path / "rows", missing)
        bounds = [epoch["val_bound"] for epoch in read_epochs(run)]
        best = bounds[-1] if missing == "completed" else max(bounds)
        assert row.figures["val_bound"] == best
        assert (bounds[-1] < max(bounds)) == (missing == "completed")


def test_an_unfinished_run_is_no_row(tmp_path: Path) -> None:
    training = fit(tiny.config(), tiny.dataset(), tmp_path / "vae-s0")  # which ends with this test
    next(training)
    with pytest.raises(
        Refusal, match=r"run\.json: has no seconds; a run that was trained to its end"
    ):
        add_run(tmp_path / "rows", tmp_path / "vae-s0", "tiny", force=False)
