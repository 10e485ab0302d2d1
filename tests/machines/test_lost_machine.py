"""After the loss of a machine, training goes on from the last block, not from the last commit."""

import os
import time
from pathlib import Path
from subprocess import STDOUT

import pytest

from distvae.train.documents import Event
from distvae.train.events import read_events, starts_of
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
def test_the_other_copy_of_a_worker_survives_the_loss_of_a_machine(tmp_path: Path) -> None:
    out, log = tmp_path / "run", tmp_path / "log"
    with cluster(1, 1) as machines, log.open("wb") as output:
        words = command(PLAIN, RECIPE, out, "--workers", "1:2", "--address", machines.address)
        with started(words, stdout=output, stderr=STDOUT, env=os.environ | ELASTIC) as driver:

            def wait_for(workers: int, second: bool) -> Event:
                deadline = time.monotonic() + PATIENCE
                while True:
                    assert driver.poll() is None, log.read_text()
                    assert time.monotonic() < deadline, log.read_text()
                    if event := latest(out):
                        has_second = None not in event.get("second_copies", [None])
                        if (event["workers"], has_second) == (workers, second):
                            return event
                    time.sleep(0.2)

            before = wait_for(2, second=True)
            assert {*before["copies"]} == {*before["machines"]}
            assert before["second_copies"] == before["machines"]
            time.sleep(10)  # the second copies are filled at the next block
            assert not (out / "last.json").exists(), "nothing is saved yet"
            machines.worker_nodes.copy().pop().kill_raylet()
            after = wait_for(1, second=False)
            driver.kill()
    assert (0, 0) < (before["epoch"], before["batch"]) <= (after["epoch"], after["batch"])
    assert len(starts_of(read_events(out))) == 2
