"""TVAE training beside its dense bound: what the dense algorithm's matrix products alone would take
on this machine.

The dense algorithm decodes every kept and every new state of every row, and takes the gradient
through all kept ones. Its bound is that floating-point work divided by the best float32 rate of a
matrix product, 4096^3, in this process.
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from distvae.bench.row import keep_row
from distvae.config import Config, from_dict
from distvae.data.dataset import Array
from distvae.data.examples import scene
from distvae.data.signals import read
from distvae.data.windows.patches import Grid
from distvae.estep import assemble
from distvae.estep.truncated import Search
from distvae.files.memory import peak_memory
from distvae.interface import Batch, prepare
from distvae.models.population import tabulate
from distvae.numerics.lanes import Lanes
from distvae.numerics.noise import Noise, order
from distvae.train.bits import agree_on_arithmetic
from distvae.train.loop import Trainer

SIDE = 256
PRODUCT = 4096
FLOAT32 = (
    1e-5  # relative error of a product in float32; in bfloat16, which some ways fall to, it is 2e-3
)
BATCH, BLOCK = 32, 1024

Clock = Callable[[], float]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Case:
    """One of the paper's configurations for House."""

    widths: tuple[int, int, int]
    """Of the states, the hidden layer, the data."""
    states: int
    parents: int
    children: int
    generations: int
    sigma: float
    """Of the noise in the picture, in grey levels."""

    @property
    def work(self) -> float:
        """Floating-point operations of the dense algorithm for one row; states need no gradient."""
        layers = [2 * a * b for a, b in pairwise(self.widths)]
        new = self.parents * self.children * self.generations
        return (self.states + new) * sum(layers) + self.states * (3 * sum(layers) - layers[0])


CASES = {
    "big": Case((512, 512, 144), states=64, parents=5, children=4, generations=1, sigma=50.0),
    "small": Case((64, 64, 64), states=200, parents=10, children=9, generations=4, sigma=25.0),
}
SIZES = {
    "big": CASES["big"],
    "s64": replace(CASES["small"], states=64, parents=5, children=4, generations=1),
}
"""The larger of these, and one of as many states with a narrow net."""


class Times(NamedTuple):
    """Seconds of a block of rows, and of a matrix product beside it."""

    rows: int
    estep: float
    mstep: float
    product: float


def report(
    picture: Path | None, rows: int, epochs: int, threads: int, as_json: bool, keep: Path | None
) -> None:
    """Print what each case takes, and keep it where wanted."""
    how = {"rows": rows, "epochs": epochs, "threads": threads}
    for name, case in CASES.items():
        with ProcessPoolExecutor(
            1, get_context("spawn")
        ) as fresh:  # whose peak memory is the case's own
            figures = fresh.submit(measure, case, picture, rows, epochs, threads).result()
        print(
            json.dumps({"case": name} | how | figures) if as_json else _told(name, figures),
            flush=True,
        )
        if keep:
            keep_row(keep, f"tvae-{name}", figures, how)


def _told(name: str, f: dict[str, float]) -> str:
    return (
        f"{name}: {f['epoch_s']:.1f} s for an epoch of {f['all_rows']:.0f} rows: E-step"
        f" {f['estep_s']:.1f} s, M-step {f['mstep_s']:.1f} s\n  {f['ratio']:.2f} of its dense"
        f" bound, {f['dense_s']:.1f} s at {f['gflops']:.0f} GFLOP/s\n  {100 * f['distinct']:.0f} %"
        f" of a batch's states distinct; peak memory {f['peak_gb']:.2f} GB"
    )


