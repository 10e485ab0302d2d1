"""Training goes on after workers, shards, machines and drivers are lost, to the result of an
undisturbed training, or says that it cannot.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import STDOUT, Popen
from typing import Any, NamedTuple

import pytest

from distvae.machines.driver import RESTARTS
from distvae.machines.session import STALL_VARIABLE
from distvae.machines.worker import COPY_VARIABLE, REPORT_VARIABLE
from distvae.train.run_folder import read_epochs, read_events, starts_of
from tests.processes import started
from tests.ray_cluster import cluster
from tests.slowly import long, slow
from tests.train.commands import PACE, PLAIN, TORCHRUN, bits, command, run, same
from tests.train.patched import patch_workers
from tests.train.processes import WORKER, below, remaining, titled

EPOCHS = 30
RECIPE = [
    *("bars", "data.rows=4000", f"train.epochs={EPOCHS}", "train.batch=512"),
    # With these settings other orders of addition change little.
    *("train.rate=0.002", "train.schedule=constant"),
]
EACH_EPOCH = {REPORT_VARIABLE: "0", COPY_VARIABLE: "0.5", "OMP_NUM_THREADS": "1", PACE: "0.5"}
"""A report after each epoch of half a second, and a snapshot every half a second."""
AGENTS_SECONDS = 90.0
"""Seconds in which Ray's agents end whose Ray was killed: they try for a minute to report it."""
PATIENCE = 300.0
STOPPED_SECONDS = 70.0
SELF = "os.kill(os.getpid(), signal.SIG{})"
SHARDS = """
                    def shards():
                        for process in pathlib.Path("/proc").glob("[0-9]*"):
                            try:
                                title = (process / "cmdline").read_bytes()
                                stat = (process / "stat").read_text()
                            except OSError:
                                continue
                            parent = stat.rpartition(")")[2].split()[1]
                            if title.startswith(b"ray::ShardActor") and parent == f"{os.getppid()}":
                                yield int(process.name)
                    while not [*shards()]:
                        time.sleep(0.1)
                    for shard in shards():
                        os.kill(shard, signal.SIG{})
"""
"""Stop or kill the shards of the Ray that started this worker, once they have started."""
DRIVER = """
                    raylet = pathlib.Path(f"/proc/{os.getppid()}/stat").read_text()
                    os.kill(int(raylet.rpartition(")")[2].split()[1]), signal.SIGKILL)
"""
STOPPED_DRIVER = """
                    raylet = pathlib.Path(f"/proc/{os.getppid()}/stat").read_text()
                    driver = int(raylet.rpartition(")")[2].split()[1])
                    os.kill(driver, signal.SIGSTOP)
"""
ACCELERATOR = "import torch; raise torch.AcceleratorError('CUDA error: uncorrectable ECC error')"


class Loss(NamedTuple):
    """What is lost, before which call of a method, and the starts and the words that follow."""

    what: str
    where: str
    call: int
    starts: int = 2
    said: str = ""


STEP = "distvae.train.loop:Trainer._step"
LOSSES = {
    "a worker that sends a snapshot": Loss(
        SELF.format("KILL"), "distvae.machines.shards:Shards._send", 5
    ),
    "a worker in the E-step": Loss(
        SELF.format("KILL"), "distvae.train.loop:Trainer._search_block", 60
    ),
    "a worker in the M-step": Loss(SELF.format("KILL"), STEP, 60),
    "a worker that saves": Loss(SELF.format("KILL"), "distvae.train.session:Savings.save", 3),
    "a worker that reports": Loss(
        SELF.format("KILL"), "distvae.machines.worker:RayReports._send", 7
    ),
    "a stopped worker": Loss(SELF.format("STOP"), STEP, 25, said="1 worker has waited "),
    "an accelerator": Loss(ACCELERATOR, STEP, 25),
    "the shards": Loss(SHARDS.replace("SIG{}", "SIGKILL"), STEP, 40, starts=1),
    "stopped shards": Loss(
        SHARDS.replace("SIG{}", "SIGSTOP"), STEP, 40, 1, "a shard has not answered for 10 s"
    ),
    "the driver": Loss(DRIVER, STEP, 60, starts=1),
    "a stopped driver": Loss(STOPPED_DRIVER, STEP, 25, starts=1),
}
QUICKEST = ("a worker that sends a snapshot", "the driver")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a training in which nothing was lost."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    run(TORCHRUN, RECIPE, out)
    return out


