"""Records of runs and sweeps, read back through MLflow's own client and TensorBoard's reader."""

import json
import math
import shutil
from collections import defaultdict
from pathlib import Path

import pytest

from distvae.cli.compare import report
from distvae.config import Config, flatten
from distvae.files import program
from distvae.files.refusal import Refusal
from distvae.report import write_and_log
from distvae.track import Store, Tracker, refuse_missing_packages, without_secrets
from distvae.track.store import list_records
from tests.report import folders
from tests.track.records import runs, steps, sweep_tracker, tracker, train


def test_a_run_is_recorded_with_its_parameters_epochs_figures_and_files(root: Path) -> None:
    """Metrics have groups in MLflow, and plain names elsewhere."""
    record = tracker(root)
    train(record, 1)
    folder = root / "one" / "evaluation" / "test"
    (folder / "sounds").mkdir(parents=True)
    for name in ("codes.png", "sounds/original.wav", "files.csv", "files.parquet"):
        (folder / name).write_bytes(b"x")
    record.figures({"hoyer_active": 0.5, "pesq_wb": math.nan, "own": 1.0})
    record.close()
    (found,) = runs(root)
    assert found.info.status == "FINISHED"
    assert found.data.params == {key: str(value) for key, value in flatten(Config()).items()}
    assert found.data.metrics["bound/val_bound"] == -2.5
    assert found.data.metrics["sparsity/hoyer_active"] == 0.5
    assert {"own", "epoch"} < found.data.metrics.keys()
    assert not {"bound/val_kl", "quality/pesq_wb"} & found.data.metrics.keys()
    kept = root / "mlartifacts" / found.info.run_id / "artifacts"
    assert {path.relative_to(kept).as_posix() for path in kept.rglob("*") if path.is_file()} == {
        "evaluation/test/codes.png",
        "evaluation/test/sounds/original.wav",
        "evaluation/test/files.csv",
    }
    where = "metrics.val_bound < -2 and metrics.`hoyer_active` > 0.4 and params.model.kind = 'vae'"
    (listed,) = list_records(Store.find(root), where)
    assert listed.metrics["hoyer_active"] == 0.5
    assert not list_records(Store.find(root), "metrics.own > 4")


def test_a_store_is_found_in_a_folder_of_any_name_and_shown_without_secrets(
    empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    (folder := tmp_path / "50%20off?#b c").mkdir()
    shutil.copy(empty_store, folder / "mlflow.db")
    store = Store.find(Path(folder.name))
    assert (store.file, store.viewer) == (folder / "mlflow.db", "distvae ui")
    _, experiment = store.connect("here")
    assert store.client().get_experiment_by_name("here").experiment_id == experiment
    assert [file.name for file in folder.glob("*.db")] == ["mlflow.db"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///m.db?timeout=5")
    store = Store.find(tmp_path)
    assert store.uri == f"sqlite:///{tmp_path / 'm.db'}?timeout=5"
    assert store.file == tmp_path / "m.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@tracking.example")
    assert Store.find(tmp_path).viewer == "https://tracking.example"


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


def test_the_page_in_the_folder_of_a_sweep_is_recorded_long_after_an_end_that_stays(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / 'mlflow.db'}")
    folders.sweep(root / "one", trials=1)
    tracker(root).close("KILLED")
    (ended,) = runs(root)
    report(root / "one", out=root / "beside.html")
    assert not list((root / "mlartifacts").glob("*/artifacts/report"))
    for about in ("first", "second"):
        facts = json.loads((root / "one" / "sweep.json").read_text())
        (root / "one" / "sweep.json").write_text(json.dumps(facts | {"about": about}))
        report(root / "one")
    (kept,) = (root / "mlartifacts").glob("*/artifacts/report/*")
    assert "second" in kept.read_text()
    assert kept.read_bytes() == (root / "one" / "report.html").read_bytes()
    (after,) = runs(root)
    assert (after.info.status, after.info.end_time) == ("KILLED", ended.info.end_time)
    (root / "one" / "record.json").write_text("{")
    write_and_log(root / "one", root, quiet=True)
    assert "its record of the MLflow run is damaged" in capsys.readouterr().err


def test_a_sweep_says_what_it_found_with_a_link_to_its_report(root: Path, trained: Path) -> None:
    from mlflow import MlflowClient

    record = sweep_tracker(root, **{"axis.model.latent": "8, 16", "axis.model.latent#2": "32"})
    best = trained.rename(record.folder / "1")
    record.figures({"hoyer": 0.5})
    record.findings("What was asked")
    record.best(best, "")
    record.close()
    (found,) = runs(root)
    assert found.data.params == {"axis.model.latent": "8, 16", "axis.model.latent:2": "32"}
    assert found.data.metrics == {"sparsity/hoyer": 0.5}
    assert found.data.tags["mlflow.note.content"].startswith("What was asked\n")
    assert "report/report.html" in found.data.tags["mlflow.note.content"]
    assert [given.dataset.name for given in found.inputs.dataset_inputs] == ["bars"]
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    tags = client.get_experiment(found.info.experiment_id).tags
    assert tags["mlflow.note.content"] == found.data.tags["mlflow.note.content"]


def watched(root: Path) -> Tracker:
    """The tracker of a run that also writes for TensorBoard."""
    (root / "one").mkdir(exist_ok=True)
    config = Config().with_("train", sinks=("tensorboard",))
    return Tracker.open(config, "speech-vae", root / "one", "here", root=root)


def test_tensorboard_reads_each_epoch_once_and_the_settings(root: Path) -> None:
    """A process that died had not shown the third epoch."""
    module = "tensorboard.backend.event_processing.event_accumulator"
    accumulator = pytest.importorskip(module, reason="no tensorboard here")
    train(watched(root), 1, 2)
    lines = (root / "one" / "epochs.jsonl").read_text().splitlines()
    third = json.dumps(json.loads(lines[-1]) | {"epoch": 3})
    (root / "one" / "epochs.jsonl").write_text("\n".join([*lines, third]) + "\n")
    again = watched(root)
    train(again, 4, val_bound=-4.0)
    again.figures({"kl": 2.5})
    again.close()
    (file,) = (root / "one/tensorboard").glob("events.*")
    reader = accumulator.EventAccumulator(str(file)).Reload()
    found = defaultdict(list)
    for tag in reader.Tags()["scalars"]:
        found[tag] = [(event.step, event.value) for event in reader.Scalars(tag)]
    assert found["bound/val_bound"] == [(1, -2.5), (2, -2.5), (3, -2.5), (4, -4.0)]
    assert found["bound/kl"] == [(0, 2.5)]
    assert "bound/val_kl" not in found  # which is not a number
    (event,) = reader.Tensors("settings/text_summary")
    assert "model.kind" in event.tensor_proto.string_val[0].decode()


def test_a_sink_that_fails_is_told_of_once_and_one_whose_package_is_absent_is_refused(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboardX", reason="no tensorboardX here")
    record = watched(root)
    (root / "one" / "tensorboard").write_text("no folder")
    train(record, 1, 2)
    record.close()
    assert capsys.readouterr().err.count("one: writing for tensorboard in") == 1
    assert [steps(root, run) for run in runs(root)] == [[1, 2]]
    monkeypatch.setattr(program, "is_installed", {}.get)
    with pytest.raises(
        Refusal, match=r"train\.sinks: 'tensorboard' needs the package tensorboardX"
    ):
        refuse_missing_packages(["tensorboard"])
