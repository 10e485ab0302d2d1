"""A run or a baseline becomes a row only when it is finished and evaluated."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from distvae.files.refusal import Refusal
from distvae.reproduce.rows import add_run, read_rows
from distvae.train.run import read_epochs
from distvae.train.session import fit
from tests import tiny


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
