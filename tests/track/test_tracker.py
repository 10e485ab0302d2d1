"""Records of runs and sweeps, read back through MLflow's own client."""

import math
import shutil
from pathlib import Path

import pytest

from distvae.cli.compare import report
from distvae.config import Config, flatten
from distvae.report import write_and_log
from distvae.track import Store, Tracker, without_secrets
from distvae.track.store import grouped_filter, list_records, read_sent
from tests.report import folders as sweeps
from tests.track.records import runs, sweep_tracker, tracker, train


def test_a_run_is_recorded_with_its_parameters_epochs_figures_and_files(root: Path) -> None:
    record = tracker(root)
    train(record, 1)
    folder = root / "one" / "evaluation" / "test"
    (folder / "sounds").mkdir(parents=True)
    for name in ("codes.png", "sounds/original.wav", "files.csv", "files.parquet"):
        (folder / name).write_bytes(b"x")
    record.figures({"hoyer": 0.5, "pesq_wb": math.nan})
    record.close()
    (found,) = runs(root)
    assert found.info.status == "FINISHED"
    assert found.data.params == {key: str(value) for key, value in flatten(Config()).items()}
    assert found.data.metrics["bound/val_bound"] == -2.5
    assert found.data.metrics["sparsity/hoyer"] == 0.5
    assert not {"bound/val_kl", "quality/pesq_wb"} & found.data.metrics.keys()
    kept = root / "mlartifacts" / found.info.run_id / "artifacts"
    assert {path.relative_to(kept).as_posix() for path in kept.rglob("*") if path.is_file()} == {
        "evaluation/test/codes.png",
        "evaluation/test/sounds/original.wav",
        "evaluation/test/files.csv",
    }


def test_a_record_that_this_store_does_not_have_is_begun_anew(root: Path) -> None:
    tracker(root).close()
    (known,) = runs(root)
    (root / "one" / "mlflow.json").write_text('{"id": "0123456789abcdef0123456789abcdef"}')
    record = tracker(root)
    train(record, 1)
    record.close()
    other = read_sent(root / "one")["id"]
    assert {run.info.run_id for run in runs(root)} == {known.info.run_id, other}


def test_a_sweep_with_two_axes_of_one_key_is_recorded(root: Path) -> None:
    axes = {"axis.model.latent": "8, 16", "axis.model.latent#2": "32"}
    sweep_tracker(root, **axes).close()
    (found,) = runs(root)
    assert found.data.params == {"axis.model.latent": "8, 16", "axis.model.latent:2": "32"}


@pytest.mark.parametrize("name", ["a%20b", "50%off?#b c"])
def test_a_folder_of_any_name_has_a_store(empty_store: Path, tmp_path: Path, name: str) -> None:
    root = tmp_path / name
    root.mkdir()
    shutil.copy(empty_store, root / "mlflow.db")
    store = Store.find(root)
    assert store.file == root / "mlflow.db"
    _, experiment = store.connect("here")
    assert store.client().get_experiment_by_name("here").experiment_id == experiment
    assert [file.name for file in root.glob("*.db")] == ["mlflow.db"]


def test_the_options_of_a_database_are_no_part_of_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///m.db?timeout=5")
    store = Store.find(tmp_path)
    assert store.uri == f"sqlite:///{tmp_path / 'm.db'}?timeout=5"
    assert store.file == tmp_path / "m.db"


def test_what_fails_is_said_once_without_secrets_and_never_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:hunter2@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    record = tracker(tmp_path)
    train(record, 1, 2)
    record.figures({"hoyer": 0.5})
    record.close()
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "127.0.0.1" in said
    assert f"'distvae runs --send {tmp_path / 'one'}'" in said
    assert "hunter2" not in said
    assert not any("hunter2" in path.read_text() for path in (tmp_path / "one").iterdir())


def test_where_to_look_names_the_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    assert Store.find(Path("runs")).uri == f"sqlite:///{tmp_path}/runs/mlflow.db"
    assert Store.find(Path("runs")).viewer == "distvae ui"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@tracking.example")
    assert Store.find(Path("runs")).viewer == "https://tracking.example"


def test_a_report_is_kept_long_after_the_end_which_stays_as_it_was(root: Path) -> None:
    record = tracker(root)
    train(record, 1)
    record.close("KILLED")
    (ended,) = runs(root)
    for text in ("first", "second"):
        (root / "one" / "report.html").write_text(text)
        found = Tracker.of_folder(root / "one", Store.find(root))
        assert found
        found.files([root / "one" / "report.html"], "report")
        found.wait()
    (after,) = runs(root)
    assert (after.info.status, after.info.end_time) == ("KILLED", ended.info.end_time)
    kept = root / "mlartifacts" / after.info.run_id / "artifacts" / "report" / "report.html"
    assert kept.read_text() == "second"


def test_the_page_in_the_folder_of_a_sweep_is_recorded_and_one_elsewhere_is_not(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / 'mlflow.db'}")
    sweeps.without_a_ledger(root / "one", trials=1)
    tracker(root).close()
    report(root / "one", out=root / "beside.html")
    assert not list((root / "mlartifacts").glob("*/artifacts/report"))
    report(root / "one")
    (kept,) = (root / "mlartifacts").glob("*/artifacts/report/*")
    assert kept.read_bytes() == (root / "one" / "report.html").read_bytes()
    (root / "one" / "record.json").write_text("{")
    write_and_log(root / "one", root, quiet=True)
    assert "its record of the MLflow run is damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("request to https://user:p@ss@host/path failed", "request to https://host/path failed"),
        ("postgresql://u:p@db/name?password=secret&x=1", "postgresql://db/name?password=...&x=1"),
        ("sqlite:////runs/mlflow.db", "sqlite:////runs/mlflow.db"),
    ],
)
def test_what_is_shown_holds_no_credentials(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


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


def test_a_sweep_says_what_it_found_with_a_link_to_its_report(root: Path, trained: Path) -> None:
    from mlflow import MlflowClient

    record = sweep_tracker(root)
    best = trained.rename(record.folder / "1")
    record.figures({"hoyer": 0.5})
    record.findings("What was asked")
    record.best(best, "")
    record.close()
    (found,) = runs(root)
    assert found.data.metrics == {"sparsity/hoyer": 0.5}
    assert found.data.tags["mlflow.note.content"].startswith("What was asked\n")
    assert "report/report.html" in found.data.tags["mlflow.note.content"]
    assert [given.dataset.name for given in found.inputs.dataset_inputs] == ["bars"]
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    tags = client.get_experiment(found.info.experiment_id).tags
    assert tags["mlflow.note.content"] == found.data.tags["mlflow.note.content"]
