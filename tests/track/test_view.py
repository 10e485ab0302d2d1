"""MLflow's view of a sweep, read back by MLflow's client."""

import json
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distvae.numerics.metrics import Group, groups_of
from distvae.track import Store
from distvae.track.naming import figure_name, grouped_filter, metric_name
from distvae.track.records import list_records
from tests.track.records import runs, sweep_tracker, tracker, train

NOTE = "mlflow.note.content"
FIGURES = st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True)


@given(figure=FIGURES, group=st.sampled_from(get_args(Group)))
def test_a_figure_is_read_back_by_its_plain_name(figure: str, group: str) -> None:
    assert figure_name(metric_name(figure, {figure: group})) == figure
    assert figure_name(metric_name(figure, {})) == figure


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("metrics.hoyer > 0.5", "metrics.`sparsity/hoyer` > 0.5"),
        ("metrics.`hoyer` > 0.5", "metrics.`sparsity/hoyer` > 0.5"),
        ("metrics.other > 1 and params.a = 'b'", "metrics.`other` > 1 and params.a = 'b'"),
    ],
)
def test_a_filter_names_figures_plainly(where: str, expected: str) -> None:
    assert grouped_filter(where, ["sparsity/hoyer", "hoyer"]) == expected


@pytest.mark.slow
def test_every_figure_that_can_rank_trials_has_a_group() -> None:
    """Ask a process that has imported no more than what checks a space."""
    program = """

from distvae.config.recipes import load
from distvae.numerics.metrics import group_of
from distvae.tune import validation
for recipe in ("speech-vae", "mnist-vae", "house-50"):
    for figure in validation.ranking_figures(load(recipe)):
        assert group_of(figure), figure
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_metrics_are_grouped_in_mlflow_and_plain_elsewhere(root: Path) -> None:
    record = tracker(root)
    train(record, 1)
    record.figures({"pesq_wb": 3.0, "hoyer_active": 0.5, "own": 1.0})
    record.close()
    (found,) = runs(root)
    expected = {"quality/pesq_wb", "sparsity/hoyer_active", "bound/val_bound", "own", "epoch"}
    assert expected < found.data.metrics.keys()
    (listed,) = list_records(Store.find(root), "metrics.pesq_wb > 2 and metrics.own > 0")
    assert listed.metrics["pesq_wb"] == 3.0
    assert not list_records(Store.find(root), "metrics.pesq_wb > 4")


def test_a_sweep_says_what_it_found_and_keeps_a_view_of_its_trials(
    root: Path, trained: Path
) -> None:
    from mlflow import MlflowClient

    record = sweep_tracker(root)
    best = trained.rename(record.folder / "1")
    ranked = {"squared_error": "min", "hoyer": "max"}
    record.figures({"hoyer": 0.5})
    record.findings("What was asked", ["train.rate"], ranked)
    record.best(best, "")
    record.close()
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    (found,) = runs(root)
    assert found.data.metrics == {"sparsity/hoyer": 0.5}
    assert found.data.tags[NOTE].startswith("What was asked\n")
    assert "report/report.html" in found.data.tags[NOTE]
    assert [given.dataset.name for given in found.inputs.dataset_inputs] == ["bars"]
    tags = client.get_experiment(found.info.experiment_id).tags
    assert tags[NOTE] == found.data.tags[NOTE]
    view = json.loads(tags[f"mlflow.sharedViewState.{found.info.run_id}"])
    coordinates, scatter, *_ = view["compareRunCharts"]
    assert coordinates["selectedParams"] == ["train.rate"]
    assert scatter["yaxis"]["key"] == "quality/squared_error"
    assert list(groups_of(ranked)) == list(ranked)
