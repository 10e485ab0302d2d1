"""A training under Ray leaves no process or file behind, however it ends, and keeps its results."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from distvae.train.run_folder import read_epochs

MARK = "DISTVAE_TEST_MARK"
PATIENCE = 60.0  # seconds in which Ray's processes have to end


def marked(mark: str) -> list[str]:
    """Return the processes that inherited a mark in their environment."""
    found = []
    for file in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in file.read_bytes():
                found.append((file.parent / "cmdline").read_text().replace("\0", " "))
        except OSError:  # it has just ended, or is not ours
            continue
    return found


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Return a folder for temporary files, with a short name because Ray's sockets are below it."""
    with TemporaryDirectory(prefix="d", dir="/tmp") as folder:
        yield Path(folder)


def start_training(out: Path, temporary: Path, *options: str) -> "subprocess.Popen[str]":
    """Start a training of two workers by the command line."""
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        MARK: temporary.name,
        "TMPDIR": str(temporary),
    }
    recipe = [
        "train",
        "bars",
        "data.rows=400",
        "train.epochs=20",
        "--no-track",
        "--no-evaluate",
        "--workers",
        "2",
    ]
    words = [sys.executable, "-m", "distvae", *recipe, "--out", str(out), *options]
    return subprocess.Popen(
        words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def nothing_is_left(out: Path, temporary: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while (left := marked(temporary.name)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left
    # Files of Ray's sessions and of torch's compiler.
    others = (
        "ray",
        "torchinductor",
    )
    assert not [file.name for file in temporary.iterdir() if not file.name.startswith(others)]
    assert [
        file.name
        for file in out.rglob("*")
        if "partial" in file.name or file.name.startswith("ray")
    ] == []


@pytest.mark.slow
def test_a_training_that_is_asked_to_stop_keeps_what_it_did_and_leaves_nothing_behind(
    tmp_path: Path, temporary: Path
) -> None:
    if not Path("/proc").is_dir():
        pytest.skip("processes are found by /proc, which this system has not")
    out = tmp_path / "run"
    with start_training(out, temporary) as driver:
        while len(read_epochs(out)) < 2:
            assert driver.poll() is None, driver.communicate()[0]
            time.sleep(0.02)
        driver.send_signal(signal.SIGTERM)
        output, _ = driver.communicate(timeout=300)
    assert driver.returncode == 128 + signal.SIGTERM, output
    assert "--resume continues from it" in output
    assert 2 <= len(read_epochs(out)) < 20
    nothing_is_left(out, temporary)
    with start_training(out, temporary, "--resume") as driver:
        output, _ = driver.communicate(timeout=300)
    assert driver.returncode == 0, output
    assert [epoch["epoch"] for epoch in read_epochs(out)] == list(range(1, 21))
    nothing_is_left(out, temporary)


@pytest.mark.long
def test_a_training_that_is_refused_leaves_nothing_behind(tmp_path: Path, temporary: Path) -> None:
    out = tmp_path / "run"
    with start_training(out, temporary, "estep.mapped=nowhere") as driver:
        output, _ = driver.communicate(timeout=300)
    assert driver.returncode == 2, output
    assert "estep.mapped: nowhere" in output
    assert "Traceback" not in output
    nothing_is_left(out, temporary)
