"""Records of runs and sweeps, read back through MLflow's own client."""

import math
import shutil
from pathlib import Path

import pytest

from distvae.cli.compare import report
from distvae.cli.records import send_folders
from distvae.config import Config, flatten
from distvae.report import write_and_log
from distvae.track import Store, Tracker, without_secrets
from distvae.track.record import read_sent
from tests.report import folders as sweeps
from tests.track.records import away, back, history, runs, sweep_tracker, tracker, train


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


def test_a_resumed_run_goes_on_with_its_record_and_logs_no_epoch_twice(root: Path) -> None:
    first = tracker(root)
    train(first, 1, 2, 3)
    first.close("KILLED")
    again = tracker(root)
    train(again, 3, 4, val_bound=-4.0)
    again.close()
    (found,) = runs(root)
    assert found.info.status == "FINISHED"
    assert history(root, found.info.run_id, "bound/val_bound") == [
        (1, -2.5),
        (2, -2.5),
        (3, -2.5),
        (4, -4.0),
    ]


def test_a_folder_that_was_replaced_begins_a_new_record(root: Path) -> None:
    for _ in range(2):
        record = tracker(root)
        train(record, 1)
        record.close()
        shutil.rmtree(root / "one")
    assert len(runs(root)) == 2


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


@pytest.mark.parametrize("name", ["a%20b", "50%off", "a?b", "a#b c"])
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


def test_trials_are_children_of_their_sweep(root: Path) -> None:
    sweep = sweep_tracker(root, trials=2)
    sweep.begin()
    for name in ("0", "1"):
        tracker(root, f"sweep/{name}", root / "sweep").close("FAILED")
    sweep.close()
    children = {
        run.info.run_name
        for run in runs(root)
        if run.data.tags.get("mlflow.parentRunId") == read_sent(sweep.folder)["id"]
    }
    assert children == {"0", "1"}


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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:p@ss@host/path", "https://host/path"),
        (
            "API request to http://tok@host:5000/api failed",
            "API request to http://host:5000/api failed",
        ),
        ("postgresql://u:p@db/name?password=secret&x=1", "postgresql://db/name?password=...&x=1"),
        ("sqlite:////runs/mlflow.db", "sqlite:////runs/mlflow.db"),
    ],
)
def test_what_is_shown_holds_no_credentials(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


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


def test_a_report_that_a_store_did_not_take_waits_for_it(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker(root).close()
    (root / "one" / "report.html").write_text("page")
    found = Tracker.of_folder(root / "one", Store.find(root))
    assert found
    away(root)
    found.files([root / "one" / "report.html"], "report")
    found.wait()
    assert "sends it" in capsys.readouterr().err
    back(root)
    assert send_folders(root, []) == 0
    (after,) = runs(root)
    assert after.info.status == "FINISHED"
    assert (
        root / "mlartifacts" / after.info.run_id / "artifacts" / "report" / "report.html"
    ).read_text() == "page"


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


def test_a_folder_without_a_record_or_with_one_elsewhere_is_not_told_of(root: Path) -> None:
    (root / "bare").mkdir()
    assert Tracker.of_folder(root / "bare", Store.find(root)) is None
    tracker(root).close()
    assert Tracker.of_folder(root / "one", Store("http://elsewhere")) is None
    assert Tracker.of_folder(root / "one", Store.find(root)) is not None
