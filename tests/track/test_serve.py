"""MLflow on the head of a cluster: for that machine alone, and not lost with it."""

import errno
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from distvae.files.refusal import Refusal, refusing_full_disk
from distvae.files.storage import Folder
from distvae.track.server import (
    _file_versions,
    copy_database,
    mlflow_answers,
    restore_database,
    serve,
)
from tests.track.ports import free_port


@contextmanager
def serving(home: Path, port: int) -> Iterator["subprocess.Popen[str]"]:
    words = [
        sys.executable,
        "-m",
        "distvae",
        "serve",
        "--storage",
        str(home / "shared"),
        "--port",
        str(port),
    ]
    with subprocess.Popen(
        words, env=os.environ | {"HOME": str(home)}, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            until = time.monotonic() + 90
            while not mlflow_answers(port):
                assert process.poll() is None
                assert time.monotonic() < until
                time.sleep(0.2)
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


@pytest.mark.slow
def test_the_records_of_a_head_come_back_on_another(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    port = free_port()
    with serving(tmp_path, port) as process:
        client = MlflowClient(f"http://127.0.0.1:{port}")
        experiment = client.create_experiment("night")
        run = client.create_run(experiment).info.run_id
        (tmp_path / "page.html").write_text("found")
        client.log_artifact(run, str(tmp_path / "page.html"))
        with socket.socket() as other:  # whoever listens on all addresses answers here too
            assert other.connect_ex(("127.0.0.2", port)) != 0
        again = subprocess.run(
            process.args, env=os.environ, capture_output=True, text=True, check=False
        )
        assert again.stdout == f"MLflow is served on 127.0.0.1:{port} already\n"
    assert Folder(tmp_path / "shared").subfolder("mlflow").list_files() == ["mlflow.db"]
    for file in (tmp_path / "mlflow").iterdir():
        file.unlink()
    with serving(tmp_path, port):
        client = MlflowClient(f"http://127.0.0.1:{port}")
        assert client.get_run(run).info.experiment_id == experiment
        assert Path(client.download_artifacts(run, "page.html")).read_text() == "found"


@pytest.mark.parametrize(
    ("uri", "package"),
    [
        ("postgresql://host/db", "psycopg2-binary"),
        ("postgresql+psycopg2://host/db", "psycopg2-binary"),
        ("postgresql+psycopg://host/db", r"psycopg\[binary\]"),
    ],
)
@pytest.mark.skipif(
    bool(find_spec("psycopg") or find_spec("psycopg2")), reason="there are drivers here"
)
def test_a_database_without_its_driver_is_refused(uri: str, package: str, tmp_path: Path) -> None:
    with pytest.raises(
        Refusal, match=f"DISTVAE_DATABASE: postgresql needs a driver: 'pip install .{package}"
    ):
        serve(str(tmp_path), free_port(), uri)


@pytest.mark.slow
def test_a_storage_that_does_not_answer_is_refused(tmp_path: Path) -> None:
    bucket = Folder(
        f"s3://key:secret@bucket/mlflow?endpoint_override=127.0.0.1:{free_port()}&scheme=http"
    )
    with pytest.raises(
        Refusal, match=r"--storage: s3://bucket/mlflow: .*a bucket that answers expected"
    ) as refused:
        restore_database(tmp_path / "mlflow.db", bucket)
    assert "secret" not in str(refused.value)


class Full(Folder):
    """A folder on a disk without room."""

    def write(self, name: str, content: bytes) -> None:
        with refusing_full_disk(self.path_of(name)):
            raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_without_room_is_said_and_tried_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sqlite3.connect(tmp_path / "mlflow.db").close()
    assert not copy_database(tmp_path / "mlflow.db", Full(tmp_path / "copies"))
    assert "no room left on the disk" in capsys.readouterr().err


def test_a_log_that_goes_with_mlflow_is_no_error(tmp_path: Path) -> None:
    """SQLite deletes it when the last who uses the database ends."""
    file, log, over = tmp_path / "mlflow.db", tmp_path / "mlflow.db-wal", threading.Event()
    file.touch()

    def come_and_go() -> None:
        while not over.is_set():
            log.touch()
            log.unlink()

    going = threading.Thread(target=come_and_go)
    going.start()
    try:
        assert {len(_file_versions(file)) for _ in range(20_000)} <= {1, 2}
    finally:
        over.set()
        going.join()


def test_nothing_answers_where_nothing_listens() -> None:
    assert not mlflow_answers(free_port())
