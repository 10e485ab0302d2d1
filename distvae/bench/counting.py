"""What training asks of torch and of a GPU: matrix products, operations, kernels launched, copies,
waits.
"""

import re
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from distvae.train.loop import Interrupted, Trainer

PRODUCTS = {torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm, torch.ops.aten.baddbmm}
Shape = tuple[int, int, int, int]
"""How many products at once, and the m, k and n of each."""


def seconds_of(device: torch.device, function: Callable[[], object]) -> float:
    """Return how long a function takes, with all that it leaves a GPU to do."""
    finish(device)
    began = time.perf_counter()
    function()
    finish(device)
    return time.perf_counter() - began


def finish(device: torch.device) -> None:
    """Wait until a GPU has done all it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def train_some(trainer: Trainer, steps: int) -> int:
    """Train for so many steps, or a few more until the end of a visit to populations; return how
    many they were.
    """
    first = _done(trainer)
    with suppress(Interrupted):
        for _ in trainer.run(lambda: _done(trainer) >= first + min(steps, trainer.batches)):
            pass
    return _done(trainer) - first


def _done(trainer: Trainer) -> int:
    """Return how many steps were taken from the start."""
    return trainer.position.epoch * trainer.batches + trainer.position.batch


class Recorder(TorchDispatchMode):
    """Counts what torch is asked to do, and keeps the shapes of matrix products."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = 0
        self.products: list[Shape] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += 1
        if func.overloadpacket in PRODUCTS:
            a, b = args[-2:]
            self.products.append((*((1,) * (3 - a.dim())), *a.shape, b.shape[-1]))
        return func(*args, **(kwargs or {}))


def recorded(trainer: Trainer, steps: int) -> tuple[int, list[Shape], int]:
    """Train for some steps; return how many, the matrix products in them, and how many operations
    of torch.
    """
    with Recorder() as recorder:
        taken = train_some(trainer, steps)
    return taken, recorder.products, recorder.operations


def replayed(shapes: Sequence[Shape], device: torch.device) -> float:
    """Return the seconds that matrix products of these shapes take one after the other: the second
    time they do.
    """
    sizes = [
        max(sizes)
        for sizes in zip(*((b * m * k, b * k * n, b * m * n) for b, m, k, n in shapes), strict=True)
    ]
    memory = [torch.randn(size, device=device) for size in sizes]
    operands = [_operands(memory, shape) for shape in shapes]

    def multiply() -> None:
        for a, b, c in operands:
            torch.matmul(a, b, out=c)

    multiply()
    return seconds_of(device, multiply)


def _operands(memory: Iterable[torch.Tensor], shape: Shape) -> list[torch.Tensor]:
    """Return two factors and the place of their product, as views of memory."""
    b, m, k, n = shape
    lead = (b,) if b > 1 else ()
    sides = [(*lead, m, k), (*lead, k, n), (*lead, m, n)]
    return [flat[: int(np.prod(side))].view(side) for flat, side in zip(memory, sides, strict=True)]


def waits(trainer: Trainer, steps: int) -> dict[str, float]:
    """Return what a step asks of CUDA: kernels launched, copies to and from the host, waits that
    torch forces.
    """
    taken, warned = _warned(trainer, steps)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as trace:
        traced = train_some(trainer, steps)
        finish(trainer.device)
    counts = tally({event.key: event.count for event in trace.key_averages()})
    return {name: count / traced for name, count in counts.items()} | {
        "synchronisations": warned / taken
    }


def _warned(trainer: Trainer, steps: int) -> tuple[int, int]:
    """Return the steps that were taken, and how often torch warned that one waits for the GPU."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            taken = train_some(trainer, steps)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return taken, sum("synchronizing" in str(warning.message) for warning in heard)


def tally(counts: Mapping[str, int]) -> dict[str, int]:
    """Return kernels launched, and copies between host and device, by the names that CUDA gives
    events.
    """
    kinds = {"launches": r"cu(da)?Launch\w*Kernel", "copies": "Memcpy (HtoD|DtoH)"}
    return {
        kind: sum(n for name, n in counts.items() if re.match(names, name))
        for kind, names in kinds.items()
    }
