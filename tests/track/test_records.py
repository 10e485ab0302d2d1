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
UNFINISHED: dict[str, Status | None] = {"halted": "KILLED", "failed": "FAILED", "training": None}


@pytest.fixture(scope="module")
def known_root(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs with a store and a sweep, which tests only read.

    The sweep ranks its trials by a metric to minimise. The best values belong to trials that did
    not finish.
    """
    root = tmp_path_factory.mktemp("known")
    shutil.copy(empty_store, root / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        record_sweep(root)
    return root


def record_sweep(root: Path) -> Path:
    record = sweep_tracker(root, **{"metric.error": "min", "metric.hoyer": "max"})
    record.begin()
    for name, worth in WORTH.items():
        trial = tracker(root, f"sweep/trials/{name}", record.folder)
        train(trial, 1)
        trial.figures({"error": worth, "hoyer": worth})
        trial.figures({f"figure_{n}": -123456.789 for n in range(30 * (name == "1"))})
        trial.close()
    for name, status in UNFINISHED.items():
        trial = tracker(root, f"sweep/trials/{name}", record.folder)
        trial.figures({"error": 0.0, "hoyer": 1.0})
        trial.close(status) if status else trial.wait()
    record.close()
    return record.folder


@pytest.fixture
def store(known_root: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The store of that sweep."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Store.find(known_root)


def test_the_best_is_the_least_or_the_largest_of_the_trials_that_finished(
    known_root: Path, store: Store
) -> None:
    for metric, choose in {"error": min, "hoyer": max}.items():
        best = choose(WORTH, key=lambda name: WORTH[name])
        assert find_folder(f"best:{metric}@sweep", store) == known_root / "sweep" / "trials" / best
    ranked = rank_trials(store, find_sweep("sweep", list_records(store)))
    assert [record.name for record in ranked] == sorted(WORTH, key=WORTH.__getitem__)


def test_every_record_is_found_by_its_folder_name_and_id_and_a_port_in_use_is_refused(
    known_root: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = list_records(store)
    assert {record.name for record in found} == {"sweep", *WORTH, *UNFINISHED}
    for record in found:
        for text in (record.id, record.id[:12], record.name, str(record.folder)):
            assert find_folder(text, store) == record.folder
    monkeypatch.chdir(known_root.parent)
    for path in (str(known_root / "sweep"), f"{known_root.name}/../{known_root.name}/sweep"):
        assert find_sweep(path, found) == find_sweep("sweep", found)
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Refusal, match=f"--port {port}: in use; "):
            open_ui(known_root, port)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("swep", "did you mean 'sweep'"),
        ("best:hoyr@sweep", "did you mean 'hoyer'"),
        ("best:error@other", "no sweep of that name or id"),
        ("best:error", "best:METRIC@SWEEP expected"),
    ],
)
def test_names_of_nothing_are_refused(store: Store, text: str, said: str) -> None:
    with pytest.raises(Refusal, match=said):
        find_folder(text, store)


def test_lists_are_sorted_filtered_cut_and_whole(
    known_root: Path, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    def listed(**how: Any) -> list[str]:
        asked: dict[str, Any] = {"of": "sweep", "where": "attributes.status = 'FINISHED'"}
        list_runs(known_root, RunsOptions(**(asked | how), json=True))
        return [json.loads(line)["name"] for line in capsys.readouterr().out.splitlines()]

    assert listed(of=None) == ["sweep"]
    assert listed(of=None, kind="trial", sort="error") == ["2", "3", "1"]
    assert listed(sort="error") == ["1", "3", "2"]
    assert listed(sort="error", limit=2) == ["1", "3"]
    assert listed(sort="hoyer") == ["2", "3", "1"]
    found = listed(of=str(known_root / "sweep"), where="metrics.hoyer < 0.6")
    assert set(found) == {"1", "3"}
    names = [f"figure_{n}" for n in range(30)]
    list_runs(known_root, RunsOptions(of="sweep", metric=names))
    wide = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line.count("-123456.8") for line in wide if "-123456.8" in line] == [30]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (RunsOptions(of="sweep", kind="sweep"), "--kind sweep: --of lists the trials of a sweep"),
        (RunsOptions(of="sweep", sort="errors"), "did you mean 'error'"),
        (RunsOptions(where="metrics.error >"), "--where"),
    ],
)
def test_an_option_without_effect_or_meaning_is_refused(
    known_root: Path, store: Store, options: RunsOptions, words: str
) -> None:
    with pytest.raises(Refusal, match=words):
        list_runs(known_root, options)


def test_python_opens_what_the_commands_open_and_one_name_of_two_folders_is_refused(
    root: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (store := Store.find(root)).uri)
    best = record_sweep(root) / "trials" / "1"
    shutil.copytree(trained, best, dirs_exist_ok=True)
    (number,) = [record.id for record in list_records(store) if record.folder == best]
    for text in ("best:error@sweep", best.name, number):
        assert distvae.load(text).path == best
    assert distvae.load(trained).path == trained
    with pytest.raises(Refusal, match="no record of that name or id"):
        distvae.load("nothing")
    twin = tracker(root, "elsewhere/2")
    twin.close()
    with pytest.raises(
        Refusal, match=f"2 records have that name.*{read_sent(twin.folder)['id'][:8]}"
    ):
        find_folder("2", store)


def test_a_store_that_cannot_be_read_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="no records"):
        Store.find(tmp_path / "nowhere").open_client()
    with closing(sqlite3.connect(root / "mlflow.db")) as database:
        database.execute("update alembic_version set version_num = 'ffffffffffff'")
        database.commit()
    with pytest.raises(Refusal, match="a store that this MLflow can read expected"):
        Store.find(root).open_client()
