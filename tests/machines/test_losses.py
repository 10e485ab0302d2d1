"""Training goes on after workers, shards and machines are lost, or says that it cannot."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import STDOUT

import pytest

from distvae.machines.driver import RESTARTS
from distvae.machines.session import STALL_VARIABLE
from distvae.machines.worker import COPY_VARIABLE
from distvae.train.run_folder import (
    EVENTS,
    Event,
    describe_event,
    read_epochs,
    read_events,
    read_records,
    starts_of,
)
from tests.processes import started
from tests.ray_cluster import cluster
from tests.train.commands import PLAIN, TORCHRUN, bits, command, run
from tests.train.kills import EACH_EPOCH, ELASTIC, PACE, RECIPE
from tests.train.patched import patch_trainer
from tests.train.processes import WORKER, below, titled


@pytest.mark.long
def test_a_training_goes_on_after_an_accelerator_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = ["bars", "data.rows=200", "train.epochs=4"]
    run(TORCHRUN, recipe, tmp_path / "undisturbed")
    fail = "import torch; raise torch.AcceleratorError('CUDA error: uncorrectable ECC error')"
    patch_trainer(monkeypatch, tmp_path / "patch", 1, 2, 0, fail)
    run(PLAIN, recipe, tmp_path / "run", "--workers", "2")
    assert (tmp_path / "patch" / "met").exists()
    assert len(starts_of(read_events(tmp_path / "run"))) == 2
    assert bits(tmp_path / "run") == bits(tmp_path / "undisturbed")


@pytest.mark.long
def test_a_training_whose_workers_are_killed_at_each_start_says_so_and_ends(tmp_path: Path) -> None:
    words = command(PLAIN, ["bars", "train.epochs=3"], tmp_path / "run", "--workers", "1")
    killed: set[int] = set()
    deadline = time.monotonic() + 300
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as training:
        while training.poll() is None and time.monotonic() < deadline:
            for worker in set(titled(WORKER, below(training.pid))) - killed:
                os.kill(worker, signal.SIGKILL)
                killed.add(worker)
            time.sleep(0.05)
        training.terminate()
        _, said = training.communicate()
    assert training.returncode == 1
    assert "the workers were lost again and again; if the system killed them" in said
    assert "Traceback" not in said
    assert len(killed) > RESTARTS


STOP_ITSELF = "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)"
STOP_SHARDS = """
                    import os, signal
                    for process in pathlib.Path("/proc").glob("[0-9]*"):
                        try:
                            title = (process / "cmdline").read_bytes()
                            parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
                        except OSError:
                            continue
                        if title.startswith(b"ray::ShardActor") and parent == f"{os.getppid()}":
                            os.kill(int(process.name), signal.SIGSTOP)
"""
"""Stop the shards of the Ray that started this worker."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a training in which nothing was stopped."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    run(TORCHRUN, RECIPE, out)
    return out


def said(out: Path, stall_seconds: float, **settings: str) -> str:
    """Train with two workers under Ray, and return the output."""
    words = command(PLAIN, RECIPE, out, "--workers", "2")
    words.remove("--quiet")
    variables = {STALL_VARIABLE: f"{stall_seconds}", "OMP_NUM_THREADS": "1"} | settings
    done = subprocess.run(
        words, env=os.environ | variables, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.long
def test_workers_of_which_one_is_stopped_are_restarted(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    patch_trainer(monkeypatch, tmp_path / "patch", 1, 3, 0, STOP_ITSELF)
    text = said(out, 10)
    assert "worker 0 of 2 has waited " in text
    assert "workers lost or changed; training continues with 2 workers from epoch " in text
    assert len(starts_of(read_events(out))) == 2
    assert bits(out) == bits(undisturbed)
    assert not list(out.glob("messages-*"))


@pytest.mark.long
def test_shards_that_are_stopped_are_replaced(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    patch_trainer(monkeypatch, tmp_path / "patch", 1, 30, 0, STOP_SHARDS)  # the shards have started
    slowly = EACH_EPOCH | {PACE: "0.5"}
    assert "a shard has not answered for 10 s; it is replaced" in said(out, 300, **slowly)
    assert len(starts_of(read_events(out))) == 1
    assert bits(out) == bits(undisturbed)


LONG_EPOCHS = [
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
        words = command(PLAIN, LONG_EPOCHS, out, "--workers", "1:2", "--address", machines.address)
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


@pytest.mark.long
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
