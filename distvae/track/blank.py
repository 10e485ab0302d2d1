"""A new database of MLflow, as a copy of an empty one.

MLflow makes the tables of a new database by all the migrations of its history, which takes a second
or two. An empty database is kept in the cache instead, one for each version of MLflow.
"""

import shutil
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from distvae.files.atomic import replaced_file

NAME = "empty.db"


def copy_empty_database(file: Path) -> None:
    """Put an empty database where none is; leave it to MLflow if that fails."""
    from distvae.data.folders import build_once, cache_folder

    with suppress(Exception):
        import mlflow

        folder = cache_folder() / "mlflow" / mlflow.__version__
        build_once(folder, _make_tables)
        with replaced_file(file) as partial:
            shutil.copyfile(folder / NAME, partial)


def _make_tables(folder: Path) -> None:
    """Make a database that has the tables of MLflow, and nothing in them."""
    from mlflow.store.db.utils import _initialize_tables
    from sqlalchemy import URL, create_engine

    file = folder / NAME
    with closing(sqlite3.connect(file)) as database:
        database.execute("pragma journal_mode=wal")
    engine = create_engine(URL.create("sqlite", database=str(file)))
    try:
        _initialize_tables(engine)
    finally:
        engine.dispose()
