"""Trained models in MLflow: opened, registered, and downloaded where their folder is not."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from mlflow.exceptions import MlflowException
from sqlalchemy import Engine, event

import distvae
from distvae.files.refusal import Refusal
from distvae.share import card, card_text
from distvae.track import Status, Store, Tracker
from distvae.track.served import Served, pack
from distvae.track.store import find_folder, list_records, read_sent
from distvae.train.run import Run
from tests.called import Called
from tests.track.records import runs, sweep_tracker

Values = tuple[str, ...]


def record(folder: Path, root: Path, status: Status = "FINISHED", sweep: Path | None = None) -> str:
    """Record a trained run, and return the id of the record."""
    config = distvae.load(folder).config
    Tracker.open(config, "bars", folder, "here", sweep, root).close(status)
    return read_sent(folder)["id"]


@pytest.mark.slow
def test_a_logged_model_gives_codes_and_reconstructions(
    root: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    run = distvae.load(trained)
    record(trained, root)
    (found,) = runs(root)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / 'mlflow.db'}")
    (output,) = found.outputs.model_outputs
    model = mlflow.pyfunc.load_model(f"models:/{output.model_id}")
    x = np.random.default_rng(0).random((20, run.dims), dtype=np.float32)
    np.testing.assert_array_equal(model.predict(x), run.encode(x))
    np.testing.assert_array_equal(model.predict(x, {"give": "reconstruction"}), run.reconstruct(x))
    names = [path.suffix for path in (root / "mlartifacts").rglob("*")]
    assert not {".pkl", ".pt", ".pth"} & {*names}
    example = model.input_example
    assert example.shape == (2, run.dims)
    np.testing.assert_array_equal(model.predict(example), run.encode(example))
    description = mlflow.get_logged_model(output.model_id).tags["mlflow.note.content"]
    assert description == card_text(trained)
    (readme,) = (root / "mlartifacts").rglob("README.md")
    assert readme.read_text() == card(trained)


def test_a_server_is_told_what_is_wrong_with_a_request(trained: Path) -> None:
    """MLflow's server sends the text of its own exceptions alone."""
    run = distvae.load(trained)
    row = np.zeros((1, run.dims))
    wrong: dict[str, Any] = {"give": "reconstructions"}
    with pytest.raises(MlflowException, match="give: no choice 'reconstructions'; did you mean"):
        Served(run).predict(row, wrong)
    with pytest.raises(MlflowException, match=r"x: holds NaN; .* expected"):
        Served(run).predict(row * np.nan)


def test_data_that_another_process_describes_at_the_same_moment_is_named(
    root: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second process enters the data after MLflow has looked for it."""
    Store.find(root).connect("here")  # makes the tables
    entered: list[str] = []

    def enter(
        connection: object, cursor: object, statement: str, values: Values, *_: object
    ) -> None:
        if statement.startswith("INSERT INTO datasets") and not entered:
            entered.append(uuid4().hex)
            with closing(sqlite3.connect(root / "mlflow.db")) as other, other:
                other.execute(statement, (entered[0], *values[1:]))

    event.listen(Engine, "before_cursor_execute", enter)
    try:
        record(trained, root)
    finally:
        event.remove(Engine, "before_cursor_execute", enter)
    (found,) = runs(root)
    assert len(entered) == 1
    (data,) = (given.dataset for given in found.inputs.dataset_inputs)
    info = distvae.load(trained).info
    assert (data.name, json.loads(data.profile)["rows"]) == (info["data"], info["rows"])
    assert info["data_digest"].startswith(data.digest)
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_the_best_of_a_sweep_is_registered_once_and_its_alias_moves_on(
    root: Path, trained: Path
) -> None:
    """The record of the third trial was not begun in MLflow before."""
    from mlflow import MlflowClient

    sweep = sweep_tracker(root, trials=3)
    trials = [root / "sweep" / "trials" / name for name in "123"]
    for number, folder in enumerate(trials, 1):
        shutil.copytree(trained, folder)
        (folder / "evaluation" / "test").mkdir(parents=True)
        (folder / "evaluation" / "test" / "summary.json").write_text(f'{{"bound": {number}}}')
    for folder in trials[:2]:
        record(folder, root, sweep=root / "sweep")
    about = "here", "3", {"model.kind": "tvae"}, {"kind": "trial"}
    Tracker(trials[2], None, *about, root / "sweep").close()
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    assert not list((root / "mlartifacts").rglob("code"))
    for best, versions in ((0, 1), (0, 1), (1, 2), (0, 2), (2, 3)):
        sweep.best(trials[best], "bob's: bars")
        sweep.wait()
        version = client.get_model_version_by_alias("bob's- bars", "best")
        described = card_text(trials[best])
        assert (version.run_id, version.description) == (read_sent(trials[best])["id"], described)
        assert client.get_registered_model("bob's- bars").description == described
        assert len(client.search_model_versions("name LIKE 'bob%'")) == versions
        assert len(list((root / "mlartifacts").rglob("code"))) == versions
    assert {run.info.status for run in runs(root) if run.data.tags["kind"] == "trial"} == {
        "FINISHED"
    }


@pytest.mark.slow
def test_a_model_folder_serves_itself_with_the_code_in_it(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    pack(trained, folder)
    program = f"""
import json, mlflow
model = mlflow.pyfunc.load_model({str(folder)!r})
import distvae
print(json.dumps([distvae.__file__, model.predict(model.input_example).tolist()]))
"""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    words = [sys.executable, "-c", program]
    done = subprocess.run(
        words, cwd="/", env=environment, capture_output=True, text=True, check=True
    )
    origin, codes = json.loads(done.stdout)
    assert Path(origin).is_relative_to(folder / "code")
    example = json.loads((folder / "input_example.json").read_text())
    assert codes == distvae.load(trained).encode(example).tolist()


@pytest.fixture
def call(call: Called, root: Path, monkeypatch: pytest.MonkeyPatch) -> Called:
    """Runs commands with this store and an empty cache."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / 'mlflow.db'}")
    monkeypatch.setenv("DISTVAE_CACHE", str(root / "cache"))
    monkeypatch.chdir(root)
    return call