@pytest.mark.parametrize(
    "lost", [*slow(*QUICKEST), *long(*(name for name in LOSSES if name not in QUICKEST))]
)
def test_training_ends_as_if_nothing_had_been_lost(
    lost: str, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss, out = LOSSES[lost], tmp_path / "run"
    patch_workers(monkeypatch, tmp_path / "patch", loss.where, loss.call, 1, loss.what)
    words = command(PLAIN, RECIPE, out, "--workers", "2")
    words.remove("--quiet")
    stall = {STALL_VARIABLE: "10" if lost == "a stopped worker" else "300"}
    environment = os.environ | EACH_EPOCH | stall
    with started(words, stderr=subprocess.PIPE, text=True, env=environment) as driver:
        wait_for((tmp_path / "patch" / "met").exists, driver)
        family = below(driver.pid)
        if lost == "a stopped driver":
            time.sleep(STOPPED_SECONDS)
            driver.send_signal(signal.SIGCONT)
        _, said = driver.communicate(timeout=600)
    assert driver.returncode == (-signal.SIGKILL if lost == "the driver" else 0), said
    assert loss.said in said
    assert len(starts_of(read_events(out))) == loss.starts
    if lost == "the driver":
        assert remaining(family, AGENTS_SECONDS) == []
        run(PLAIN, RECIPE, out, "--workers", "2", "--resume")
    assert not list(out.glob("messages-*"))
    same(read_epochs(undisturbed), read_epochs(out), 0.0)
    assert bits(out) == bits(undisturbed)


def wait_for(condition: Callable[[], object], driver: "Popen[Any]") -> None:
    """Wait as long as a training is going on."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert driver.poll() is None or condition()
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


@pytest.mark.long
def test_an_accelerator_that_fails_again_and_again_ends_a_training_with_its_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    what = f"(HERE / 'met').unlink(); {ACCELERATOR}"
    patch_workers(monkeypatch, tmp_path / "patch", STEP, 5, 1, what)
    words = command(PLAIN, RECIPE, tmp_path / "run", "--workers", "2")
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 1, done.stderr
    last = done.stderr.splitlines()[-1]
    assert "worker 1 failed 3 times at the same place: " in last
    assert "uncorrectable ECC" in last
    logs = [*(tmp_path / "run" / "logs").iterdir()]
    assert any("uncorrectable ECC" in file.read_text() for file in logs)


@pytest.mark.long
def test_a_training_whose_workers_are_killed_at_each_start_says_so_and_ends(tmp_path: Path) -> None:
    words = command(PLAIN, ["bars", "train.epochs=3"], tmp_path / "run", "--workers", "1")
    killed: set[int] = set()
    deadline = time.monotonic() + PATIENCE
    with started(words, stderr=subprocess.PIPE, text=True) as training:
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


ELASTIC = EACH_EPOCH | {PACE: "1.5", "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20"}
"""Slow enough for another machine to come in time."""
LONG_EPOCHS = [
    *("bars", "data.rows=300000", "train.epochs=2", "train.batch=32"),
    *("estep.block=512", "estep.sweeps=20"),
]


@contextmanager
def on_two_machines(
    recipe: list[str], out: Path, **settings: str
) -> Iterator[tuple[Any, "Popen[bytes]", Callable[[], list[int]]]]:
    """Train with one or two workers on two machines; yield the machines, the driver, and a function
    that returns the number of workers at each start.
    """
    with cluster(1, 1) as machines, out.with_suffix(".log").open("wb") as output:
        words = command(PLAIN, recipe, out, "--workers", "1:2", "--address", machines.address)
        environment = os.environ | ELASTIC | settings
        with started(words, stdout=output, stderr=STDOUT, env=environment) as driver:
            yield machines, driver, lambda: [event["workers"] for event in read_events(out)]


@pytest.mark.long
def test_the_snapshots_on_the_other_machine_survive_the_loss_of_a_machine(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with on_two_machines(LONG_EPOCHS, out, **{COPY_VARIABLE: "1"}) as (machines, driver, sizes):
        wait_for(lambda: sizes() == [2], driver)
        (before,) = read_events(out)
        assert {*before["copies"]} == {*before["machines"]}
        assert before["copies"] != before["machines"]
        time.sleep(25)  # the shards start, and take a snapshot
        assert not (out / "last.json").exists(), "nothing is saved yet"
        machines.worker_nodes.copy().pop().kill_raylet()
        wait_for(lambda: sizes() == [2, 1], driver)
        driver.kill()
    after = read_events(out)[-1]
    assert (after["epoch"], after["batch"]) > (0, 0)


@pytest.mark.long
def test_training_goes_on_without_a_machine_and_grows_when_another_joins(
    undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with on_two_machines(RECIPE, out) as (machines, driver, sizes):
        wait_for(lambda: len(read_epochs(out)) > 2, driver)
        machines.worker_nodes.copy().pop().kill_raylet()
        wait_for(lambda: sizes() == [2, 1], driver)
        lost_at = len(read_epochs(out))
        wait_for(lambda: len(read_epochs(out)) > lost_at + 2, driver)
        machines.add_node(num_cpus=1)
        wait_for(lambda: sizes() == [2, 1, 2], driver)
        assert driver.wait(PATIENCE) == 0, out.with_suffix(".log").read_text()
    kept = ("train_objective", "val_objective", "val_bound")
    whole, parts = (
        [{name: epoch[name] for name in kept} for epoch in read_epochs(folder)]
        for folder in (undisturbed, out)
    )
    same(whole, parts)
