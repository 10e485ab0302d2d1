"""MLflow on the head of a cluster: for that machine alone, and not lost with it."""

import errno
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.util import find_spec
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from distvae.files.refusal import Refusal, refusing_full_disk
from distvae.files.storage import Folder
from distvae.track import server
from distvae.track.server import copy_database, mlflow_answers, serve
from tests.ports import free_port
from tests.processes import started
from tests.track.records import runs, steps


@contextmanager
def serving(home: Path, port: int) -> Iterator["subprocess.Popen[str]"]:
    words = [sys.executable, "-m", "distvae", "serve", "--storage", str(home / "shared")]
    environment = os.environ | {"HOME": str(home)}
    with started(
        [*words, "--port", str(port)], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        until = time.monotonic() + 240
        while not mlflow_answers(port):
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.2)
        yield process


@pytest.mark.long
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


class Full(Folder):
    """A folder on a disk without room."""

    def write(self, name: str, content: bytes) -> None:
        with refusing_full_disk(self.path_of(name)):
            raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_without_room_is_said_and_tried_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        assert copy_database(database, Full(tmp_path / "copies"), 0) == 0
        copied = copy_database(database, Folder(tmp_path / "copies"), 0)
        assert copied
        assert copy_database(database, Full(tmp_path / "copies"), copied) == copied
    assert "no room left on the disk" in capsys.readouterr().err


class Healthy(BaseHTTPRequestHandler):
    """A server that answers like a healthy MLflow."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"OK")

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@pytest.mark.skipif(bool(find_spec("psycopg")), reason="the driver is here")
@pytest.mark.parametrize("ends", [False, True])
def test_a_server_that_misses_its_companion_is_replaced_and_another_is_not(
    ends: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """After `ray down` and `ray up` the former server answers until it has missed Ray's head. The
    new server is then refused, because it lacks a driver.
    """
    monkeypatch.setattr(server, "COPY_INTERVAL", 0.2)
    uri, beside = "postgresql+psycopg://host/db", f"127.0.0.1:{free_port()}"
    needed = r"DISTVAE_DATABASE: postgresql needs a driver: 'pip install .psycopg\[binary\]"
    refused = pytest.raises(Refusal, match=needed) if ends else nullcontext()
    with HTTPServer(("127.0.0.1", 0), Healthy) as former, ThreadPoolExecutor() as threads:
        threads.submit(former.serve_forever, poll_interval=0.01)

        def end() -> None:
            former.shutdown()
            former.server_close()

        ending = threading.Timer(0.4 if ends else 60, end)
        ending.start()
        try:
            with refused:
                serve(str(tmp_path), former.server_port, uri, beside)
        finally:
            ending.cancel()
            former.shutdown()
    assert ("already" in capsys.readouterr().out) == (not ends)


def test_another_program_on_the_port_is_no_mlflow() -> None:
    def greet(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(b"220 mail.example.com ESMTP\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor() as threads:
        threads.submit(greet, listener)
        assert not mlflow_answers(listener.getsockname()[1])


@pytest.mark.slow
def test_a_server_that_comes_later_gets_the_whole_run_and_no_secret_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:hunter2@127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("DISTVAE_CACHE", str(tmp_path / "cache"))

    def process(*words: str) -> str:
        command = [sys.executable, "-m", "distvae", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout + done.stderr

    said = process("train", "bars", "data.rows=200", "train.epochs=3", "--no-evaluate")
    assert "sends it later" in said
    with serving(tmp_path, port):
        said += process("runs", "--send") + process("runs")
        (tmp_path / "runs" / "bars").rename(tmp_path / "elsewhere")
        said += process("encode", "bars", "", "-o", "fetched.parquet")
    process("encode", "elsewhere", "", "-o", "kept.parquet")
    assert pq.read_table(tmp_path / "fetched.parquet").equals(
        pq.read_table(tmp_path / "kept.parquet")
    )
    (found,) = runs(tmp_path / "mlflow", "bars")
    assert found.info.status == "FINISHED"
    assert steps(tmp_path / "mlflow", found) == [1, 2, 3]
    assert len(found.outputs.model_outputs) == 1
    assert "hunter2" not in said