def measure(
    case: Case, picture: Path | None, rows: int, epochs: int, threads: int
) -> dict[str, float]:
    """Train for some epochs, then time one more in turns with matrix products.

    One thread is timed by its own clock, on which others on the machine do not count; more by the
    clock on the wall.
    """
    torch.set_num_threads(threads)
    data = patches(case, picture)
    trainer = _trainer(case, data[order(0, 0, len(data))[:rows]], epochs)
    for _ in trainer.run():
        pass
    held = peak_memory()  # before the operands of the products add to it
    times = list(_timed(trainer, time.process_time if threads == 1 else time.perf_counter))
    scale = len(data) / sum(t.rows for t in times)
    estep, mstep = scale * sum(t.estep for t in times), scale * sum(t.mstep for t in times)
    rate = 2 * PRODUCT**3 / min(t.product for t in times)
    dense = len(data) * case.work / rate
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
        "peak_gb": held / 1e9,
    }


def patches(case: Case, picture: Path | None) -> Array:
    """(N, D) all patches of a picture under noise, standardised."""
    clean = scene(SIDE) if picture is None else read(picture).values.astype(np.float64).mean(-1)
    noisy = clean + np.random.default_rng(0).normal(0, case.sigma, clean.shape)
    side = int(case.widths[-1] ** 0.5)
    standard = (noisy[..., None] - noisy.mean()) / noisy.std()
    return Grid((*clean.shape, 1), (side, side)).cut(standard.astype(np.float32))


def settings(case: Case, epochs: int) -> Config:
    """For standardised data, on which 20 epochs of few rows are training."""
    search = {
        name: getattr(case, name) for name in ("states", "parents", "children", "generations")
    }
    return from_dict(
        {
            "model": {
                "kind": "tvae",
                "latent": case.widths[0],
                "hidden": [case.widths[1]],
                "variance": 1.0,
            },
            "estep": search | {"block": BLOCK},
            "train": {
                "epochs": epochs,
                "batch": BATCH,
                "rate": 0.003,
                "warmup": 0,
                "device": "cpu",
            },
        }
    )


def _trainer(case: Case, rows: Array, epochs: int) -> Trainer:
    config = settings(case, epochs)
    agree_on_arithmetic(replace(config.train, threads=None)).apply()
    model, estep = assemble(config, rows.shape[1])
    prepare(estep, [torch.from_numpy(rows)], Lanes(len(rows), 1).held(), 0)
    return Trainer(config.train, model, estep, rows, rows)


def _timed(trainer: Trainer, clock: Clock) -> Iterator[Times]:
    """One epoch, block by block."""
    product = _fastest_product(clock)
    assert isinstance(trainer.estep, Search)
    for rows in _cut(np.arange(len(trainer.train)), BLOCK):
        noise = Noise(0, trainer.position.epoch, torch.from_numpy(rows))
        batch = Batch(torch.from_numpy(trainer.train[rows]), noise.row)
        estep = _seconds(clock, trainer.estep.search_block, trainer.model, batch, noise)
        mstep = sum(_seconds(clock, trainer.step, part) for part in _cut(rows, BATCH))
        yield Times(len(rows), estep, mstep, product())


def _cut(rows: Rows, count: int) -> list[Rows]:
    return np.split(rows, range(count, len(rows), count))


def _fastest_product(clock: Clock) -> Callable[[], float]:
    """Times a matrix product by the fastest of torch's ways to do it that has the precision of
    float32.
    """
    a, b, c = (
        torch.randn(PRODUCT, PRODUCT),
        torch.randn(PRODUCT, PRODUCT),
        torch.empty(PRODUCT, PRODUCT),
    )
    true = a[:1].double() @ b.double()

    def timed(precision: str) -> float:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(precision)
        seconds = _seconds(clock, partial(torch.mm, a, b, out=c))
        torch.set_float32_matmul_precision(before)
        return seconds

    def judged(precision: str) -> float:
        seconds = min(timed(precision) for _ in range(2))
        return seconds if float((c[:1] - true).norm() / true.norm()) < FLOAT32 else math.inf

    best = min(("highest", "high", "medium"), key=judged)
    return lambda: timed(best)


def _seconds(clock: Clock, function: Callable[..., object], *operands: object) -> float:
    began = clock()
    function(*operands)
    return clock() - began
