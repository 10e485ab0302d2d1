"""A training in processes of its own that runs for an epoch at a time.

Between its turns its processes are stopped, so that several trainings can take turns. They are
found by a mark in their environment, as Ray's processes are no descendants of the command.
"""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from distvae.files.refusal import Refusal
from distvae.system.processes import marked_processes, processor_seconds, words_of
from distvae.train.run import read_epochs

MARK = "DISTVAE_BENCH_MARK"
"""The variable that marks the processes of a training."""
TITLES = ("ray::RayTrainWorker", "ray::KeeperActor")
"""Titles of the processes of Ray that are stopped; those that watch over others are not."""
POLL_SECONDS = 0.002
PATIENCE = 600.0
"""Seconds in which an epoch has to end."""


class Turn(NamedTuple):
    """An epoch of a training."""

    wall: float
    """Seconds by the clock on the wall."""
    processor: float
    """Seconds of processors, in all processes of the training."""


class PausedTraining:
    """A command that trains into a run folder."""

    def __init__(self, words: Sequence[str], run: Path) -> None:
        self.run, self.mark = run, f"{os.getpid()}-{run.name}"
        self.seconds_to_start = 0.0
        """Seconds from the command to the end of its first epoch."""
        self.epochs = len(read_epochs(run))
        environment = os.environ | {"OMP_NUM_THREADS": "1", MARK: self.mark}
        self.command = subprocess.Popen(words, env=environment)

    def start(self) -> None:
        """Wait for its first epoch, and stop it."""
        began = time.perf_counter()
        self._await_epoch()
        self.stop()
        self.seconds_to_start = time.perf_counter() - began

    def processor_seconds(self) -> float:
        """Return the processor time of all its processes."""
        return sum(map(processor_seconds, marked_processes(MARK, self.mark)))

    def resume(self) -> None:
        """Let it continue."""
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """Stop its processes until it is resumed."""
        self._signal(signal.SIGSTOP)

    def has_new_epoch(self) -> bool:
        """Return whether an epoch ended since the last time that one had."""
        if self.command.poll() is not None:
            raise Refusal(f"bench workers: {self.run.name} has ended with {self.command.poll()}")
        found = len(read_epochs(self.run))
        is_new = found > self.epochs
        self.epochs = found
        return is_new

    def end(self) -> None:
        """End all its processes."""
        self._signal(signal.SIGKILL)
        self.command.kill()
        self.command.wait()

    def _await_epoch(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while not self.has_new_epoch():
            if time.monotonic() > deadline:
                raise Refusal(f"bench workers: {self.run.name} had no epoch in {PATIENCE:.0f} s")
            time.sleep(POLL_SECONDS)

    def _signal(self, number: signal.Signals) -> None:
        """Signal the processes that train; SIGKILL goes to all."""
        for pid in list(marked_processes(MARK, self.mark)):
            if number == signal.SIGKILL or _trains(pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, number)


def _trains(pid: int) -> bool:
    """Return whether a process trains or keeps copies, or waits for such processes."""
    words = words_of(pid)
    return words[0].startswith(TITLES) or "train" in words[1:]


def take_turn(trainings: Sequence[PausedTraining]) -> Turn:
    """Let trainings run side by side until each has ended an epoch.

    Return the harmonic mean of their seconds, and the processor time of all.
    """
    before = sum(training.processor_seconds() for training in trainings)
    began = time.perf_counter()
    for training in trainings:
        training.resume()
    running, walls = list(trainings), []
    while running:
        for training in list(running):
            if training.has_new_epoch():
                walls.append(time.perf_counter() - began)
                training.stop()
                running.remove(training)
        if time.perf_counter() - began > PATIENCE:
            raise Refusal(f"bench workers: {running[0].run.name}: no epoch in {PATIENCE:.0f} s")
        time.sleep(POLL_SECONDS)
    processor = sum(training.processor_seconds() for training in trainings) - before
    return Turn(len(walls) / sum(1 / wall for wall in walls), processor)
