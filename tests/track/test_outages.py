"""A store that fails or loses records: nothing is lost, and nothing is raised."""

import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distvae.commands.sync import sync_folders
from distvae.config import Config, flatten
from distvae.track import Store, Tracker
from distvae.track.journal import LINES, Journal
from tests.track.records import RECORD, away, back, history, runs, tracker


def test_what_a_store_did_not_take_it_gets_when_it_is_back(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tracker(root)
    away(root)
    record.epoch(RECORD)
    back(root)
    record.epoch(replace(RECORD, epoch=2))
    record.close()
    (found,) = runs(root)
    assert [step for step, _ in history(root, found.info.run_id, "bound/val_bound")] == [1, 2]
    assert capsys.readouterr().err.endswith("one: MLflow has everything now.\n")
    assert not Journal(root / "one").pending()


def test_a_process_that_ended_while_the_store_was_away_is_told_of_later(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sweep and its resumed trial end before the store is back; each gets one record."""
    (root / "sweep").mkdir()
    away(root)
    sweep = Tracker(
        Store.find(root), "here", "sweep", root / "sweep", {"trials": 1}, {"kind": "sweep"}
    )
    sweep.create()
    first = tracker(root, "sweep/trial", root / "sweep")
    for n in (1, 2, 3):
        first.epoch(replace(RECORD, epoch=n))
    again = tracker(root, "sweep/trial", root / "sweep")
    for n in (3, 4):
        again.epoch(replace(RECORD, epoch=n, val_bound=-float(n)))
    (root / "sweep" / "trial" / "picture.png").write_bytes(b"x")
    again.files([root / "sweep" / "trial" / "picture.png"], "pictures")
    again.close()
    sweep.close("FAILED")
    assert sync_folders(root, []) == 2
    back(root)
    assert sync_folders(root, []) == 0
    found = {run.info.run_name: run for run in runs(root)}
    assert {name: run.info.status for name, run in found.items()} == {
        "sweep": "FAILED",
        "trial": "FINISHED",
    }
    trial = found["trial"]
    assert trial.data.tags["mlflow.parentRunId"] == found["sweep"].info.run_id
    assert history(root, trial.info.run_id, "bound/val_bound") == [
        (1, -2.5),
        (2, -2.5),
        (3, -2.5),
        (4, -4.0),
    ]
    assert (
        root / "mlartifacts" / trial.info.run_id / "artifacts" / "pictures" / "picture.png"
    ).exists()
    assert sync_folders(root, []) == 0
    assert capsys.readouterr().out.endswith("nothing is waiting to be sent\n")
    assert len(runs(root)) == 2


@contextmanager
def refusing(root: Path, *steps: int, table: str = "metrics") -> Iterator[None]:
    """Make a store refuse the metrics of some epochs, or all rows of another table."""
    with closing(sqlite3.connect(root / "mlflow.db")) as database:
        listed = ", ".join(map(str, steps))
        when = f"when new.step in ({listed}) " if steps else ""
        refuse = f"{when}begin select raise(abort, 'no room'); end"
        database.execute(f"create trigger refuse before insert on {table} {refuse}")
        yield
        database.execute("drop trigger refuse")


def test_epochs_that_a_store_refused_are_sent_again_in_order(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tracker(root)
    record.epoch(RECORD)
    with refusing(root, 2, 3):
        record.epoch(replace(RECORD, epoch=2))
        record.close("KILLED")
    assert sync_folders(root, []) == 0
    record.epoch(replace(RECORD, epoch=3))
    record.close()
    (found,) = runs(root)
    assert [step for step, _ in history(root, found.info.run_id, "bound/val_bound")] == [1, 2, 3]
    assert found.info.status == "FINISHED"
    assert not Journal(root / "one").pending()
    assert "recording in MLflow at" in capsys.readouterr().err


def test_a_record_whose_parameters_were_refused_is_completed_and_not_begun_again(
    root: Path,
) -> None:
    record = tracker(root)
    with refusing(root, table="params"):
        record.epoch(RECORD)
    (begun,) = runs(root)
    assert not begun.data.params
    record.close()
    assert sync_folders(root, []) == 0
    (found,) = runs(root)
    assert found.info.run_id == begun.info.run_id
    assert found.data.params == {key: str(value) for key, value in flatten(Config()).items()}
    assert found.info.status == "FINISHED"


def test_epochs_that_a_store_took_and_lost_are_sent_again(root: Path) -> None:
    """This happens when a database is restored from a copy."""
    record = tracker(root)
    for n in (1, 2, 3, 4):
        record.epoch(replace(RECORD, epoch=n))
    with closing(sqlite3.connect(root / "mlflow.db")) as database:
        database.execute("delete from metrics where step in (2, 4)")
        database.commit()
    again = tracker(root)
    again.epoch(replace(RECORD, epoch=5))
    again.close()
    (found,) = runs(root)
    assert [step for step, _ in history(root, found.info.run_id, "bound/val_bound")] == [
        1,
        2,
        3,
        4,
        5,
    ]
    assert found.info.status == "FINISHED"


def test_a_file_that_is_gone_holds_up_nothing(root: Path) -> None:
    record = tracker(root)
    record.files([root / "one" / "gone.png"], "pictures")
    record.close()
    assert [run.info.status for run in runs(root)] == ["FINISHED"]


def test_a_folder_that_takes_no_notes_is_named_once_and_stops_nothing(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tracker(root)
    (root / "one" / LINES).mkdir()
    record.epoch(RECORD)
    record.epoch(replace(RECORD, epoch=2))
    assert not record.complete
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"writing to {root / 'one'} fails" in said
    (root / "one" / LINES).rmdir()
    record.close()
    assert record.complete


def test_an_entry_that_a_full_disk_cut_short_spoils_no_other(root: Path) -> None:
    away(root)
    tracker(root).epoch(RECORD)
    with (root / "one" / LINES).open("a") as file:
        file.write('123\n{"is": "metr')
    tracker(root).epoch(replace(RECORD, epoch=2))
    back(root)
    assert sync_folders(root, [root / "one"]) == 0
    (found,) = runs(root)
    assert [step for step, _ in history(root, found.info.run_id, "bound/val_bound")] == [1, 2]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(["tell", "send", "fail"]), max_size=12), st.data())
def test_whatever_fails_in_between_entries_are_told_once_and_in_order(
    steps: list[str], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        journal, sent_entries, count = Journal(Path(folder)), list[int](), 0
        for step in steps:
            if step == "tell":
                journal.append({"is": "metrics", "step": count})
                count += 1
                continue
            waiting = [entry["step"] for entry in journal.pending()]
            sent = len(waiting) if step == "send" else data.draw(st.integers(0, len(waiting)))
            sent_entries += waiting[:sent]
            journal.mark_sent(sent)
        assert sent_entries + [entry["step"] for entry in journal.pending()] == list(range(count))


def test_lines_that_are_added_while_others_are_sent_are_told_once_and_in_order(
    tmp_path: Path,
) -> None:
    journal, sent_entries, count = Journal(tmp_path), list[int](), 300
    journal.write_head({})

    def write() -> None:
        for n in range(count):
            journal.append({"is": "metrics", "step": n})

    writing = threading.Thread(target=write)
    writing.start()
    while len(sent_entries) < count:
        waiting = [entry["step"] for entry in journal.pending()]
        sent_entries += waiting
        journal.mark_sent(len(waiting))
        assert writing.is_alive() or journal.pending() or len(sent_entries) == count
    assert sent_entries == list(range(count))


APPENDER = """
import sys
from pathlib import Path
from distvae.track.journal import Journal
for n in range(200):
    Journal(Path(sys.argv[1])).append({"is": "metrics", "name": sys.argv[2], "step": n})
"""


def test_of_two_processes_that_tell_of_one_folder_none_loses_an_entry(tmp_path: Path) -> None:
    """A third process marks entries as sent meanwhile."""
    names, journal, sent_entries = ("a", "b"), Journal(tmp_path), list[tuple[str, int]]()
    started = [
        subprocess.Popen([sys.executable, "-c", APPENDER, str(tmp_path), name]) for name in names
    ]
    while any(process.poll() is None for process in started) or journal.pending():
        waiting = journal.pending()
        sent_entries += [(entry["name"], entry["step"]) for entry in waiting]
        journal.mark_sent(len(waiting))
    assert [process.returncode for process in started] == [0, 0]
    assert {name: [n for other, n in sent_entries if other == name] for name in names} == {
        key: [*range(200)] for key in names
    }
