"""A process of its own sends the record of a training, however that training ends."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from distvae.track import Store
from distvae.track.journal import Journal
from distvae.track.process import FAILED, SENT, SendingProcess, sending_process
from tests.laws.test_imports import in_a_new_process
from tests.track.records import RECORD, away, history, runs, tracker

PATIENCE = 60.0


def started(root: Path) -> SendingProcess:
    process = SendingProcess.start(Store.find(root), root / "one")
    assert process is not None
    return process


@pytest.mark.slow
def test_it_sends_everything_before_the_record_is_closed(root: Path) -> None:
    record = tracker(root)
    record.process = started(root)
    for n in range(1, 6):
        record.epoch(replace(RECORD, epoch=n))
    record.close()
    assert record.complete
    (found,) = runs(root)
    assert found.info.status == "FINISHED"
    assert [step for step, _ in history(root, found.info.run_id, "bound/val_bound")] == [
        1,
        2,
        3,
        4,
        5,
    ]
    assert not Journal(root / "one").pending()


@pytest.mark.slow
def test_if_it_dies_the_training_sends_what_is_left(root: Path) -> None:
    record = tracker(root)
    record.process = process = started(root)
    record.epoch(RECORD)
    process.process.kill()
    process.process.wait()
    record.epoch(replace(RECORD, epoch=2))
    record.close()
    (found,) = runs(root)
    assert found.info.status == "FINISHED"
    assert [step for step, _ in history(root, found.info.run_id, "bound/val_bound")] == [1, 2]


@pytest.mark.slow
def test_a_store_that_fails_is_reported_and_the_journal_kept(
    root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    away(root)
    record = tracker(root)
    record.process = started(root)
    record.epoch(RECORD)
    record.close()
    assert not record.complete
    assert capfd.readouterr().err.count("one: recording in MLflow at") == 1
    assert [entry["is"] for entry in Journal(root / "one").pending()] == ["metrics", "end"]


KILLED = """
import os, signal, sys
from dataclasses import replace
from pathlib import Path
from tests.track.records import RECORD, tracker
from tests.track.test_process import started

root = Path(sys.argv[1])
record = tracker(root)
record.process = started(root)
for n in (1, 2, 3):
    record.epoch(replace(RECORD, epoch=n))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_of_a_killed_training_every_epoch_is_sent(root: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(root)], check=False)
    assert killed.returncode == -signal.SIGKILL
    journal, end = Journal(root / "one"), time.monotonic() + PATIENCE
    while journal.pending() and time.monotonic() < end:
        time.sleep(0.1)
    (found,) = runs(root)
    assert [step for step, _ in history(root, found.info.run_id, "bound/val_bound")] == [1, 2, 3]


def test_it_ends_at_once_if_there_is_nothing_to_record(tmp_path: Path) -> None:
    """A training that is refused leaves neither a process nor a store."""
    (tmp_path / "one").mkdir()
    with sending_process(tmp_path, tmp_path / "one", wanted=True) as process:
        assert process is not None
    assert process.process.returncode == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_notices_that_it_has_no_time_to_read_hold_up_nothing(tmp_path: Path) -> None:
    with sending_process(tmp_path, tmp_path / "one", wanted=True) as process:
        assert process is not None
        os.kill(process.process.pid, signal.SIGSTOP)
        assert all(process.notify() for _ in range(100_000))
        process.is_notified = False


def test_exit_codes_differ_from_those_of_a_process_that_fails() -> None:
    assert {SENT, FAILED}.isdisjoint({1, 2, -signal.SIGKILL, -signal.SIGTERM})


@pytest.mark.slow
def test_it_imports_neither_torch_nor_matplotlib() -> None:
    """They would double what it costs, beside a training on two cores."""
    loaded = in_a_new_process(
        """
import os, sys
from distvae.track.sending import main
os.environ["MLFLOW_TRACKING_URI"] = "sqlite:///nowhere/mlflow.db"
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
assert main("nowhere") == 0
print("mlflow" in sys.modules, {"torch", "matplotlib"} & set(sys.modules))
"""
    )
    assert loaded == "True set()\n"
