"""A training in processes of its own that runs for two epochs at a time.

Between its turns its processes are stopped, so that several trainings can take turns. Only the
second epoch of a turn is timed: in the first one, the memory of a process that was stopped comes
back into the caches of the processor, or from the disk. Processes are found by a mark in their
environment, as Ray's processes are no descendants of the command.
"""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from distvae.bench.usage import MARK, PATIENCE
from distvae.files.refusal import Refusal
from distvae.system.processes import marked_processes, processor_seconds
from distvae.train.run import read_epochs

POLL_SECONDS = 0.002
EPOCHS_OF_TURN = 2
"""Epochs of a turn, of which the last is timed."""


class Turn(NamedTuple):
    """An epoch of a training."""

    wall: float
    """Seconds by the clock on the wall."""
    processor: float
    """Seconds of processors, in all processes of the training."""


class PausedTraining:
    """A command that trains into a run folder, or one for each machine."""

    def __init__(self, run: Path, *commands: Sequence[str]) -> None:
        self.run, self.mark = run, f"{os.getpid()}-{run.name}"
        self.seconds_to_start = 0.0
        """Seconds from the command to the end of its first epoch."""
        self.epochs = len(read_epochs(run))
        environment = os.environ | {"OMP_NUM_THREADS": "1", MARK: self.mark}
        self.commands = [subprocess.Popen(words, env=environment) for words in commands]

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
        for command in self.commands:
            if command.poll() is not None:
                raise Refusal(f"bench: {self.run.name} has ended with {command.returncode}")
        found = len(read_epochs(self.run))
        is_new = found > self.epochs
        self.epochs = found
        return is_new

    def end(self) -> None:
        """End all its processes."""
        self._signal(signal.SIGKILL)
        for command in self.commands:
            command.kill()
            command.wait()

    def _await_epoch(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while not self.has_new_epoch():
            if time.monotonic() > deadline:
                raise Refusal(f"bench: {self.run.name} had no epoch in {PATIENCE:.0f} s")
            time.sleep(POLL_SECONDS)

    def _signal(self, number: signal.Signals) -> None:
        """Signal all its processes: those of Ray take a seventh of a processor while they wait."""
        for pid in list(marked_processes(MARK, self.mark)):
            with suppress(ProcessLookupError):
                os.kill(pid, number)


class EpochTimer:
    """Times the second epoch of a training that was just resumed."""

    def __init__(self, training: PausedTraining) -> None:
        self.training = training
        self.began: Turn | None = None
        """Both clocks when the first epoch ended."""
        self.turn: Turn | None = None
        """The second epoch, once it has ended."""

    def look(self) -> None:
        """Notice the end of an epoch."""
        if self.turn or not self.training.has_new_epoch():
            return
        now = Turn(time.perf_counter(), self.training.processor_seconds())
        if self.began is None:
            self.began = now
        else:
            wall, processor = now.wall - self.began.wall, now.processor - self.began.processor
            self.turn = Turn(wall, processor)


def take_turn(trainings: Sequence[PausedTraining]) -> Turn:
    """Let trainings run side by side until an epoch of each was timed.

    Return the harmonic mean of their seconds, and the processor time of all.
    """
    timers = [EpochTimer(training) for training in trainings]
    began = time.perf_counter()
    for training in trainings:
        training.resume()
    while not all(timer.turn for timer in timers):
        for timer in timers:
            timer.look()
        if time.perf_counter() - began > PATIENCE:
            raise Refusal(f"bench: no two epochs in {PATIENCE:.0f} s")
        time.sleep(POLL_SECONDS)
    for training in trainings:
        training.stop()
    turns = [timer.turn for timer in timers if timer.turn]
    wall = len(turns) / sum(1 / turn.wall for turn in turns)
    return Turn(wall, sum(turn.processor for turn in turns))
