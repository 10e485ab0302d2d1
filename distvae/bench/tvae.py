"""Time TVAE training beside its dense bound: the matrix products of the dense algorithm alone.

The dense algorithm decodes every kept and every new state of every row, and takes the gradient
through all kept ones. Its bound is that floating-point work divided by the best float32 rate of a
matrix product, 4096^3, in this process.
"""

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from distvae.bench.counting import untrained
from distvae.bench.output import Output
from distvae.bench.timing import Clock, time_call
from distvae.config import Config, from_dict
from distvae.data.dataset import Array
from distvae.data.examples import scene
from distvae.data.signals import read_signal
from distvae.data.windows.patches import Grid
from distvae.estep.truncated import Search
from distvae.interface import Batch
from distvae.models.population import tabulate
from distvae.models.truncated import NEAR
from distvae.numerics.noise import Noise, order
from distvae.system.memory import peak_memory
from distvae.train.loop import Trainer

SIDE = 256
"""Pixels along the side of the drawn scene."""
PRODUCT = 4096
FLOAT32_ERROR = 1e-5
"""Relative error of a product in float32; in bfloat16, which torch may fall back to, it is 2e-3."""
BATCH = 32
TIMED = 3
"""Epochs of which blocks are timed."""
RATE = 0.003

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class HouseCase:
    """One of the paper's configurations for House."""

    widths: tuple[int, int, int]
    """Widths of the states, the hidden layer and the data."""
    states: int
    parents: int
    children: int
    generations: int
    sigma: float
    """Standard deviation of the noise in the picture, in grey levels."""
    block: int = 1024
    """Rows that are searched together."""
    batch: int = BATCH

    @property
    def flops(self) -> float:
        """Return the floating-point operations of the dense algorithm for one row.

        States need no gradient.
        """
        layers = [2 * a * b for a, b in pairwise(self.widths)]
        decoding = sum(layers)
        training = 3 * sum(layers) - layers[0]
        new_states = self.parents * self.children * self.generations
        return (self.states + new_states) * decoding + self.states * training


CASES = {
    "big": HouseCase(
        (512, 512, 144), states=64, parents=5, children=4, generations=1, sigma=50.0, block=4096
    ),
    "small": HouseCase((64, 64, 64), states=200, parents=10, children=9, generations=4, sigma=25.0),
}
SIZES = {
    "big": CASES["big"],
    "s64": replace(CASES["small"], states=64, parents=5, children=4, generations=1),
}
"""The larger case, and one with as many states and a narrow net."""


class BlockTimes(NamedTuple):
    """Seconds of a block of rows, and of a matrix product beside it."""

    rows: int
    estep: float
    mstep: float
    product: float


def bench_tvae(picture: Path | None, rows: int, epochs: int, threads: int, output: Output) -> None:
    """Time an epoch of each case."""
    settings = {"rows": rows, "epochs": epochs, "threads": threads}
    for name, case in CASES.items():
        # A new process, so that the peak memory is that of the case alone.
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            figures = process.submit(measure_epoch, case, picture, rows, epochs, threads).result()
        output.show({"case": name, **settings, **figures}, _describe_epoch(name, figures))
        output.keep(f"tvae-{name}", figures, settings)


def _describe_epoch(name: str, f: dict[str, float]) -> str:
    lines = [
        f"{name}: {f['epoch_s']:.1f} s for an epoch of {f['all_rows']:.0f} rows: E-step"
        f" {f['estep_s']:.1f} s, M-step {f['mstep_s']:.1f} s",
        f"  {f['ratio']:.2f} times its dense bound, {f['dense_s']:.1f} s at {f['gflops']:.0f}"
        " GFLOP/s",
        f"  {100 * f['distinct']:.0f} % of a batch's states distinct; {f['near']:.1f} of a row"
        f" within the horizon, at most {f['near_most']:.0f}; peak memory {f['peak_gb']:.2f} GB",
    ]
    return "\n".join(lines)


