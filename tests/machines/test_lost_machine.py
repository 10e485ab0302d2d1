"""After the loss of a machine, training goes on from snapshots, not from the run folder."""

import os
import time
from pathlib import Path
from subprocess import STDOUT

import pytest

from distvae.machines.worker import COPY_VARIABLE
from distvae.train.run_folder import Event, read_events, starts_of
from tests.processes import started
from tests.ray_cluster import cluster
from tests.train.commands import PLAIN, command
from tests.train.kills import ELASTIC

RECIPE = [
    *("bars", "data.rows=300000", "train.epochs=2", "train.batch=32"),
    *("estep.block=512", "estep.sweeps=20"),  # a long epoch
]
PATIENCE = 300.0


def latest(out: Path) -> Event | None:
    """Return the last event of a run, if it has begun."""
    return events[-1] if (out / "events.jsonl").exists() and (events := read_events(out)) else None


@pytest.mark.long
def test_the_snapshots_on_the_other_machine_survive_the_loss_of_a_machine(tmp_path: Path) -> None:
    out, log = tmp_path / "run", tmp_path / "log"
    with cluster(1, 1) as machines, log.open("wb") as output:
        words = command(PLAIN, RECIPE, out, "--workers", "1:2", "--address", machines.address)
        environment = os.environ | ELASTIC | {COPY_VARIABLE: "1"}
        with started(words, stdout=output, stderr=STDOUT, env=environment) as driver:

            def wait_for(workers: int) -> Event:
                deadline = time.monotonic() + PATIENCE
                while True:
                    assert driver.poll() is None, log.read_text()
                    assert time.monotonic() < deadline, log.read_text()
                    if (event := latest(out)) and event["workers"] == workers:
                        return event
                    time.sleep(0.2)

            before = wait_for(2)
            assert {*before["copies"]} == {*before["machines"]}
            assert before["copies"] != before["machines"]
            time.sleep(25)  # the shards start, and take a snapshot
            assert not (out / "last.json").exists(), "nothing is saved yet"
            machines.worker_nodes.copy().pop().kill_raylet()
            after = wait_for(1)
            driver.kill()
    assert (after["epoch"], after["batch"]) > (0, 0)
    assert len(starts_of(read_events(out))) == 2
