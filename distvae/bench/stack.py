"""Time the steps of several trainings of one shape: one after another, and stacked.

Both are trained in turns in one process. Times are processor time of the calling thread.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from distvae.bench.output import Output
from distvae.bench.steps import trainer_on_noise
from distvae.bench.timing import time_call
from distvae.config import Config
from distvae.config.recipes import load
from distvae.files.plain import Plain
from distvae.files.refusal import Refusal
from distvae.train.epoch import Epoch
from distvae.train.loop import Trainer
from distvae.train.step import Step
from distvae.train.together import Together, can_stack

FOR_EVER = 1_000_000
"""Epochs of the trainings, which end earlier."""


class StackSize(NamedTuple):
    """Size of the timed stack."""

    trainings: int
    batch: int
    steps: int
    """Steps of each training in a turn."""
    turns: int


def bench_stack(recipe: str, size: StackSize, output: Output) -> None:
    """Time trainings of a recipe that differ in seed and rate."""
    torch.set_num_threads(1)
    figures = measure_stack(recipe, size)
    settings = size._asdict()
    output.show({"recipe": recipe, **settings, **figures}, _describe_stack(recipe, size, figures))
    name = f"stack-{Path(recipe).stem}-{size.batch}-{size.trainings}"
    output.keep(name, figures, settings)


def _describe_stack(recipe: str, size: StackSize, f: dict[str, float]) -> str:
    return (
        f"{recipe}, {size.trainings} trainings, batch {size.batch}: a step of one takes"
        f" {f['alone_us']:.0f} us alone, {f['stacked_us']:.0f} us stacked;"
        f" {f['stacked_times']:.2f} times as fast ({f['stacked_times_min']:.2f} to"
        f" {f['stacked_times_max']:.2f}); {'equal' if f['same_bits'] else 'different'} bits"
    )


def measure_stack(recipe: str, size: StackSize) -> dict[str, float]:
    """Train both ways in turns, and compare times and parameters."""
    configs = [_config(recipe, number, size.batch) for number in range(size.trainings)]
    alone, stacked = (Trainings(configs, how) for how in (take_alone, Together().take))
    times: dict[str, list[float]] = {"alone": [], "stacked": []}
    for _ in range(1 + size.turns):  # the first warms up
        for name, trainings in (("alone", alone), ("stacked", stacked)):
            seconds = time_call(trainings.train, size.steps, clock=time.thread_time)
            times[name].append(1e6 * seconds / size.steps / size.trainings)
    ratios = [a / b for a, b in zip(times["alone"][1:], times["stacked"][1:], strict=True)]
    return {
        "alone_us": statistics.median(times["alone"][1:]),
        "stacked_us": statistics.median(times["stacked"][1:]),
        "stacked_times": statistics.median(ratios),
        "stacked_times_min": min(ratios),
        "stacked_times_max": max(ratios),
        "same_bits": float(alone.has_bits_of(stacked)),
    }


def _config(recipe: str, number: int, batch: int) -> Config:
    settings: dict[str, Plain] = {
        "train.device": "cpu",
        "train.batch": batch,
        "train.epochs": FOR_EVER,
        "train.seed": number,
        "train.rate": 1e-3 / (1 + number),
    }
    return load(recipe, settings)


def take_alone(steps: Sequence[Step]) -> None:
    """Take steps one by one."""
    for step in steps:
        step.take()


class Trainings:
    """Trainings that take their steps in turn, in some way."""

    def __init__(self, configs: Sequence[Config], take: Callable[[Sequence[Step]], None]) -> None:
        self.trainers: list[Trainer] = [trainer_on_noise(config) for config in configs]
        self.events = [trainer.events(lambda: False) for trainer in self.trainers]
        self.take = take

    def train(self, steps: int) -> None:
        """Take so many steps of each training."""
        for _ in range(steps):
            due = [_next_step(events) for events in self.events]
            if not all(map(can_stack, due)):
                raise Refusal("bench stack: a recipe whose model has a stacked form expected")
            self.take(due)

    def has_bits_of(self, other: "Trainings") -> bool:
        """Return whether all parameters are equal."""
        for one, two in zip(self.trainers, other.trainers, strict=True):
            for mine, theirs in zip(one.parameters, two.parameters, strict=True):
                if not torch.equal(mine, theirs):
                    return False
        return True


def _next_step(events: Iterator[Epoch | Step]) -> Step:
    """Return the next step of a training."""
    return next(event for event in events if isinstance(event, Step))
