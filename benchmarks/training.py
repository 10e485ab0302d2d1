"""New trainers on generated rows, and clocks."""

import time
from collections.abc import Callable
from contextlib import suppress

import torch

from distvae.config import Config
from distvae.data.dataset import Array
from distvae.estep import assemble
from distvae.interface import prepare
from distvae.numerics.rows import divide
from distvae.train.loop import Interrupted, Trainer
from distvae.train.session import agree_on_arithmetic
from distvae.train.team import ALONE, CPU

Clock = Callable[[], float]


def new_trainer(
    config: Config, rows: Array, val_rows: Array, device: torch.device = CPU
) -> Trainer:
    """Return a trainer before its first step."""
    agree_on_arithmetic(config.train, device).apply()
    model, estep = assemble(config, rows.shape[1])
    held = divide(len(rows), config.train.batch).held()
    for part in (model, estep):
        prepare(part, [torch.from_numpy(rows)], held, config.train.seed)
    return Trainer(config.train, model, estep, rows, val_rows, ALONE, device)


def train_steps(trainer: Trainer, steps: int) -> int:
    """Train for at least this many steps, up to the end of a block of rows. Return the number of
    steps.
    """
    first = trainer.steps_taken()
    with suppress(Interrupted):
        for _ in trainer.run(lambda: trainer.steps_taken() >= first + steps):
            pass
    return trainer.steps_taken() - first


def time_call(function: Callable[[], object], clock: Clock = time.perf_counter) -> float:
    """Call a function, and return its duration in seconds."""
    start = clock()
    function()
    return clock() - start


def device_seconds(device: torch.device, function: Callable[[], object]) -> float:
    """Return the duration of a function in seconds, including the work that it queues on a GPU."""
    synchronize(device)
    start = time.perf_counter()
    function()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has finished the work queued on it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
