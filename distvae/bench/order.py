"""Time the order of rows of an epoch, and measure what a training on many rows keeps in memory.

The order is a list of all rows, or computed for the next batches alone. The rows to train on are
a file of zeros that is mapped into memory and takes no room on the disk.
"""

import os
import time
import tracemalloc
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import torch

from distvae.bench.counting import train_steps
from distvae.bench.output import Output
from distvae.bench.timing import timed_call
from distvae.config import Config, from_dict
from distvae.data.dataset import Dataset
from distvae.machines.session.ray_head import free_port
from distvae.numerics.bands import Bands
from distvae.numerics.lanes import Lanes
from distvae.system.loopback import HOST
from distvae.system.processes import memory_of
from distvae.train.session import build_trainer
from distvae.train.team import join_team

VALUES, STATES, LATENT = 144, 16, 64
WORKERS = (1, 2)
MOST_LISTED = 2 * 10**7
"""The most rows that are listed."""
TURNS = 5


class OrderExtent(NamedTuple):
    """The size of a training, and how much of it is done."""

    rows: int
    batch: int
    steps: int


def bench_order(extent: OrderExtent, train: bool, output: Output) -> None:
    """Time the order of an epoch for some numbers of workers; train a few steps, if wanted."""
    if extent.rows <= MOST_LISTED:
        _show_figures("listed", extent, measure_list(extent), output)
    for workers in (*WORKERS, 64):
        _show_figures(f"computed-{workers}", extent, measure_computed(extent, workers), output)
    if train:
        for workers in WORKERS:
            _show_figures(f"trained-{workers}", extent, measure_training(extent, workers), output)


def _show_figures(
    case: str, extent: OrderExtent, figures: Mapping[str, float], output: Output
) -> None:
    found = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
    text = f"{extent.rows:,} rows in batches of {extent.batch}, {case}: {found}"
    output.show({"case": case, **extent._asdict(), **figures}, text)
    output.keep(f"order-{extent.rows}-{case}", figures, extent._asdict())


def measure_list(extent: OrderExtent) -> dict[str, float]:
    """Return nanoseconds of processor time and bytes for each row of a list of all rows."""
    lanes = Lanes.of(extent.rows, extent.batch)
    seconds = [
        timed_call(lanes.schedule, 0, turn, clock=time.thread_time)[1] for turn in range(TURNS)
    ]
    peak = _peak_bytes(lambda: lanes.schedule(0, 0))
    return {"ns_a_row": 1e9 * median(seconds) / extent.rows, "mb": peak / 1e6}


def measure_computed(extent: OrderExtent, workers: int) -> dict[str, float]:
    """Return nanoseconds of processor time for each row of one of several workers, and megabytes.

    As many steps are computed as are taken in training.
    """
    held = Bands(extent.rows, extent.batch).held(0, workers)
    steps = min(extent.steps, extent.rows // extent.batch)

    def compute(epoch: int = 0) -> int:
        order = held.order(0, epoch)
        places = range(0, steps * extent.batch, extent.batch)
        return sum(len(order.rows(place, place + extent.batch)) for place in places)

    found = [timed_call(compute, turn, clock=time.thread_time) for turn in range(TURNS)]
    seconds = median(seconds / rows for rows, seconds in found)
    return {"ns_a_row": 1e9 * seconds, "mb": _peak_bytes(compute) / 1e6}


def _peak_bytes(function: Callable[[], object]) -> int:
    """Return the most bytes that a call has of Python's and NumPy's memory."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def measure_training(extent: OrderExtent, workers: int) -> dict[str, float]:
    """Return the means over workers of what each measures in a process of its own."""
    port = free_port()
    with TemporaryDirectory() as folder, (path := Path(folder) / "rows").open("wb") as file:
        file.truncate(extent.rows * VALUES * 4)
        with ProcessPoolExecutor(workers, get_context("spawn")) as processes:
            waiting = [
                processes.submit(train_worker, extent, path, (rank, workers, port))
                for rank in range(workers)
            ]
            found = [future.result() for future in waiting]
    return {name: sum(part[name] for part in found) / workers for name in found[0]}


def train_worker(extent: OrderExtent, path: Path, place: tuple[int, int, int]) -> dict[str, float]:
    """Return the seconds and gigabytes of one worker: its rank, their number and a free port."""
    names = ("RANK", "WORLD_SIZE", "MASTER_PORT")
    os.environ |= {name: str(value) for name, value in zip(names, place, strict=True)}
    os.environ["MASTER_ADDR"] = HOST
    torch.set_num_threads(1)
    team = join_team()
    rows = np.memmap(path, np.float32, "r", shape=(extent.rows, VALUES))
    data = Dataset("zeros", "row", "", dict.fromkeys(("train", "val", "test"), rows), path)
    config = training_config(extent)
    before = memory_of("self").get("RssAnon", 0)
    trainer, resumed = timed_call(build_trainer, config, data, team, None, 1, True)
    del trainer
    trainer, begun = timed_call(build_trainer, config, data, team)
    held = memory_of("self").get("RssAnon", 0) - before
    done, seconds = timed_call(train_steps, trainer, extent.steps)
    _, validated = timed_call(trainer.validate)
    peak = memory_of("self").get("RssAnon", 0) - before
    team.close()
    return {
        "resume_s": resumed,
        "begin_s": begun,
        "step_ms": 1e3 * seconds / done,
        "validate_s": validated,
        "begun_gb": held / 1e9,
        "gb": peak / 1e9,
    }


def training_config(extent: OrderExtent) -> Config:
    """Return a training with populations whose first states are the same for all rows."""
    estep = {"kind": "evolution", "states": STATES, "parents": 2, "children": 2, "first": "common"}
    model = {"kind": "tvae", "latent": LATENT, "hidden": [64], "variance": 1.0}
    train = {"batch": extent.batch, "epochs": 1, "device": "cpu"}
    return from_dict({"model": model, "estep": estep, "train": train})
