"""Shared settings of all tests: the folder of real data, and the time limit of hypothesis."""

import gc
import os
import sqlite3
from collections.abc import Generator, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import settings

from tests.called import Called

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # tests run side by side, and their matrices are small

os.environ.setdefault(
    "RAY_AUTH_MODE", "token"
)  # read when Ray is first imported, which an earlier test of the process may have done

settings.register_profile("distvae", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("distvae")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect no garbage while modules are imported, and leave what they hold out of all later
    collections, which are rarer than usual: libraries have half a million objects, and each
    collection looks at all of them.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(10_000, 20, 20)
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that share an environment: workers that have nothing left to do take
    tests of others from the end, and would make another one.
    """
    items.sort(key=lambda item: item.path.name != "test_wheel.py")


@pytest.fixture(scope="session", autouse=True)
def no_power_cuts() -> Iterator[None]:
    """Skip fsync in this process: each call takes milliseconds, and no test cuts the power. Tests
    of the order of writes patch `os.fsync` with their own function.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        if not find_spec("sqlalchemy"):  # on a borrowed GPU machine
            yield
            return
        from sqlalchemy import Engine, event

        event.listen(Engine, "connect", without_waiting)
        yield
        event.remove(Engine, "connect", without_waiting)


def without_waiting(connection: sqlite3.Connection, record: object) -> None:
    """Let databases of Optuna and MLflow leave it to the system when to write."""
    connection.execute("PRAGMA synchronous=OFF")


@pytest.fixture(scope="session", autouse=True)
def migrations_read_once() -> Iterator[None]:
    """Let Optuna and MLflow read the list of their migrations once, not for each database that they
    open: it is tens of files, and the same as long as they are installed.
    """
    if not find_spec("alembic"):
        yield
        return
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    read, known = ScriptDirectory.from_config, dict[object, ScriptDirectory]()

    def from_config(config: Config) -> ScriptDirectory:
        names = ("script_location", "version_locations")
        place = tuple(config.get_main_option(name) for name in names)
        if place not in known:
            known[place] = read(config)
        return known[place]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScriptDirectory, "from_config", from_config)
        yield


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the workers of pytest-xdist share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real recordings and images, or a skip that says how to name one."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("DISTVAE_DATA", beside))
    if not folder.is_dir():
        pytest.skip("no real data here: DISTVAE_DATA names no folder")
    return folder


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Called:
    """Runs commands."""
    return Called(capsys, monkeypatch)
