"""Kill a worker, a shard, the driver or a raylet at a random moment.

A worker is stopped, its stack tells from outside in which phase it is, the victim is killed, and
the worker continues if it lives.
"""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from subprocess import STDOUT, Popen, TimeoutExpired
from typing import Any

from distvae.machines.worker import COPY_VARIABLE, REPORT_VARIABLE
from distvae.train.run_folder import EVENTS, read_epochs, read_records
from tests.ray_cluster import cluster
from tests.train.commands import PLAIN, bits, command, same
from tests.train.processes import NONE, SHARD, WORKER, below, phase, remaining, stopped, titled

EPOCHS = 60
RECIPE = [
    *("bars", "data.rows=4000", f"train.epochs={EPOCHS}", "train.batch=512"),
    *(
        "train.rate=0.002",
        "train.schedule=constant",
    ),  # with which other orders of addition change little
]
KINDS = ("worker", "shard", "driver", "raylet")
WANTED = ("E-step", "copy", "snapshot", "report")
BOUNDS = {"train_objective", "val_objective", "val_bound"}
PACE = "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"
"""So many seconds a report takes at least, and with it an epoch, if each is reported."""
EACH_EPOCH = {REPORT_VARIABLE: "0", COPY_VARIABLE: "0.5"}
"""A report after each epoch, and a snapshot every half a second."""
SETTINGS = {"OMP_NUM_THREADS": "1", PACE: "0.2", **EACH_EPOCH}
ELASTIC = {PACE: "1.5", **EACH_EPOCH, "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20"}
"""Slow enough for another machine to come in time."""
LINGER = 90.0  # seconds; Ray's agents try for a minute to tell a Ray that is gone of it
PACES = {"raylet": ELASTIC, "shard": {PACE: "0.6"}}
"""Slow enough for a shard to start in time, which begins after the workers."""
PATIENCE = 400.0


@dataclass(frozen=True)
class Plan:
    """The victim of a kill, and the moment."""

    seed: int
    kind: str
    wanted: str
    """The phase to wait for."""
    delay: float
    """Seconds after training has begun before which nobody is killed."""

    @classmethod
    def of(cls, seed: int) -> "Plan":
        """Draw a plan from a seed."""
        chance = random.Random(seed)
        return cls(seed, chance.choice(KINDS), chance.choice(WANTED), chance.uniform(0, 5))

    @property
    def latest(self) -> int:
        """Return the epoch from which on any phase will do."""
        return EPOCHS // 6 if self.kind == "raylet" else EPOCHS * 3 // 4


@dataclass(frozen=True)
class Hit:
    """The result of a kill."""

    phase: str
    epoch: int
    time: float
    family: frozenset[int]
    """The training's processes at that moment."""

    @property
    def counts(self) -> bool:
        """Return whether training was still going on."""
        return self.phase != NONE and self.epoch < EPOCHS


