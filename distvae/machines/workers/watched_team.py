"""A team that says when one of its workers has waited long for the others."""

import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from torch import Tensor

from distvae.train.team import Team

T = TypeVar("T")

STAGGER = 0.3
"""Seconds by which each worker waits longer than the one before it, so that the first tells."""


class WatchedTeam:
    """A team, and a thread that looks once a second how long this worker has waited in it."""

    def __init__(self, team: Team, seconds: float, say: Callable[[str], object]) -> None:
        self.rank, self.size, self.team, self.say = team.rank, team.size, team, say
        self.seconds = seconds
        """A wait of so many seconds is told, once."""
        self.began = math.inf
        """When the call began in which this worker waits."""
        self.closed = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors, which require no gradient, by their sums over all workers."""
        self.began = time.monotonic()
        try:
            self.team.sum(tensors)
        finally:
            self.began = math.inf

    def barrier(self) -> None:
        """Wait until all workers have arrived."""
        self.began = time.monotonic()
        try:
            self.team.barrier()
        finally:
            self.began = math.inf

    def gather(self, value: T, /) -> list[T]:
        """Return the small values of all workers, in order of rank."""
        self.began = time.monotonic()
        try:
            return self.team.gather(value)
        finally:
            self.began = math.inf

    def close(self) -> None:
        """Leave the team."""
        self.closed.set()
        self.team.close()

    def _watch(self) -> None:
        told = math.inf
        while not self.closed.wait(1.0):
            began = self.began
            waited = time.monotonic() - began
            if began != told and waited >= self.seconds + STAGGER * self.rank:
                told = began
                self.say(f"worker {self.rank} of {self.size} has waited {waited:.0f} s for others")
