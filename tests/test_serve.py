"""MLflow on the head of a cluster: for that machine alone, and not lost with it."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from distvae.serve import answers
from distvae.storage import Folder
from tests.track.ports import free_port


@contextmanager
def serving(home: Path, port: int) -> Iterator["subprocess.Popen[str]"]:
    words = [sys.executable, "-m", "distvae", "serve", "--storage", str(home / "shared"), "--port", str(port)]
    with subprocess.Popen(words, env=os.environ | {"HOME": str(home)}, stdout=subprocess.PIPE, text=True) as process:
        try:
            until = time.monotonic() + 90
            while not answers(port):
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
        again = subprocess.run(process.args, env=os.environ, capture_output=True, text=True, check=False)
        assert again.stdout == f"MLflow is served on 127.0.0.1:{port} already\n"
    assert Folder(tmp_path / "shared").below("mlflow").names() == ["mlflow.db"]
    for file in (tmp_path / "mlflow").iterdir():
        file.unlink()
    with serving(tmp_path, port):
        client = MlflowClient(f"http://127.0.0.1:{port}")
        assert client.get_run(run).info.experiment_id == experiment
        assert Path(client.download_artifacts(run, "page.html")).read_text() == "found"


def test_nothing_answers_where_nothing_listens() -> None:
    assert not answers(free_port())
