"""A real server of MLflow that comes up after the run has ended."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.called import Called
from tests.ports import answers, free_port
from tests.processes import started
from tests.track.records import history, runs


@contextmanager
def server(port: int, root: Path) -> Iterator[None]:
    store = [
        "--backend-store-uri",
        f"sqlite:///{root / 'mlflow.db'}",
        "--artifacts-destination",
        str(root / "artifacts"),
    ]
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    with started(command + store, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT) as process:
        until = time.monotonic() + 240
        while not answers(port):
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.2)
        yield


@pytest.mark.slow
def test_a_server_that_comes_later_gets_the_whole_run_and_no_secret_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Called
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
    with server(port, tmp_path):
        said += process("runs", "--send") + process("runs")
        (tmp_path / "runs" / "bars").rename(tmp_path / "elsewhere")
        said += process("encode", "bars", "", "-o", "fetched.parquet")
    monkeypatch.chdir(tmp_path)
    assert call("encode", "elsewhere", "", "-o", "kept.parquet")[0] == 0
    assert pq.read_table(tmp_path / "fetched.parquet").equals(
        pq.read_table(tmp_path / "kept.parquet")
    )
    (found,) = runs(tmp_path, "bars")
    assert found.info.status == "FINISHED"
    assert [step for step, _ in history(tmp_path, found.info.run_id, "bound/val_bound")] == [
        1,
        2,
        3,
    ]
    assert len(found.outputs.model_outputs) == 1
    assert "hunter2" not in said
