"""Runs whose folder is on another machine: MLflow's copy does what the folder did."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import distvae
from distvae.files.refusal import Refusal
from distvae.track import Store, Tracker
from distvae.track.records import find_folder, list_records
from distvae.train.run import Run
from tests.called import Called
from tests.track.records import sweep_tracker


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
    record = Tracker.open(distvae.load(trained).config, "bars", trained, "here", root=root)
    record.close()
    return trained.rename(root / "other machine")


def test_a_fetched_run_is_the_one_that_was_trained(root: Path, away: Path, call: Called) -> None:
    kept = Run.open(away)
    code, said, note = call("show", "small")
    assert code == 0, note
    assert "small is not on this machine; a copy from MLflow is in" in note
    cached = find_folder("small", Store.find(root))
    assert cached.is_relative_to(root / "cache" / "models")
    assert said.splitlines()[1:] == shown(call, away)[1:]
    assert Run.open(cached).epochs() == kept.epochs()
    x = np.random.default_rng(0).random((20, kept.dims), dtype=np.float32)
    np.testing.assert_array_equal(Run.open(cached).encode(x), kept.encode(x))
    files = {path.name for path in cached.rglob("*")}
    assert files == {
        "run.json",
        "config.yaml",
        "best.json",
        "epochs.jsonl",
        *(p.name for p in away.glob("best-*")),
    }


def shown(call: Called, run: Path) -> list[str]:
    return call("show", str(run))[1].splitlines()


@pytest.mark.slow
def test_what_is_fetched_encodes_and_is_judged_as_the_run_was(
    root: Path, away: Path, call: Called
) -> None:
    (record,) = list_records(Store.find(root))
    for name, run in (("theirs", str(away)), ("ours", record.id)):
        code, _, said = call("encode", run, "", "-o", f"{name}.parquet")
        assert code == 0, said
        code, output, said = call("evaluate", run, "--out", f"{name}")
        assert (code, bool(output)) == (0, True), said
    assert pq.read_table(root / "ours.parquet").equals(pq.read_table(root / "theirs.parquet"))
    for name in ("summary.json", "learning.png"):
        assert (root / "ours" / name).read_bytes() == (root / "theirs" / name).read_bytes()


def test_what_is_not_logged_is_refused_by_name(root: Path, away: Path, call: Called) -> None:
    code, _, said = call("check", "small", "--exact")
    assert code == 2
    assert "populations kept for its data (last.json) are not logged" in said


def test_a_run_without_a_logged_model_is_refused(root: Path, trained: Path) -> None:
    tracker = Tracker.open(distvae.load(trained).config, "bars", trained, "here", root=root)
    tracker.close("KILLED")
    shutil.rmtree(trained)
    with pytest.raises(
        Refusal, match=r"small is not on this machine, and no model of it is logged"
    ):
        find_folder("small", Store.find(root))


def test_what_a_store_lost_is_named_and_leaves_nothing_behind(
    root: Path, away: Path, call: Called
) -> None:
    (config,) = (root / "mlartifacts").rglob("config.yaml")
    config.unlink()
    code, _, said = call("show", "small")
    assert code == 2
    assert "in MLflow has no config.yaml" in said
    shutil.rmtree(config.parent)
    code, _, said = call("show", "small")
    assert code == 2
    assert "cannot be fetched from MLflow" in said
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
    Tracker.open(distvae.load(later).config, "bars", later, "here", root=root).close()
    store = Store.find(root)
    assert find_folder("small", store).samefile(later)
    assert find_folder(first.id, store).is_relative_to(root / "cache")
    (second,) = {record.id for record in list_records(store)} - {first.id}
    assert find_folder(second, store) == later


def test_the_folder_of_a_sweep_cannot_be_fetched(root: Path) -> None:
    sweep_tracker(root).close()
    shutil.rmtree(root / "sweep")
    with pytest.raises(Refusal, match="MLflow keeps only the results and the report of a sweep"):
        find_folder("sweep", Store.find(root))
