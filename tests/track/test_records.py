"""Runs are found by name, id and rank, and bad names are refused."""

import json
import shutil
import socket
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import distvae
from distvae.cli.records import RunsOptions, list_runs, open_ui
from distvae.files.refusal import Refusal
from distvae.track import Status, Store
from distvae.track.store import find_folder, find_sweep, list_records, rank_trials, read_sent
from tests.track.records import sweep_tracker, tracker, train

WORTH = {"1": 0.2, "2": 0.7, "3": 0.5}


def record_sweep(root: Path) -> Path:
    """Record a sweep of three trials, ranked by a metric to minimise.

    A failed one has no figure.
    """
    record = sweep_tracker(root, **{"metric.error": "min", "metric.hoyer": "max"})
    record.begin()
    folder = record.folder
    for name, worth in WORTH.items():
        trial = tracker(root, f"sweep/trials/{name}", folder)
        train(trial, 1)
        trial.figures({"error": worth, "hoyer": worth})
        trial.close()
    tracker(root, "sweep/trials/4", folder).close("FAILED")
    record.close()
    return folder


@pytest.fixture
def sweep(root: Path) -> Path:
    """The folder of a sweep that a test may change, in a store of its own."""
    return record_sweep(root)


@pytest.fixture(scope="module")
def known_root(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs with a store and the same sweep, which tests only read."""
    root = tmp_path_factory.mktemp("known")
    shutil.copy(empty_store, root / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        record_sweep(root)
    return root


@pytest.fixture
def known_sweep(known_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of that sweep."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return known_root / "sweep"


def test_the_best_is_the_least_or_the_largest_as_the_sweep_ranks_it(
    known_root: Path, known_sweep: Path
) -> None:
    store = Store.find(known_root)
    assert find_folder("best:error@sweep", store) == known_sweep / "trials" / min(
        WORTH, key=WORTH.__getitem__
    )
    assert find_folder("best:hoyer@sweep", store) == known_sweep / "trials" / max(
        WORTH, key=WORTH.__getitem__
    )


def test_the_best_is_a_trial_that_finished(root: Path, sweep: Path) -> None:
    others: dict[str, Status | None] = {"halted": "KILLED", "failed": "FAILED", "training": None}
    for name, status in others.items():
        trial = tracker(root, f"sweep/trials/{name}", sweep)
        trial.figures({"error": 0.0, "hoyer": 1.0})
        trial.close(status) if status else trial.wait()
    known = list_records(Store.find(root))
    ranked = rank_trials(find_sweep("sweep", known), known)
    assert [record.name for record in ranked] == sorted(WORTH, key=WORTH.__getitem__)
    assert find_folder("best:hoyer@sweep", Store.find(root)) == sweep / "trials" / "2"


def test_a_sweep_is_found_by_any_path_to_its_folder(
    known_root: Path, known_sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(known_root.parent)
    known = list_records(Store.find(known_root))
    by_name = find_sweep("sweep", known)
    for path in (known_sweep, f"{known_root.name}/../{known_sweep.relative_to(known_root.parent)}"):
        assert find_sweep(str(path), known) == by_name


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (RunsOptions(of="sweep", kind="sweep"), "--kind sweep: --of lists the trials of a sweep"),
        (RunsOptions(ascending=True), "--ascending: without --sort"),
        (RunsOptions(ascending=False), "--descending: without --sort"),
    ],
)
def test_an_option_without_effect_is_refused(
    known_root: Path, known_sweep: Path, options: RunsOptions, words: str
) -> None:
    with pytest.raises(Refusal, match=words):
        list_runs(known_root, options)


def test_many_figures_cut_off_neither_each_other_nor_a_name(
    root: Path, sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = tracker(root, "sweep/trials/wide", sweep)
    names = [f"figure_{n}" for n in range(30)]
    trial.figures(dict.fromkeys(names, -123456.789))
    trial.close()
    list_runs(root, RunsOptions(of="sweep", metric=names))
    (line,) = (line for line in capsys.readouterr().out.splitlines() if " wide " in line)
    assert line.split().count("-123456.789") == 30


def test_every_record_is_found_by_its_folder_name_and_id(
    known_root: Path, known_sweep: Path
) -> None:
    store = Store.find(known_root)
    found = list_records(store)
    assert {record.name for record in found} == {"sweep", "1", "2", "3", "4"}
    for record in found:
        assert record.folder.is_dir()
        for text in (record.id, record.id[:12], record.name, str(record.folder)):
            assert find_folder(text, store) == record.folder


def test_python_opens_what_the_commands_open(
    root: Path, sweep: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", Store.find(root).uri)
    for name in WORTH:
        shutil.copytree(trained, sweep / "trials" / name, dirs_exist_ok=True)
    best = sweep / "trials" / min(WORTH, key=WORTH.__getitem__)
    for text in (
        "best:error@sweep",
        best.name,
        next(r.id for r in list_records(Store.find(root)) if r.folder == best),
    ):
        assert distvae.load(text).path == best
    assert distvae.load(trained).path == trained
    with pytest.raises(Refusal, match="no record of that name or id"):
        distvae.load("nothing")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("swep", "did you mean 'sweep'"),
        ("best:hoyr@sweep", "did you mean 'hoyer'"),
        ("best:error@other", "no sweep of that name or id"),
        ("best:error", "best:METRIC@SWEEP expected"),
    ],
)
def test_names_of_nothing_are_refused(
    known_root: Path, known_sweep: Path, text: str, said: str
) -> None:
    with pytest.raises(Refusal, match=said):
        find_folder(text, Store.find(known_root))


def test_one_name_of_two_folders_is_refused_with_their_ids(root: Path, sweep: Path) -> None:
    twin = tracker(root, "elsewhere/2")
    twin.close()
    with pytest.raises(
        Refusal, match=f"2 records have that name.*{read_sent(twin.folder)['id'][:8]}"
    ):
        find_folder("2", Store.find(root))


def test_filters_are_those_of_mlflow(known_root: Path, known_sweep: Path) -> None:
    store = Store.find(known_root)
    assert {record.name for record in list_records(store, "metrics.error > 0.3")} == {"2", "3"}
    with pytest.raises(Refusal, match="--where"):
        list_records(store, "metrics.error >")


def test_a_store_of_a_newer_mlflow_or_none_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="no records"):
        Store.find(tmp_path / "nowhere").open_client()
    with closing(sqlite3.connect(root / "mlflow.db")) as database:
        database.execute("update alembic_version set version_num = 'ffffffffffff'")
        database.commit()
    with pytest.raises(Refusal, match="a store that this MLflow can read expected"):
        Store.find(root).open_client()


def test_a_port_in_use_is_refused_before_anything_starts(
    known_root: Path, known_sweep: Path
) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(Refusal, match=f"--port {port}: in use; "):
            open_ui(known_root, port)


def test_lists_are_sorted_filtered_and_cut(
    known_root: Path, known_sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def listed(**how: Any) -> list[dict[str, Any]]:
        asked: dict[str, Any] = {"kind": "trial", "limit": 10, "json": True}
        list_runs(known_root, RunsOptions(**(asked | how)))
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    assert [record["name"] for record in listed(kind=None)] == ["sweep"]
    assert [record["name"] for record in listed(sort="error")] == ["2", "3", "1"]
    assert [
        record["name"] for record in listed(of="sweep", sort="error", ascending=True, limit=2)
    ] == ["1", "3"]
    assert [record["name"] for record in listed(of="sweep", sort="error")] == ["1", "3", "2"]
    assert [
        record["name"] for record in listed(of="sweep", sort="error", ascending=False, limit=2)
    ] == ["2", "3"]
    assert [record["name"] for record in listed(of="sweep", sort="hoyer")] == ["2", "3", "1"]
    assert {
        record["name"] for record in listed(of=str(known_sweep), where="metrics.hoyer < 0.6")
    } == {
        "1",
        "3",
    }
    with pytest.raises(Refusal, match="did you mean 'error'"):
        listed(sort="errors")
