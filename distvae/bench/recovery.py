"""Train on many rows with one worker, with two by torchrun, and with two under Ray with keepers.

Each training is killed in the middle of a block and goes on. Only some blocks of an epoch are
trained on, as an epoch of so many rows takes hours.
"""

import json
import signal
import sys
from pathlib import Path
from typing import NamedTuple

from distvae.bench.blocks import BATCH, training_config
from distvae.bench.usage import Running, Usage, let_it_run, measure_command
from distvae.bench.workers import TORCHRUN
from distvae.config import to_dict
from distvae.files.refusal import Refusal
from distvae.train.checkpoint import epoch_and_batch, read_manifest
from distvae.train.documents import Event
from distvae.train.events import read_events, starts_of

PROGRAM = "distvae.bench.blocks"
WORKER, KEEPER = "ray::RayTrainWorker", "ray::KeeperActor"
TRAINED_SECONDS = 20.0
"""Seconds of training under Ray before a worker is killed, and after."""
Figures = dict[str, float]


class Trained(NamedTuple):
    """The rows to train on, and where to."""

    rows: Path
    folder: Path
    blocks: int
    """Blocks that are timed, after one that is not; half as many come before a kill."""


def measure_recovery(trained: Trained) -> Figures:
    """Return the figures of all ways, by the names of the ways."""
    ways = {
        "one": measure_blocks(trained, "one", ()),
        "torchrun": measure_blocks(trained, "torchrun", TORCHRUN),
        "ray": RayTraining(trained).measure(),
    }
    return {f"{way}_{name}": value for way, f in ways.items() for name, value in f.items()}


def measure_blocks(trained: Trained, way: str, launcher: tuple[str, ...]) -> Figures:
    """Train some blocks and save; go on and be killed; go on from what was saved."""
    words = [sys.executable, *launcher, "-m", PROGRAM, str(trained.rows), str(trained.folder / way)]
    before_kill = max(1, trained.blocks // 2)
    found, used = _train_blocks(words, trained.blocks)
    measure_command([*words, str(-before_kill)], fails=True)
    resumed, _ = _train_blocks(words, 1)
    return found | {
        "worker_gb": used.held(PROGRAM)[0] / 1e9,
        "loopback_mb": used.loopback / 1e6,
        "lost_blocks": before_kill + 0.5,
        "resume_s": resumed["start_s"],
        "resumed_at_batch": resumed["batch"],
    }


def _train_blocks(words: list[str], blocks: int) -> tuple[Figures, Usage]:
    """Train so many blocks; return figures with the seconds until the first one, and the usage."""
    started: list[float] = []

    def drive(running: Running) -> None:
        started.append(running.began)
        let_it_run(running)

    used = measure_command([*words, str(blocks)], drive)
    found: Figures = json.loads(used.output.splitlines()[-1])
    return found | {"start_s": found.pop("began") - started[0]}, used


class RayTraining:
    """A training of two workers under Ray. What was trained on is told by where it goes on."""

    def __init__(self, trained: Trained) -> None:
        self.run = trained.folder / "ray"
        config = trained.folder / "config.yaml"
        config.write_text(json.dumps(to_dict(training_config(trained.rows))))
        options = ["--workers", "2", "--quiet", "--no-track", "--no-evaluate", "--out"]
        train = ["distvae", "train", str(config), *options, str(self.run)]
        self.words = [sys.executable, "-m", *train]
        self.figures: Figures = {}

    def measure(self) -> Figures:
        """Kill a worker, let training go on and stop; resume it, and kill all of it."""
        used = measure_command(self.words, self._kill_a_worker, fails=True)
        self.figures |= {
            "worker_gb": used.held(WORKER)[0] / 1e9,
            "keeper_gb": used.held(KEEPER)[0] / 1e9,
            "driver_gb": used.held(" train ")[0] / 1e9,
            "loopback_mb": used.loopback / 1e6,
        }
        measure_command([*self.words, "--resume"], self._resume, fails=True)
        return self.figures

    def _kill_a_worker(self, running: Running) -> None:
        begun = self._start(running, 1)
        self.figures["start_s"] = begun["time"] - running.began
        running.watch(TRAINED_SECONDS)
        killed = running.kill(WORKER)
        again = self._start(running, 2)
        self.figures["recovery_s"] = again["time"] - killed
        processor = running.processor_seconds()
        running.watch(TRAINED_SECONDS)
        running.process.send_signal(signal.SIGINT)
        seconds = TRAINED_SECONDS
        processor = running.processor_seconds() - processor
        running.wait(running.has_ended)
        stopped = epoch_and_batch(read_manifest(self.run, "last.json")["facts"])
        self.figures |= {
            "killed_at_row": _rows_until(again, again["epoch"], again["batch"]),
            "stopped_at_row": _rows_until(again, *stopped),
        }
        rows = self.figures["stopped_at_row"] - self.figures["killed_at_row"]
        self.figures |= {
            "block_row_ms": 1e3 * seconds / rows,
            "block_row_processor_ms": 1e3 * processor / rows,
        }

    def _resume(self, running: Running) -> None:
        event = self._start(running, 1)
        self.figures["resume_s"] = event["time"] - running.began
        self.figures["resumed_at_row"] = _rows_until(event, event["epoch"], event["batch"])

    def _start(self, running: Running, number: int) -> Event:
        """Wait until the workers have begun so many times."""
        events: list[Event] = []

        def has_begun() -> bool:
            events[:] = self._events(running.began)
            return len(events) >= number or running.has_ended()

        running.wait(has_begun)
        if len(events) < number:
            raise Refusal("bench rows: two workers under Ray have ended before they had begun")
        return events[number - 1]

    def _events(self, since: float) -> list[Event]:
        """Return the events of the command that was started then."""
        return [event for event in starts_of(read_events(self.run)) if event["time"] >= since]


def _rows_until(start: Event, epoch: int, batch: int) -> float:
    """Return how many rows were trained on before a batch, in all epochs."""
    return epoch * sum(start["rows"]) + BATCH * batch