@pytest.fixture
def away(root: Path, trained: Path) -> Path:
    """Move the folder of a recorded run to where nobody knows it."""
    record(trained, root)
    return trained.rename(root / "other machine")


def test_a_fetched_run_is_the_one_that_was_trained(root: Path, away: Path, call: Called) -> None:
    kept = Run.open(away)
    code, said, note = call("show", "small")
    assert code == 0, note
    assert "small is not on this machine; a copy from MLflow is in" in note
    cached = find_folder("small", Store.find(root))
    assert cached.is_relative_to(root / "cache" / "models")
    assert said.splitlines()[1:] == call("show", str(away))[1].splitlines()[1:]
    assert Run.open(cached).epochs() == kept.epochs()
    x = np.random.default_rng(0).random((20, kept.dims), dtype=np.float32)
    np.testing.assert_array_equal(Run.open(cached).encode(x), kept.encode(x))
    weights = {path.name for path in away.glob("best-*")}
    needed = {"run.json", "config.yaml", "best.json", "epochs.jsonl"}
    assert {path.name for path in cached.rglob("*")} == needed | weights
    code, _, note = call("show", "small", "--check", "exact")
    assert code == 2
    assert "populations kept for its data (last.json) are not logged" in note


def test_what_a_store_lost_is_named_and_leaves_nothing_behind(
    root: Path, away: Path, call: Called
) -> None:
    (config,) = (root / "mlartifacts").rglob("config.yaml")
    config.unlink()
    code, _, said = call("show", "small")
    assert (code, "in MLflow has no config.yaml" in said) == (2, True)
    shutil.rmtree(config.parent)
    code, _, said = call("show", "small")
    assert (code, "cannot be fetched from MLflow" in said) == (2, True)
    assert not [
        path for path in (root / "cache").rglob("*") if path.suffix != ".lock" and path.is_file()
    ]


def test_a_folder_that_holds_a_later_run_does_not_stand_for_the_earlier(
    root: Path, away: Path, call: Called
) -> None:
    (first,) = list_records(Store.find(root))
    later = shutil.copytree(away, root / "small")
    (later / "mlflow.json").unlink()
    (later / "record.json").unlink()
    second, store = record(later, root), Store.find(root)
    assert find_folder("small", store).samefile(later)
    assert find_folder(first.id, store).is_relative_to(root / "cache")
    assert find_folder(second, store) == later


def test_what_mlflow_does_not_keep_is_refused(root: Path, trained: Path) -> None:
    record(trained, root, "KILLED")
    sweep_tracker(root).close()
    for folder, message in {
        "small": "small is not on this machine, and no model of it is logged",
        "sweep": "MLflow keeps only the results and the report of a sweep",
    }.items():
        shutil.rmtree(root / folder)
        with pytest.raises(Refusal, match=message):
            find_folder(folder, Store.find(root))
