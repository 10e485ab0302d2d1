"""The driver reports epochs, events, lost machines and missing resources, each of them once."""

import json
import os
import signal
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from distvae.files.storage import Folder
from distvae.machines import driver
from distvae.machines.cluster import Machine, WorkerGroup, live_machines
from distvae.machines.driver import Machines, NodeWatch, RunFolderNews
from distvae.machines.session import ray_session
from distvae.machines.worker import STAGGER, Wait, say
from distvae.train.loop import Epoch
from distvae.train.run_folder import EVENTS, Event, drop_later_epochs
from tests.ray_cluster import cluster

START = Event(epoch=0, batch=0, workers=2, time=0, rows=[], bytes=[], machines=[], copies=[])


def write_epoch(folder: Folder, epoch: int) -> None:
    record = dict.fromkeys(("train_objective", "val_objective", "val_bound", "seconds"), 0.5)
    folder.append("epochs.jsonl", json.dumps({"epoch": epoch, **record}).encode() + b"\n")


def record(folder: Folder, event: Event) -> None:
    folder.append(EVENTS, json.dumps(event).encode() + b"\n")


def told(reader: RunFolderNews) -> list[int | str]:
    return [each.epoch if isinstance(each, Epoch) else each for each in reader.read()]


def test_each_epoch_is_told_once_also_when_some_are_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder(tmp_path)
    write_epoch(folder, 1)  # of a training that is resumed
    reader = RunFolderNews(folder, 9, "owner")
    assert told(reader) == []
    record(folder, START)
    write_epoch(folder, 2)
    write_epoch(folder, 3)
    assert told(reader) == ["2 workers, from epoch 0", 2, 3]
    drop_later_epochs(folder, 1)
    record(folder, START | {"epoch": 1, "workers": 1})
    again = "workers lost or changed; training continues with 1 worker from epoch 1"
    assert told(reader) == [again]
    for epoch in (2, 3, 4):
        write_epoch(folder, epoch)
    assert told(reader) == [4]
    folder.append("epochs.jsonl", b'{"epoch": 5')
    assert told(reader) == []
    for name in ("read_epochs", "read_events"):
        monkeypatch.setattr(driver, name, None)
    assert told(reader) == [], "files that have not changed are not read"


def test_who_waits_for_whom_is_told_once_when_all_that_wait_have_spoken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "TELL_SECONDS", -STAGGER * 3)
    folder = Folder(tmp_path)
    reader = RunFolderNews(folder, 9, "owner")
    machines = ["10.0.0.1-aa", "10.0.0.2-bb", "10.0.0.3-cc"]
    record(folder, START | {"workers": 3, "machines": machines})
    assert told(reader) == ["3 workers on 3 machines, from epoch 0"]
    for rank in (0, 2):
        wait = Wait(rank, 3, 60.0 + rank, 7, "a sum")
        say(folder, "owner", json.dumps(asdict(wait)))
    say(folder, "owner", "a line of another kind")
    assert told(reader) == [
        "a line of another kind",
        "2 workers have waited 62 s for worker 1 (10.0.0.2-bb) in a sum",
    ]
    assert told(reader) == []
    for rank in range(3):
        say(folder, "owner", json.dumps(asdict(Wait(rank, 3, 60.0, 9, "a barrier"))))
    assert told(reader) == ["3 workers have waited 60 s for each other in a barrier"]


A, B, C = (Machine(f"10.0.0.{k}", cpus=2.0) for k in (1, 2, 3))
LACKS = "--workers: 4 workers need 4 CPUs, and Ray has 2"


def watched(machines: Machines, lacks: str = "") -> NodeWatch:
    """Watch a training with workers on the machines aa and bb, and copies on bb and cc."""
    places = {"machines": ["10-aa", "10-bb"], "copies": ["10-bb", "10-cc"]}
    group = WorkerGroup.parse("2", 0.0)
    return NodeWatch(group, 2, lambda: machines, lambda: [{**START, **places}], lambda: lacks)  # type: ignore[typeddict-item]


def test_changes_of_machines_and_missing_resources_are_told_once() -> None:
    machines = {"aa": A, "bb": B}
    watch = watched(machines, LACKS)
    assert watch.describe_changes() == [f"{LACKS}; training continues when they fit"]
    assert watch.describe_changes() == []
    del machines["bb"]
    told = [
        "machine 10.0.0.2 is lost; training waits for machines with 2 more CPUs, which 1 worker"
        " needs"
    ]
    assert watch.describe_changes() == told
    assert watch.describe_changes() == []
    machines["cc"] = C
    assert watch.describe_changes() == ["machine 10.0.0.3 has joined"]
    assert watch.after_loss("bb", {"aa": A, "cc": C}) == "; training goes on with 2 workers"
    assert watch.after_loss("cc", {"aa": A}).endswith("snapshots on their own machines")
    assert watch.after_loss("dd", {"aa": A}) == ""


@pytest.mark.slow
def test_a_killed_machine_is_lost() -> None:
    with cluster(1) as machines, ray_session(machines.address, 0) as ray:
        raylet = machines.worker_nodes.pop().all_processes["raylet"][0].process.pid
        with NodeWatch(WorkerGroup(1, 1), 1, lambda: live_machines(ray), list, str) as watch:
            os.kill(raylet, signal.SIGKILL)
            deadline = time.monotonic() + 60
            while not (told := list(watch.take_messages())):
                assert time.monotonic() < deadline
                time.sleep(0.05)
    assert "is lost" in told[0]
