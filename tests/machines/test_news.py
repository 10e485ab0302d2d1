"""The driver reports each epoch and event once, and does not read unchanged files again."""

import json
from pathlib import Path

import pytest

from distvae.files.storage import Folder
from distvae.machines import driver
from distvae.machines.driver import RunFolderNews
from distvae.train.loop import Epoch
from distvae.train.run_folder import Event, drop_later_epochs, record_event

START = Event(
    epoch=0, batch=0, workers=2, leaving=0, time=0, rows=[], bytes=[], machines=[], copies=[]
)


def write_epoch(folder: Folder, epoch: int) -> None:
    record = dict.fromkeys(("train_objective", "val_objective", "val_bound", "seconds"), 0.5)
    folder.append("epochs.jsonl", json.dumps({"epoch": epoch, **record}).encode() + b"\n")


def told(reader: RunFolderNews) -> list[int | str]:
    return [each.epoch if isinstance(each, Epoch) else each for each in reader.read()]


def test_each_epoch_is_told_once_also_when_some_are_trained_again(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    write_epoch(folder, 1)  # of a training that is resumed
    reader = RunFolderNews(folder, 9)
    assert told(reader) == []
    record_event(folder, START)
    write_epoch(folder, 2)
    write_epoch(folder, 3)
    assert told(reader) == ["2 workers, from epoch 0", 2, 3]
    drop_later_epochs(folder, 1)
    record_event(folder, START | {"epoch": 1, "workers": 1})
    again = "workers lost or changed; training continues with 1 worker from epoch 1"
    assert told(reader) == [again]
    for epoch in (2, 3, 4):
        write_epoch(folder, epoch)
    assert told(reader) == [4]
    folder.append("epochs.jsonl", b'{"epoch": 5')
    assert told(reader) == []


def test_files_that_have_not_changed_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder(tmp_path)
    record_event(folder, START)
    write_epoch(folder, 1)
    reader = RunFolderNews(folder, 9)
    told(reader)
    for name in ("read_epochs", "read_events"):
        monkeypatch.setattr(driver, name, None)
    assert told(reader) == []
