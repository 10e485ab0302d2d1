"""Count what training asks of torch and of a GPU: matrix products, operations, kernel launches,
copies and synchronisations.
"""

import re
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from distvae.config import Config
from distvae.data.dataset import Array
from distvae.estep import assemble
from distvae.interface import prepare
from distvae.numerics.lanes import Lanes
from distvae.train.bits import agree_on_arithmetic
from distvae.train.devices import CPU
from distvae.train.loop import Trainer
from distvae.train.stopping import Interrupted

PRODUCTS = {torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm, torch.ops.aten.baddbmm}
EVENTS = {"launches": r"cu(da)?(Launch\w*Kernel|GraphLaunch)", "copies": "Memcpy (HtoD|DtoH)"}
"""Patterns of the names that CUDA gives kernel launches, and copies between host and device."""
Shape = tuple[int, int, int, int]
"""The number of products in a batch, and the m, k and n of each."""


def untrained(config: Config, rows: Array, val_rows: Array) -> Trainer:
    """Return a trainer on the CPU before its first step."""
    agree_on_arithmetic(replace(config.train, threads=None)).apply()
    model, estep = assemble(config, rows.shape[1])
    prepare(estep, [torch.from_numpy(rows)], Lanes(len(rows), 1).held(), 0)
    return Trainer(config.train, model, estep, rows, val_rows, device=CPU)


def device_seconds(device: torch.device, function: Callable[[], object]) -> float:
    """Return how long a function takes, including the work that it queues on a GPU."""
    synchronize(device)
    start = time.perf_counter()
    function()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has finished the work queued on it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def train_steps(trainer: Trainer, steps: int) -> int:
    """Train for at least this many steps, up to the end of a block of rows; return how many."""
    first = trainer.steps_taken()
    last = first + min(steps, trainer.batches)
    with suppress(Interrupted):
        for _ in trainer.run(lambda: trainer.steps_taken() >= last):
            pass
    return trainer.steps_taken() - first


class OperationCounter(TorchDispatchMode):
    """Counts the operations of torch, and records the shapes of matrix products."""

    def __init__(self) -> None:
        TorchDispatchMode.__init__(self)
        self.operations = 0
        self.products: list[Shape] = []

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: object,
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        self.operations += 1
        if func.overloadpacket in PRODUCTS:
            a, b = args[-2:]
            assert isinstance(a, Tensor)
            assert isinstance(b, Tensor)
            batch = (1,) * (3 - a.dim())
            self.products.append((*batch, *a.shape, b.shape[-1]))
        return func(*args, **(kwargs or {}))


def record_steps(trainer: Trainer, steps: int) -> tuple[int, list[Shape], int]:
    """Train for some steps; return their number, matrix products and number of operations."""
    with OperationCounter() as counter:
        taken = train_steps(trainer, steps)
    return taken, counter.products, counter.operations


def replay_products(shapes: Sequence[Shape], device: torch.device) -> float:
    """Return the seconds that matrix products of these shapes take, after one warm-up."""
    sizes = np.array([(b * m * k, b * k * n, b * m * n) for b, m, k, n in shapes]).max(axis=0)
    memory = [torch.randn(int(size), device=device) for size in sizes]
    operands = [_operands(memory, shape) for shape in shapes]

    def multiply() -> None:
        for a, b, c in operands:
            torch.matmul(a, b, out=c)

    multiply()
    return device_seconds(device, multiply)


def _operands(memory: Iterable[Tensor], shape: Shape) -> list[Tensor]:
    """Return two factors and the place of their product, as views of memory."""
    b, m, k, n = shape
    lead = (b,) if b > 1 else ()
    sides = [(*lead, m, k), (*lead, k, n), (*lead, m, n)]
    return [flat[: int(np.prod(side))].view(side) for flat, side in zip(memory, sides, strict=True)]


def gpu_events_per_step(trainer: Trainer, steps: int) -> dict[str, float]:
    """Return the kernel launches, copies and forced synchronisations of a step on CUDA."""
    taken, synchronisations = _count_synchronisations(trainer, steps)
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    with profile(activities=activities, acc_events=True) as trace:  # which spares a warning
        traced = train_steps(trainer, steps)
        synchronize(trainer.device)
    counts = count_events({event.key: event.count for event in trace.key_averages()})
    figures = {name: count / traced for name, count in counts.items()}
    return figures | {"synchronisations": synchronisations / taken}


def _count_synchronisations(trainer: Trainer, steps: int) -> tuple[int, int]:
    """Return the number of steps taken, and how often torch warned that one waits for the GPU."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            taken = train_steps(trainer, steps)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return taken, sum("synchronizing" in str(warning.message) for warning in caught)


def count_events(counts: Mapping[str, int]) -> dict[str, int]:
    """Return the number of kernel launches and copies, from the counts of CUDA's events by name."""
    totals = {}
    for kind, pattern in EVENTS.items():
        totals[kind] = sum(n for name, n in counts.items() if re.match(pattern, name))
    return totals
