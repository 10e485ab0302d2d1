"""The first messages of `distvae train`, and the folder in which it trains."""

from pathlib import Path

import numpy as np
import pytest

from distvae.cli.train import MEASURED, describe_rows, suggest_batch
from distvae.config.recipes import load, parse_assignments
from distvae.config.train import Train
from distvae.data.dataset import Dataset
from distvae.train.run_folder import read_epochs
from tests.called import Called


@pytest.mark.parametrize(
    ("tables", "counts"),
    [("abc", "4 train, 3 val, 2 test images"), ("abb", "4 train, 3 val and test images")],
)
def test_splits_that_are_the_same_rows_are_counted_once(tables: str, counts: str) -> None:
    rows = {name: np.zeros((4 - place, 2), np.float32) for place, name in enumerate("abc")}
    splits = {
        split: rows[name] for split, name in zip(("train", "val", "test"), tables, strict=True)
    }
    assert describe_rows(Dataset("some", "image", "", splits, Path())) == f"some, {counts}"


QUICK = ["--no-evaluate", "--no-track"]
BARS = ["data.rows=200", "train.epochs=2", "estep.sweeps=1", "train.seed=3", *QUICK]


@pytest.fixture
def trained(call: Called, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run in a folder below the one to run in."""
    monkeypatch.chdir(tmp_path)
    assert call("train", "bars", "--out", "some/run", *BARS)[0] == 0
    return Path("some", "run")


def test_a_run_is_continued_by_its_folder_alone(call: Called, trained: Path) -> None:
    before = read_epochs(trained)
    assert call("train", "some/run", "train.epochs=4", "--resume", *QUICK)[0] == 0
    assert call("train", "bars", "--out", "whole", *BARS, "train.epochs=4")[0] == 0
    assert read_epochs(trained)[:2] == before
    bounds = [
        [epoch["val_bound"] for epoch in read_epochs(folder)] for folder in (trained, Path("whole"))
    ]
    assert bounds[0] == bounds[1]
    assert len(bounds[0]) == 4
    assert not Path("runs").exists()


def test_the_settings_of_a_run_are_trained_again_elsewhere(call: Called, trained: Path) -> None:
    before = trained.joinpath("epochs.jsonl").read_bytes()
    code, _, err = call("train", "some/run/", *QUICK)
    assert code == 0, err
    assert err.startswith("bars: bars, 200 train")
    assert "; into runs/bars\n" in err
    again, first = read_epochs(Path("runs/bars")), read_epochs(trained)
    assert [epoch["val_bound"] for epoch in again] == [epoch["val_bound"] for epoch in first]
    assert trained.joinpath("epochs.jsonl").read_bytes() == before


def test_a_training_that_ends_early_says_so(
    call: Called, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["data.rows=200", "train.epochs=50", "train.patience=1", "train.rate=0.3", *QUICK]
    code, _, err = call("train", "bars", "--out", "run", *words)
    epochs = len(read_epochs(Path("run")))
    assert code == 0
    assert epochs < 50
    assert f"\nended early, after epoch {epochs} of 50 (train.patience" in err


@pytest.mark.parametrize("recipe", ["house-50", "speech-vae", "speech-sdm", "mnist-vsc"])
def test_what_is_suggested_was_measured_and_is_accepted(recipe: str) -> None:
    config = load(recipe)
    advice = suggest_batch(config, 8)
    stretch = MEASURED.get(config.model.kind)
    if stretch is None:
        assert advice == ""
        return
    settings = [word for word in advice.replace(";", " ").split() if word.startswith("train.")]
    train: Train = load(recipe, parse_assignments(settings)).train
    assert config.train.batch < train.batch <= stretch.times * config.train.batch
    assert (train.scale_rate, train.base_batch) == (stretch.scaling, config.train.batch)
    assert f"8 workers have {config.train.batch // 8} rows each" in advice


def test_nothing_is_suggested_to_one_worker_or_to_those_with_enough_rows() -> None:
    assert suggest_batch(load("house-50"), 1) == ""
    assert suggest_batch(load("house-50", {"train.batch": 64}), 2) == ""
    stretched = {"train.batch": 2048, "train.scale_rate": "root"}
    assert suggest_batch(load("house-50", stretched), 256) == ""
