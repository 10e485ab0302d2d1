"""A profile of some training steps, as a trace that Perfetto and Chrome show."""

from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from distvae.train.loop import Trainer

FILE = "profile.json"
SKIPPED, PROFILED = 20, 10
"""Steps before a profile, in which loops are compiled and steps recorded, and in it, at least."""


class Profiler:
    """Profiles steps of a training, between two of its stops, and writes the trace into a folder.

    A training that searches blocks of rows stops once a block.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / FILE
        self.running: profile | None = None
        self.due: int | None = SKIPPED
        """The steps in this process after which the profile begins, or ends; None once it ended."""
        self.first: int | None = None
        """The steps that were taken before this process."""

    def between(self, trainer: Trainer) -> None:
        """Begin or end the profile if it is due."""
        if self.first is None:
            self.first = trainer.steps_taken()
        taken = trainer.steps_taken() - self.first
        if self.due is None or taken < self.due:
            return
        if self.running is not None:
            self.running.stop()
            self.running.export_chrome_trace(str(self.file))
            self.due = None
            return
        kinds = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            kinds.append(ProfilerActivity.CUDA)
        self.running, self.due = profile(activities=kinds, record_shapes=True), taken + PROFILED
        self.running.start()