def measure_epoch(
    case: HouseCase, picture: Path | None, rows: int, epochs: int, threads: int
) -> dict[str, float]:
    """Train for some epochs, then time the blocks of a few more in turns with matrix products.

    Rows are those of whole blocks, since a smaller one shares fewer states, and the median block
    counts. A single thread is timed by its processor time, which other processes disturb less;
    several threads by wall-clock time.
    """
    torch.set_num_threads(threads)
    data = noisy_patches(case, picture)
    if rows < len(data):
        rows = rows // case.block * case.block or rows
    trainer = new_trainer(case, data[order(0, 0, len(data))[:rows]], epochs)
    for _ in trainer.run():
        pass
    memory = peak_memory()  # before the operands of the products add to it
    clock = time.process_time if threads == 1 else time.perf_counter
    time_product = fastest_product(clock)
    times = [block for _ in range(TIMED) for block in _time_blocks(trainer, clock, time_product)]
    estep = len(data) * median(t.estep / t.rows for t in times)
    mstep = len(data) * median(t.mstep / t.rows for t in times)
    rate = 2 * PRODUCT**3 / min(t.product for t in times)
    dense = len(data) * case.flops / rate
    assert isinstance(trainer.estep, Search)
    kept = trainer.estep.store.get(torch.arange(BATCH))
    return {
        "all_rows": len(data),
        "epoch_s": estep + mstep,
        "estep_s": estep,
        "mstep_s": mstep,
        "dense_s": dense,
        "ratio": (estep + mstep) / dense,
        "gflops": rate / 1e9,
        "distinct": len(tabulate(kept)[0]) / (BATCH * case.states),
        **_count_near(trainer.estep),
        "peak_gb": memory / 1e9,
    }


def _count_near(estep: Search) -> dict[str, float]:
    """Return how many states of a row of the last block are within the horizon."""
    assert estep.last_block is not None
    part = estep.last_block.states.part
    assert part is not None
    near = (part == NEAR).sum(1).double()
    return {"near": float(near.mean()), "near_most": float(near.max())}


def noisy_patches(case: HouseCase, picture: Path | None) -> Array:
    """Return all patches of a picture under noise, (N, D), standardised."""
    clean = (
        scene(SIDE) if picture is None else read_signal(picture).values.astype(np.float64).mean(-1)
    )
    noisy = clean + np.random.default_rng(0).normal(0, case.sigma, clean.shape)
    side = int(case.widths[-1] ** 0.5)
    standard = (noisy[..., None] - noisy.mean()) / noisy.std()
    return Grid((*clean.shape, 1), (side, side)).cut(standard.astype(np.float32))


def tvae_config(case: HouseCase, epochs: int) -> Config:
    """Return the configuration of a case, for standardised data and short training."""
    latent, hidden, _ = case.widths
    return from_dict(
        {
            "model": {"kind": "tvae", "latent": latent, "hidden": [hidden], "variance": 1.0},
            "estep": {
                "states": case.states,
                "parents": case.parents,
                "children": case.children,
                "generations": case.generations,
                "block": case.block,
            },
            "train": {
                "epochs": epochs,
                "batch": case.batch,
                "rate": RATE,
                "warmup": 0,
                "device": "cpu",
            },
        }
    )


def new_trainer(case: HouseCase, rows: Array, epochs: int) -> Trainer:
    """Return an untrained trainer, which validates on the first rows alone."""
    config = tvae_config(case, epochs)
    return untrained(config, rows, rows[:BATCH])


def _time_blocks(
    trainer: Trainer, clock: Clock, time_product: Callable[[], float]
) -> Iterator[BlockTimes]:
    """Train one epoch, and yield the times of each block."""
    assert isinstance(trainer.estep, Search)
    for rows in _split(np.arange(len(trainer.train)), trainer.estep.block_size):
        noise = Noise(0, trainer.position.epoch, torch.from_numpy(rows))
        batch = Batch(torch.from_numpy(trainer.train[rows]), noise.row)
        estep = time_call(trainer.estep.search_block, trainer.model, batch, noise, clock=clock)
        minibatches = _split(rows, BATCH)
        mstep = sum(time_call(trainer.step, part, clock=clock) for part in minibatches)
        yield BlockTimes(len(rows), estep, mstep, time_product())


def _split(rows: Rows, count: int) -> list[Rows]:
    return np.split(rows, range(count, len(rows), count))


def fastest_product(clock: Clock) -> Callable[[], float]:
    """Return a function that times a matrix product of 4096^3, by the fastest of torch's ways that
    has the precision of float32.
    """
    shape = (PRODUCT, PRODUCT)
    a, b, c = torch.randn(shape), torch.randn(shape), torch.empty(shape)
    exact = a[:1].double() @ b.double()

    def seconds(precision: str) -> float:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(precision)
        duration = time_call(partial(torch.mm, a, b, out=c), clock=clock)
        torch.set_float32_matmul_precision(before)
        return duration

    def seconds_if_precise(precision: str) -> float:
        fastest = min(seconds(precision) for _ in range(2))
        error = float((c[:1] - exact).norm() / exact.norm())
        return fastest if error < FLOAT32_ERROR else math.inf

    best = min(("highest", "high", "medium"), key=seconds_if_precise)
    return lambda: seconds(best)
