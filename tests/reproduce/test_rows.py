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


def write(folder: Path, name: str, force: bool = False, **fields: object) -> None:
    row = {"table": "speech", "row": name, "commit": "0123456789ab", "seconds": 1.0, "epochs": 3}
    row |= {"config": {}, "figures": {"hoyer": 0.2}}
    write_row(folder, row | fields, force)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not the JSON"),
        ('{"row": "a"}', "'commit' is missing"),
        ({"published": [3]}, "'published' is missing or of the wrong"),
        ({"note": 3}, "'note' is missing or of the wrong"),
    ],
)
def test_a_damaged_row_is_named(
    tmp_path: Path, line: str | dict[str, object], message: str
) -> None:
    write(tmp_path, "a")
    if isinstance(line, str):
        with (tmp_path / "speech.jsonl").open("a") as file:
            file.write(line + "\n")
    else:
        write(tmp_path, "b", False, **line)
    with pytest.raises(Refusal, match=rf"speech\.jsonl: line 2: .*damaged: {message}"):
        read_rows(tmp_path, "speech")


def test_a_row_is_not_replaced_unasked_and_a_figure_that_is_not_a_number_is_null(
    tmp_path: Path,
) -> None:
    for name, figure in {"b": 0.2, "a": 0.1}.items():
        write(tmp_path, name, figures={"hoyer": figure})
    with pytest.raises(Refusal, match="has a row b; --force replaces it"):
        write(tmp_path, "b", figures={"hoyer": 0.9})
    write(tmp_path, "a", force=True, figures={"hoyer": 0.3, "pesq_wb_std": math.nan})
    rows = {row.name: row.figures for row in read_rows(tmp_path, "speech")}
    assert rows == {"a": {"hoyer": 0.3}, "b": {"hoyer": 0.2}}
    assert '"pesq_wb_std": null' in (tmp_path / "speech.jsonl").read_text()


@pytest.mark.parametrize("table", ["../elsewhere", ""])
def test_a_table_is_one_file_of_the_folder(table: str, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="names no table"):
        write(tmp_path / "rows", "a", table=table)
    assert not list(tmp_path.rglob("*.jsonl"))


def test_a_run_becomes_a_row_when_it_was_trained_to_its_end_and_evaluated(tmp_path: Path) -> None:
    run, rows = tmp_path / "vae-s0", tmp_path / "rows"

    def refused(message: str) -> None:
        with pytest.raises(Refusal, match=message):
            add_run(rows, run, "tiny", force=False)

    training = fit(tiny.config(), tiny.dataset(), run)
    next(training)
    refused(r"run\.json: has no seconds; a run that was trained to its end")
    list(training)
    refused("distvae evaluate")
    (run / "evaluation" / "test").mkdir(parents=True)
    (run / "evaluation" / "test" / "summary.json").write_text('{"hoyer": 0.25}')
    content = (run / "epochs.jsonl").read_bytes()
    (run / "epochs.jsonl").write_bytes(b"")
    refused(r"epochs\.jsonl: has no epoch; the file that training wrote expected")
    (run / "epochs.jsonl").write_bytes(content)
    add_run(rows, run, "tiny", force=False)
    (row,) = read_rows(rows, "tiny")
    assert (row.figures["hoyer"], row.config["model.latent"]) == (0.25, 4)
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
