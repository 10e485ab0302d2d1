"""One process sends the journals of many folders."""

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from distvae.commands.sync import sync_folders
from distvae.files.refusal import Refusal
from distvae.track import Relay, Store, Tracker
from distvae.track.journal import HEAD, Journal
from tests.track.records import RECORD, away, back, history, runs, tracker


def test_a_relay_sends_what_others_wrote_down_and_what_those_left_that_ended(root: Path) -> None:
    """Trackers without a store are those of trials."""
    (root / "sweep").mkdir()
    Tracker(Store.find(root), "here", "sweep", root / "sweep", {}, {"kind": "sweep"}).create()
    old, new = (
        replace(tracker(root, f"sweep/trials/{name}", root / "sweep"), store=None)
        for name in ("old", "new")
    )
    old.epoch(RECORD)
    old.close("KILLED")
    assert len(runs(root)) == 1
    with Relay(Store.find(root), root / "sweep" / "trials") as relay:
        new.epoch(RECORD)
        relay.notify(new.folder)
        until = time.monotonic() + 60
        while len(runs(root)) < 2 and time.monotonic() < until:
            time.sleep(0.2)
        assert len(runs(root)) == 2
        new.epoch(replace(RECORD, epoch=2))
        new.close()
    found = {run.info.run_name: run for run in runs(root)}
    assert {name: run.info.status for name, run in found.items()} == {
        "sweep": "RUNNING",
        "old": "KILLED",
        "new": "FINISHED",
    }
    assert [step for step, _ in history(root, found["new"].info.run_id, "bound/val_bound")] == [
        1,
        2,
    ]
    assert found["old"].data.tags["mlflow.parentRunId"] == found["sweep"].info.run_id


@pytest.mark.slow
def test_a_relay_to_a_store_that_is_away_says_so_once_and_sends_all_when_it_is_back(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = replace(tracker(root, "trials/1"), store=None)
    away(root)
    with Relay(Store.find(root), root / "trials") as relay:
        for n in (1, 2):
            trial.epoch(replace(RECORD, epoch=n))
            relay.notify(trial.folder)
            time.sleep(0.7)
        back(root)
    (found,) = runs(root)
    assert [step for step, _ in history(root, found.info.run_id, "bound/val_bound")] == [1, 2]
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert "recording in MLflow at" in said[0]
    assert said[1] == "MLflow answers again."


@pytest.mark.slow
def test_a_relay_leaves_out_what_is_damaged_or_vanishes(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last, *others = (replace(tracker(root, f"trials/{n}"), store=None) for n in range(9, 0, -1))
    for trial in others:
        trial.epoch(RECORD)
    (root / "trials" / "1" / HEAD).write_text('{"experiment": "he')
    (root / "trials" / "2" / HEAD).unlink()
    with Relay(Store.find(root), root / "trials") as relay:
        relay.notify(root / "trials")
        for n in range(8, 2, -1):
            time.sleep(0.1)
            (root / "trials" / str(n)).rename(root / f"moved {n}")
            relay.notify(root / "trials" / str(n))
        time.sleep(1)
        last.epoch(RECORD)
        last.close()
    found = {run.info.run_name: run for run in runs(root)}
    assert found["9"].info.status == "FINISHED"
    said = sorted(capsys.readouterr().err.splitlines())
    assert len(said) == 2, said
    assert f"{root / 'trials' / '1' / HEAD}: altered or damaged" in said[0]
    assert f"{root / 'trials' / '2' / HEAD}: missing" in said[1]


def test_what_is_damaged_is_named_and_the_rest_is_sent(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("1", "2"):
        replace(tracker(root, name), store=None).epoch(RECORD)
    (root / "1" / HEAD).write_text("[1")
    assert sync_folders(root, []) == 1
    said = capsys.readouterr()
    assert f"{root / '1' / HEAD}: altered or damaged" in said.err
    assert said.out.startswith(f"{root / '2'}: sent")


def test_a_folder_to_be_sent_that_does_not_exist_is_refused(root: Path) -> None:
    with pytest.raises(Refusal, match=r"nowhere: no such folder; the folder of a run or sweep"):
        sync_folders(root, [root / "nowhere"])


def test_a_store_that_never_heard_of_a_run_gets_all_of_it(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker(root).epoch(RECORD)
    elsewhere = tmp_path / "elsewhere"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{elsewhere / 'mlflow.db'}")
    tracker(root).epoch(replace(RECORD, epoch=2))
    (found,) = runs(elsewhere)
    assert [step for step, _ in history(elsewhere, found.info.run_id, "bound/val_bound")] == [1, 2]


def test_who_waits_for_a_sweep_does_not_keep_a_trial_of_it_from_others(root: Path) -> None:
    """Locking the two in different orders would be a deadlock."""
    (root / "sweep").mkdir()
    Tracker(None, "here", "sweep", root / "sweep", {}, {"kind": "sweep"}).create()
    trial = replace(tracker(root, "sweep/1", root / "sweep"), store=None)
    trial.epoch(RECORD)
    sending = threading.Thread(target=sync_folders, args=(root, [trial.folder]), daemon=True)
    with Journal(root / "sweep").locked():
        sending.start()
        time.sleep(0.5)  # in which it asks for the sweep
        with FileLock(trial.folder / f".{HEAD}.lock", timeout=20):
            pass
    sending.join(60)
    assert not sending.is_alive()
    assert len(runs(root)) == 2
