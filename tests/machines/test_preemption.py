"""Before a machine is taken away, the training state is saved. Training then continues without the
machine.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from distvae.train.run_folder import (
    EVENTS,
    Event,
    describe_event,
    read_epochs,
    read_records,
    starts_of,
)
from tests.processes import started
from tests.ray_cluster import cluster
from tests.train.commands import PLAIN, command
from tests.train.kills import ELASTIC

DRAIN = [
    sys.executable,
    "-m",
    "ray.scripts.scripts",
    "drain-node",
    "--reason",
    "DRAIN_NODE_REASON_PREEMPTION",
]


def test_machines_that_leave_are_no_beginning() -> None:
    start = Event(
        epoch=0, batch=0, workers=2, leaving=0, time=0, rows=[], bytes=[], machines=[], copies=[]
    )
    events: list[Event] = [start, {**start, "leaving": 1}, {**start, "workers": 1, "epoch": 3}]
    assert starts_of(events) == [events[0], events[2]]
    assert [describe_event(event, k) for event, k in zip(events, (1, 1, 2), strict=True)] == [
        "2 workers, from epoch 0",
        "1 machine will be taken away; what was trained is saved",
        "workers lost or changed; training continues with 1 worker from epoch 3",
    ]


@pytest.mark.slow
def test_training_is_saved_before_a_machine_is_taken_away_and_goes_on_without_it(
    tmp_path: Path,
) -> None:
    out, epochs = tmp_path / "run", 16
    recipe = ["bars", "data.rows=4000", f"train.epochs={epochs}"]
    with cluster(1, 1) as machines:
        environment = (
            os.environ
            | ELASTIC
            | {"OMP_NUM_THREADS": "1", "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "0.5"}
        )
        words = command(PLAIN, recipe, out, "--workers", "1:2", "--address", machines.address)
        with started(
            words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as driver:
            wait_for(lambda: len(read_epochs(out)) >= 2, driver)
            node = machines.worker_nodes.copy().pop()
            drained = [*DRAIN, "--address", machines.address, "--node-id", node.node_id]
            drained += ["--reason-message", "sold", "--deadline-remaining-seconds", "10"]
            subprocess.run(drained, check=True, timeout=100)
            wait_for(lambda: any(event["leaving"] for event in read_records(out, EVENTS)), driver)
            node.kill_raylet()
            output, _ = driver.communicate(timeout=300)
    assert driver.returncode == 0, output.decode()
    events = read_records(out, EVENTS)
    assert [(event["workers"], event["leaving"]) for event in events] == [(2, 0), (2, 1), (1, 0)]
    assert events[2]["epoch"] >= events[1]["epoch"] > 0
    assert [epoch["epoch"] for epoch in read_epochs(out)] == list(range(1, epochs + 1))


def wait_for(condition: Callable[[], bool], driver: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert driver.poll() is None, driver.communicate()[0].decode()
        if time.monotonic() > deadline:
            driver.kill()
            raise AssertionError("waited in vain")
        time.sleep(0.05)