class Ordeal:
    """A training of two workers, and one kill."""

    hit: Hit | None = None
    resumed: float | None = None
    """Seconds after which training went on."""

    def __init__(self, plan: Plan, out: Path) -> None:
        self.plan, self.out = plan, out
        self.chance = random.Random(plan.seed)
        self.others = below(os.getpid())

    def survive(self) -> None:
        """Wait until the training has ended."""
        if self.plan.kind == "raylet":
            self._on_a_cluster()
        else:
            self._on_this_machine()
        if self.hit and self.hit.counts:
            self._check_starts(self.hit.time)

    def _on_this_machine(self) -> None:
        words = command(PLAIN, RECIPE, self.out, "--workers", "2")
        with self._begun(words) as driver:
            hit = self._strike(
                driver, lambda worker: os.kill(self._victim(worker, driver), signal.SIGKILL)
            )
            if self.plan.kind != "driver":
                return self._finish(driver)
        with self._begun([*words, "--resume"]) as driver:
            self._finish(driver)
        left = remaining(hit.family, LINGER)
        assert not left, left

    def _victim(self, worker: int, driver: Popen[bytes]) -> int:
        if self.plan.kind == "shard":
            return self.chance.choice(titled(SHARD, below(driver.pid)))
        return driver.pid if self.plan.kind == "driver" else worker

    def _on_a_cluster(self) -> None:
        with cluster(1, 1) as machines:
            words = command(
                PLAIN, RECIPE, self.out, "--workers", "1:2", "--address", machines.address
            )
            with self._begun(words) as driver:
                lost = self.chance.choice(
                    sorted(machines.worker_nodes, key=lambda node: str(node.unique_id))
                )
                hit = self._strike(driver, lambda _: lost.kill_raylet())
                self._wait_for(lambda: self.sizes()[-1] == 1, driver)
                self._wait_for(lambda: len(read_epochs(self.out)) > hit.epoch + 2, driver)
                machines.add_node(num_cpus=1)
                self._wait_for(lambda: self.sizes()[-1] == 2, driver)
                self._finish(driver)

    @contextmanager
    def _begun(self, words: list[str]) -> Iterator[Popen[bytes]]:
        """Start a training in its own process, and end that afterwards."""
        environment = os.environ | SETTINGS | PACES.get(self.plan.kind, {})
        with (
            self.output_file.open("ab") as output_file,
            Popen(words, env=environment, stdout=output_file, stderr=STDOUT) as driver,
        ):
            try:
                yield driver
            finally:
                driver.kill()

    def _strike(self, driver: Popen[bytes], kill: Callable[[int], None]) -> Hit:
        """Kill while a worker is in the planned phase, or at last in any phase."""
        self._wait_for(lambda: bool(self.sizes()), driver)
        if self.plan.kind == "shard":
            self._wait_for(lambda: bool(titled(SHARD, below(driver.pid))), driver)
        time.sleep(self.plan.delay)
        while workers := titled(WORKER, family := self._family()):
            worker = self.chance.choice(workers)
            with stopped(worker):
                hit = Hit(phase(worker), len(read_epochs(self.out)), time.time(), family)
                if hit.phase == self.plan.wanted or hit.epoch >= self.plan.latest:
                    self.hit = hit
                    kill(worker)
                    return hit
            time.sleep(self.chance.uniform(0.01, 0.06))
        self.hit = Hit(NONE, EPOCHS, time.time(), family)
        return self.hit

    def _family(self) -> frozenset[int]:
        """Return the processes of this training."""
        return frozenset(below(os.getpid()) - self.others)

    def _wait_for(self, condition: Callable[[], bool], driver: Popen[bytes]) -> None:
        """Wait as long as the training is going on."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert driver.poll() is None, self.output_file.read_text()
            assert time.monotonic() < deadline, self.sizes()
            time.sleep(0.05)

    def _finish(self, driver: Popen[bytes]) -> None:
        assert driver.wait(PATIENCE) == 0, self.output_file.read_text()

    @property
    def output_file(self) -> Path:
        """Return the output of the drivers."""
        return self.out.with_suffix(".log")

    def sizes(self) -> list[int]:
        """Return the number of workers at each start."""
        return [event["workers"] for event in read_records(self.out, EVENTS)]

    def _check_starts(self, killed: float) -> None:
        """Check that training began again, or did not notice that a shard was lost."""
        later = [
            event["time"] - killed
            for event in read_records(self.out, EVENTS)
            if event["time"] > killed
        ]
        if self.plan.kind == "shard":
            assert not later, "training has begun again without a shard"
        else:
            assert later, "training has not begun again"
            self.resumed = float(later[0])

    def compare(self, undisturbed: Path) -> None:
        """Check that it ended as if nothing had happened, bit for bit if the summation order was
        the same.
        """
        whole, epochs = read_epochs(undisturbed), read_epochs(self.out)
        if self.plan.kind == "raylet":
            same([_bounds(epoch) for epoch in whole], [_bounds(epoch) for epoch in epochs])
        else:
            same(whole, epochs, 0.0)
            assert bits(self.out) == bits(undisturbed)


def _bounds(epoch: dict[str, float]) -> dict[str, float]:
    return {name: epoch[name] for name in BOUNDS}


def recorded(plan: Plan, out: Path, undisturbed: Path) -> dict[str, Any]:
    """Return what became of a training, however it ended."""
    ordeal = Ordeal(plan, out)
    try:
        ordeal.survive()
        ordeal.compare(undisturbed)
        outcome = "same"
    except (AssertionError, TimeoutExpired) as error:
        outcome = str(error)
    hit = ordeal.hit or Hit(NONE, 0, 0.0, frozenset())
    found = {
        "phase": hit.phase,
        "epoch": hit.epoch,
        "counts": hit.counts,
        "resumed": ordeal.resumed,
    }
    return asdict(plan) | found | {"outcome": outcome}
