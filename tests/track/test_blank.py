"""A new store is a copy of an empty database, the same as MLflow would have made."""

import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from mlflow.store.db.utils import _initialize_tables
from sqlalchemy import create_engine

from distvae.data.folders import cache_folder
from distvae.track import Store, blank

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTVAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def contents(file: Path) -> dict[str, tuple[list[str], list[object]]]:
    """The tables and indices of a database: the words that made each, in any order, and its rows.

    MLflow takes some of the words from sets.
    """
    found = {}
    with closing(sqlite3.connect(file)) as database:
        for kind, name, made in database.execute("select type, name, sql from sqlite_master"):
            rows = database.execute(f"select * from {name}").fetchall() if kind == "table" else []
            found[name] = (sorted(re.findall(r"\w+", str(made))), rows)
    return found


def test_it_has_the_tables_that_mlflow_makes(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'expected.db'}")
    _initialize_tables(engine)
    engine.dispose()
    blank.copy_empty_database(tmp_path / "found.db")
    assert contents(tmp_path / "found.db") == contents(tmp_path / "expected.db")


def test_two_stores_are_made_from_one_database(tmp_path: Path) -> None:
    for name in ("one", "two"):
        root = tmp_path / name
        client, experiment = Store.find(root).connect("bars")
        artifacts = client.get_experiment(experiment).artifact_location
        assert artifacts.startswith((root / "mlartifacts").as_uri())
        default = client.get_experiment("0").artifact_location
        assert str(tmp_path / "cache") not in default
        assert not list(root.glob("*.part*"))
    assert len(list(cache_folder().rglob(blank.NAME))) == 1


def test_without_a_cache_mlflow_makes_the_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("no folder")
    Store.find(tmp_path / "runs").connect("bars")
    assert "experiments" in contents(tmp_path / "runs" / "mlflow.db")


def test_an_existing_store_is_left_as_it_is(tmp_path: Path) -> None:
    _, experiment = Store.find(tmp_path).connect("bars")
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    assert Store.find(tmp_path).connect("bars")[1] == experiment
    assert not (tmp_path / "cache").exists()
