"""A store that is away, refuses, loses or never answers: training goes on, and nothing is lost."""

import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distvae.cli.records import send_folders
from distvae.track import Sending, Store
from distvae.track import tracker as tracking
from distvae.track.store import SENT, read_sent
from distvae.track.tracker import RECORD, Sender, read_record, recorded_folders
from tests.track.records import history, runs, steps, sweep_tracker, tracker, train


def test_a_run_and_its_sweep_that_end_while_the_store_is_away_are_sent_later_and_once(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(sqlite3.connect(root / "mlflow.db")) as database:
        database.execute("pragma wal_checkpoint(truncate)")
    (root / "mlflow.db").rename(root / "away.db")
    (root / "mlflow.db").mkdir()
    sweep = sweep_tracker(root, trials=1)
    sweep.begin()
    train(tracker(root, "sweep/trial", root / "sweep"), 1, 2, 3)
    again = tracker(root, "sweep/trial", root / "sweep")
    train(again, 4, val_bound=-4.0)
    (root / "sweep" / "trial" / "picture.png").write_bytes(b"x")
    again.files([root / "sweep" / "trial" / "picture.png"], "pictures")
    again.close()
    sweep.close("FAILED")
    assert not sweep.complete
    assert send_folders(root, []) == 2
    (root / "mlflow.db").rmdir()
    (root / "away.db").rename(root / "mlflow.db")
    assert send_folders(root, []) == 0
    found = {run.info.run_name: run for run in runs(root)}
    ended = {name: run.info.status for name, run in found.items()}
    assert ended == {"sweep": "FAILED", "trial": "FINISHED"}
    trial = found["trial"]
    assert trial.data.tags["mlflow.parentRunId"] == found["sweep"].info.run_id
    bounds = [(1, -2.5), (2, -2.5), (3, -2.5), (4, -4.0)]
    assert history(root, trial.info.run_id, "bound/val_bound") == bounds
    kept = root / "mlartifacts" / trial.info.run_id / "artifacts" / "pictures" / "picture.png"
    assert kept.exists()
    before = (root / "sweep" / SENT).read_bytes()
    capsys.readouterr()
    assert send_folders(root, []) == 0
    assert capsys.readouterr().out == "MLflow lacks nothing\n"
    assert (root / "sweep" / SENT).read_bytes() == before
    assert len(runs(root)) == 2


@contextmanager
def refusing(root: Path, table: str = "metrics") -> Iterator[None]:
    """Make a store refuse all rows of a table."""
    with closing(sqlite3.connect(root / "mlflow.db")) as database:
        refuse = "begin select raise(abort, 'no room'); end"
        database.execute(f"create trigger refuse before insert on {table} {refuse}")
        yield
        database.execute("drop trigger refuse")


def test_a_store_that_comes_back_during_a_training_gets_everything_and_so_does_another_store(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    record = tracker(root)
    train(record, 1)
    record.wait()
    with refusing(root):
        train(record, 2)
        record.wait()
    lacks = not record.complete
    assert lacks
    train(record, 3)
    record.close()
    assert record.complete
    assert [steps(root, run) for run in runs(root)] == [[1, 2, 3]]
    assert capsys.readouterr().err.count("one: recording in MLflow at") == 1
    (elsewhere := root / "elsewhere").mkdir()
    shutil.copy(root / "mlflow.db", elsewhere)
    with closing(sqlite3.connect(elsewhere / "mlflow.db")) as database, database:
        database.execute("delete from runs")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{elsewhere / 'mlflow.db'}")
    again = tracker(root)
    train(again, 4)
    again.close()
    assert [steps(elsewhere, run) for run in runs(elsewhere)] == [[1, 2, 3, 4]]


def test_a_server_that_never_answers_holds_no_training_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The end waits for an answer as long as the limit says, which is shorter here."""
    monkeypatch.setattr(tracking, "PATIENCE", 0.2)
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        record = tracker(tmp_path)
        train(record, *range(1, 101))
        record.close()
        assert not record.complete
        alive = threading.active_count()
        record.figures({"hoyer": 0.5})
        record.wait()
        assert threading.active_count() == alive, "the first thread still waits for an answer"
        said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "no answer" in said


@pytest.mark.slow
@settings(max_examples=8)
@given(
    st.lists(st.sampled_from(["train", "send", "refuse", "restart", "lose", "params"]), max_size=8)
)
def test_whatever_fails_in_between_mlflow_has_each_epoch_once_in_the_end(
    empty_store: Path, actions: list[str]
) -> None:
    """A store loses epochs when it is restored from a copy."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        root, count = Path(folder), 1
        shutil.copy(empty_store, root / "mlflow.db")
        record = replace(tracker(root), sending=None)
        train(record, 1)
        sender = Sender(Store.find(root), record.folder)
        for action in actions:
            if action == "train":
                count += 1
                train(record, count)
            elif action == "restart":
                sender = Sender(Store.find(root), record.folder)
            elif action == "lose":
                with closing(sqlite3.connect(root / "mlflow.db")) as database, database:
                    database.execute(f"delete from metrics where step in (1, {count})")
            elif action == "send":
                list(sender.send())
            else:
                table = "metrics" if action == "refuse" else "params"
                with refusing(root, table), suppress(Exception):
                    list(sender.send())
        record.close()
        assert send_folders(root, []) == 0
        (found,) = runs(root)
        assert steps(root, found) == [*range(1, count + 1)]
        assert found.info.status == "FINISHED"
        assert found.data.params


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.track.records import tracker, train
record = tracker(Path(sys.argv[1]))
train(record, 1, 2)
record.wait()
train(record, 3)
os.kill(os.getpid(), signal.SIGKILL)
"""
WRITER = """
import sys
from pathlib import Path
from tests.track.records import tracker, train
record = tracker(Path(sys.argv[1]), sys.argv[2])
for n in range(1, 31):
    train(record, n, val_bound=-n / int(sys.argv[2]))
record.close()
"""
SENDER = """
import sys
from pathlib import Path
from distvae.cli.records import send_folders
sys.exit(send_folders(Path(sys.argv[1]), []))
"""


@pytest.mark.slow
def test_the_record_of_a_killed_training_is_completed_when_it_is_resumed(root: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(root)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [steps(root, run) for run in runs(root)] == [[1, 2]]
    record = tracker(root)
    train(record, 4)
    record.close()
    (found,) = runs(root)
    assert steps(root, found) == [1, 2, 3, 4]
    assert found.info.status == "FINISHED"


@pytest.mark.slow
def test_first_users_side_by_side_lose_no_metric(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Start two writers at once on a store without tables, and one that sends the same runs."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    names = ["1", "2"]
    programs = [*([WRITER, str(tmp_path), name] for name in names), [SENDER, str(tmp_path)]]
    running = [
        subprocess.Popen([sys.executable, "-c", *words], stderr=subprocess.PIPE, text=True)
        for words in programs
    ]
    assert [process.communicate(timeout=500)[1] for process in running] == [""] * len(programs)
    assert [process.returncode for process in running] == [0] * len(programs)
    found = runs(tmp_path)
    assert sorted(run.info.run_name for run in found) == names
    for run in found:
        expected = [(n, -n / int(run.info.run_name)) for n in range(1, 31)]
        assert history(tmp_path, run.info.run_id, "bound/val_bound") == expected


def test_a_sweep_sends_what_its_trials_wrote_also_of_a_process_that_was_killed(root: Path) -> None:
    """Trials send nothing themselves; the sweep closes the record of the one that died."""
    sweep = sweep_tracker(root)
    sweep.begin()
    assert sweep.sending
    ended, died, later = (
        replace(tracker(root, f"sweep/trials/{name}", root / "sweep"), sending=None)
        for name in ("ended", "died", "died")
    )
    train(ended, 1, 2)
    ended.close()
    train(died, 1)
    later.close("KILLED")
    for folder in recorded_folders(root / "sweep"):
        sweep.sending.notify(folder)
    sweep.close()
    found = {run.info.run_name: (run.info.status, steps(root, run)) for run in runs(root)}
    assert found == {
        "sweep": ("FINISHED", []),
        "ended": ("FINISHED", [1, 2]),
        "died": ("KILLED", [1]),
    }


def test_what_is_damaged_is_named_the_rest_is_sent_and_a_deleted_folder_is_no_failure(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("1", "2", "3"):
        train(replace(tracker(root, name), sending=None), 1)
    for name, content in {"1": '{"experiment": "he', "3": "{}"}.items():
        (root / name / RECORD).write_text(content)
    assert send_folders(root, []) == 2
    said = capsys.readouterr()
    assert said.out.startswith(f"{root / '2'}: sent")
    assert all(f"{root / name / RECORD}: " in said.err for name in "13")
    together = Sending(Store.find(root), root)
    for name in ("1", "2"):
        together.notify(root / name)
    together.finish()
    assert capsys.readouterr().err.count("\n") == 1
    assert not together.complete
    record = tracker(root)
    train(record, 1)
    shutil.rmtree(root / "one")
    record.close()
    assert capsys.readouterr().err == ""
    assert not (root / "one").exists()


def test_a_folder_that_takes_no_record_is_named_once_and_stops_nothing(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tracker(root)
    (root / "one" / RECORD).mkdir()
    train(record, 1, 2)
    assert not record.complete
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"writing the record in {root / 'one'} fails" in said
    (root / "one" / RECORD).rmdir()
    record.close()
    assert read_record(root / "one")["status"] == "FINISHED"
    assert read_sent(root / "one")["id"]
