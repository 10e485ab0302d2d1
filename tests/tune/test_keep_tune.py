"""The experiment of Ray Tune that a sweep keeps, read by Ray's own API."""

import json
from pathlib import Path
from typing import Any

import pytest

EPOCHS = list(range(1, 41))


@pytest.fixture
def kept(steady: tuple[list[str], dict[int, Any]], shared_folder: Path) -> Path:
    """The folder of a sweep that kept its experiment."""
    return shared_folder / "steady"


def results(folder: Path) -> dict[int, Any]:
    """The finished trials in results.json."""
    trials = json.loads((folder / "results.json").read_text())["trials"]
    return {trial["number"]: trial for trial in trials if trial["state"] == "finished"}


@pytest.mark.slow
def test_the_results_and_the_analysis_have_the_metrics_and_epochs_of_the_trials(kept: Path) -> None:
    from ray import tune

    from distvae.tune.ray_tune import TrialProcess

    grid = tune.Tuner.restore(str(kept / "tune/steady-1"), trainable=TrialProcess).get_results()
    expected = results(kept)
    assert {result.config["number"]: result.config["values"] for result in grid} == {
        number: trial["values"] for number, trial in expected.items()
    }
    for result in grid:
        figures = expected[result.config["number"]]["figures"]
        assert {name: result.metrics[name] for name in figures} == figures
        records = (kept / "trials" / str(result.config["number"]) / "epochs.jsonl").read_text()
        bounds = [json.loads(line)["val_bound"] for line in records.splitlines()]
        frame = result.metrics_dataframe
        assert frame[frame["epoch"].notna()]["epoch"].tolist() == EPOCHS
        assert frame[frame["epoch"].notna()]["val_bound"].tolist() == bounds
    best = grid.get_best_result("squared_error", "min")
    errors = {number: trial["figures"]["squared_error"] for number, trial in expected.items()}
    assert best.config["number"] == min(errors, key=lambda number: errors[number])

    assert not (kept / ".tune").exists()
