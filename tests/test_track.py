"""What reaches MLflow, read back through its own client; and that nothing that fails there reaches training."""

import math
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distvae.config import Config, flatten
from distvae.track import MEMORY, Store, Tracker, public
from distvae.train.loop import Epoch

RECORD = Epoch(
    epoch=1,
    epochs=5,
    train_objective=-3.0,
    val_objective=-2.0,
    val_bound=-2.5,
    val_kl=math.nan,
    val_hoyer=0.3,
    rate=1e-3,
    rows_per_second=1e4,
    seconds=1.0,
    best=True,
)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of a store with one experiment: making its tables takes a second, copying them none."""
    root = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        Store.find(root).connect("another")
    with closing(sqlite3.connect(root / "mlflow.db")) as database:
        database.execute("vacuum into ?", [str(root / "template.db")])
    return root / "template.db"


@pytest.fixture
def root(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of runs with a store."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return tmp_path


def tracker(root: Path, name: str = "one", parent: str | None = None) -> Tracker:
    (root / name).mkdir(exist_ok=True)
    return Tracker.open(Config(), "speech-vae", root / name, "here", parent, root=root)


def runs(root: Path, experiment: str = "here") -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    return list(client.search_runs([client.get_experiment_by_name(experiment).experiment_id]))


def history(root: Path, run: str, key: str) -> list[tuple[int, float]]:
    from mlflow import MlflowClient

    found = MlflowClient(f"sqlite:///{root / 'mlflow.db'}").get_metric_history(run, key)
    return sorted((metric.step, metric.value) for metric in found)


def test_a_run_is_recorded_with_its_parameters_epochs_figures_and_files(root: Path) -> None:
    record = tracker(root)
    record.epoch(RECORD)
    folder = root / "one" / "evaluation" / "test"
    (folder / "sounds").mkdir(parents=True)
    for name in ("codes.png", "sounds/original.wav", "files.csv", "files.parquet"):
        (folder / name).write_bytes(b"x")
    record.evaluation({"hoyer": 0.5, "pesq_wb": math.nan}, folder)
    for name in ("best.json", "best-0123.safetensors", "last.json", "config.yaml", "run.json"):
        (root / "one" / name).write_bytes(b"{}")
    record.checkpoint(root / "one")
    record.close()
    (found,) = runs(root)
    assert found.info.status == "FINISHED"
    assert found.data.params == {key: str(value) for key, value in flatten(Config()).items()}
    assert found.data.metrics["val_bound"] == -2.5
    assert found.data.metrics["hoyer"] == 0.5
    assert not {"val_kl", "pesq_wb"} & found.data.metrics.keys()
    kept = root / "mlartifacts" / found.info.run_id / "artifacts"
    assert {path.relative_to(kept).as_posix() for path in kept.rglob("*") if path.is_file()} == {
        "evaluation/codes.png",
        "evaluation/sounds/original.wav",
        "evaluation/files.csv",
        "checkpoint/best.json",
        "checkpoint/best-0123.safetensors",
        "checkpoint/config.yaml",
        "checkpoint/run.json",
    }


def test_a_resumed_run_goes_on_with_its_record_and_logs_no_epoch_twice(root: Path) -> None:
    first = tracker(root)
    for n in (1, 2, 3):
        first.epoch(replace(RECORD, epoch=n))
    first.close("KILLED")
    again = tracker(root)
    for n in (3, 4):
        again.epoch(replace(RECORD, epoch=n, val_bound=-float(n)))
    again.close()
    (found,) = runs(root)
    assert found.info.status == "FINISHED"
    assert history(root, found.info.run_id, "val_bound") == [(1, -2.5), (2, -2.5), (3, -2.5), (4, -4.0)]


def test_a_folder_that_was_replaced_begins_a_new_record(root: Path) -> None:
    tracker(root).epoch(RECORD)
    shutil.rmtree(root / "one")
    tracker(root).epoch(RECORD)
    assert len(runs(root)) == 2


def test_a_record_that_another_store_has_is_begun_anew(root: Path) -> None:
    record = tracker(root)
    (root / "one" / MEMORY).write_text('{"id": "0123456789abcdef0123456789abcdef"}')
    record.epoch(RECORD)
    assert [run.info.run_id for run in runs(root)] == [record.id]


def test_trials_are_children_of_their_sweep(root: Path) -> None:
    (root / "sweep").mkdir()
    sweep = Tracker(Store.find(root), "here", "sweep", root / "sweep", {"trials": 2}, {"kind": "sweep"})
    parent = sweep.begin()
    for name in ("0", "1"):
        tracker(root, name, parent).close("FAILED")
    children = {run.info.run_name for run in runs(root) if run.data.tags.get("mlflow.parentRunId") == parent}
    assert children == {"0", "1"}


def test_what_fails_is_said_once_without_secrets_and_never_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:hunter2@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    record = tracker(tmp_path)
    record.epoch(RECORD)
    record.epoch(replace(RECORD, epoch=2))
    record.evaluation({"hoyer": 0.5}, tmp_path)
    record.close()
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "127.0.0.1" in said
    assert "hunter2" not in said


def test_epochs_that_could_not_be_logged_are_logged_at_the_end_if_the_store_is_back(root: Path) -> None:
    record = tracker(root)
    (root / "mlflow.db").rename(root / "away.db")
    (root / "mlflow.db").mkdir()
    record.epoch(RECORD)
    (root / "mlflow.db").rmdir()
    (root / "away.db").rename(root / "mlflow.db")
    record.epoch(replace(RECORD, epoch=2))
    record.close()
    (found,) = runs(root)
    assert [step for step, _ in history(root, found.info.run_id, "val_bound")] == [1, 2]


FRESH = """
import sys, warnings
from pathlib import Path
from distvae.config import Config
from distvae.track import Tracker
root = Path(sys.argv[1])
record = Tracker.open(Config(), "speech-vae", root / sys.argv[2], "here", root=root)
record.close()
"""


@pytest.mark.slow
def test_first_users_side_by_side_all_get_their_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    started = [
        subprocess.Popen([sys.executable, "-c", FRESH, str(tmp_path), str(n)], stderr=subprocess.PIPE, text=True)
        for n in range(3)
    ]
    said = [process.communicate(timeout=120)[1] for process in started]
    assert said == [""] * 3
    assert {run.info.run_name for run in runs(tmp_path)} == {"0", "1", "2"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:p@ss@host/path", "https://host/path"),
        ("API request to http://tok@host:5000/api failed", "API request to http://host:5000/api failed"),
        ("postgresql://u:p@db/name?password=secret&x=1", "postgresql://db/name?password=...&x=1"),
        ("sqlite:////runs/mlflow.db", "sqlite:////runs/mlflow.db"),
    ],
)
def test_what_is_shown_holds_no_credentials(text: str, shown: str) -> None:
    assert public(text) == shown


def test_where_to_look_names_the_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    expected = f"mlflow ui --backend-store-uri sqlite:///{tmp_path}/runs/mlflow.db --host 127.0.0.1"
    assert Store.find(Path("runs")).look == expected
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@tracking.example")
    assert Store.find(Path("runs")).look == "https://tracking.example"
