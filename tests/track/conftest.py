"""A store to record into, and a run to record."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from distvae.config import from_dict
from distvae.data import open_dataset
from distvae.track import Store
from distvae.train.session import fit


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the database of a store with one experiment. Copying it saves a second per test."""
    root = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        Store.find(root).connect("another")
    with closing(sqlite3.connect(root / "mlflow.db")) as database:
        database.execute("vacuum into ?", [str(root / "template.db")])
    return root / "template.db"


@pytest.fixture
def root(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of runs with a store."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return tmp_path


@pytest.fixture(scope="session")
def template_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run folder with trained weights, for copies."""
    folder = tmp_path_factory.mktemp("template") / "small"
    config = from_dict(
        {"data": {"kind": "bars", "rows": 200}, "model": {"kind": "tvae"}, "train": {"epochs": 1}}
    )
    list(fit(config, open_dataset(config.data, quiet=True), folder, recipe="bars"))
    return folder


@pytest.fixture
def trained(template_run: Path, root: Path) -> Path:
    """Return a run folder with trained weights, below the folder of runs."""
    return shutil.copytree(template_run, root / "small")
