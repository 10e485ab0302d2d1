"""A lost machine is reported once, with the machines that the training waits for."""

import os
import signal
import time
from collections.abc import Sequence

import pytest

from distvae.machines.cluster import Machine, WorkerGroup, live_machines
from distvae.machines.driver import Machines, NodeWatch
from distvae.machines.session import ray_session
from distvae.train.run_folder import Event
from tests.ray_cluster import cluster

A, B, C = (Machine(f"10.0.0.{k}", 7000, cpus=2.0) for k in (1, 2, 3))
LACKS = "--workers: 4 workers need 4 CPUs, and Ray has 2"


def started(machines: Sequence[str], copies: Sequence[str]) -> Event:
    """Training with workers and copies on machines of these ids."""
    workers = [f"10.0.0.0-{name}" for name in machines]
    return Event(
        epoch=0,
        batch=0,
        workers=len(workers),
        leaving=0,
        time=0,
        rows=[],
        bytes=[],
        machines=workers,
        copies=[f"10.0.0.0-{name}" for name in copies],
    )


def watched(machines: Machines, lacks: str = "") -> NodeWatch:
    """Watch a training with workers on the machines aa and bb, and copies on bb and cc."""
    events = [started(["aa", "bb"], ["bb", "cc"])]
    group = WorkerGroup.parse("2", 0.0)
    return NodeWatch(group, 2, lambda: machines, lambda: events, lambda: lacks)


def test_machines_that_are_lost_and_have_joined_are_told_once() -> None:
    machines = {"aa": A, "bb": B}
    watch = watched(machines)
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


def test_missing_resources_are_told_once() -> None:
    watch = watched({"aa": A}, LACKS)
    assert watch.describe_changes() == [f"{LACKS}; training continues when they fit"]
    assert watch.describe_changes() == []


def test_a_fixed_number_of_workers_goes_on_where_another_machine_has_room() -> None:
    watch = watched({})
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
