"""Measure how an epoch of a TVAE grows with the rows, the latents, the values and the states."""

import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch

from distvae.bench.output import Output
from distvae.bench.tvae import CASES, HouseCase, new_trainer, noisy_patches
from distvae.numerics.noise import order
from distvae.system.memory import peak_memory

ROWS = 8192
TIMED = 3
"""Epochs that are timed; the median counts."""
TWICE_VALUES = 289
"""Values of windows of 17 x 17, about twice as many as 12 x 12 have."""


class Growth(NamedTuple):
    """A case, and how many rows it has."""

    case: HouseCase
    rows: int = ROWS


def growths() -> dict[str, Growth]:
    """Return the case of House under noise of 50, and what has about twice as much of one thing."""
    base = CASES["big"]
    latent, hidden, values = base.widths
    return {
        "base": Growth(base),
        "N": Growth(base, 2 * ROWS),
        "H": Growth(replace(base, widths=(2 * latent, hidden, values))),
        "D": Growth(replace(base, widths=(latent, hidden, TWICE_VALUES))),
        "S": Growth(replace(base, states=2 * base.states)),
    }


def bench_growth(picture: Path | None, epochs: int, output: Output) -> None:
    """Time an epoch of each, in a process of its own, whose peak memory is that of it alone."""
    for name, growth in growths().items():
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            figures = process.submit(measure, growth, picture, epochs).result()
        settings = {"rows": growth.rows, "epochs": epochs, "states": growth.case.states}
        settings |= dict(zip(("latents", "hidden", "values"), growth.case.widths, strict=True))
        output.show({"case": name, **settings, **figures}, describe_growth(name, growth, figures))
        output.keep(f"growth-{name}", figures, settings)


def measure(growth: Growth, picture: Path | None, epochs: int) -> dict[str, float]:
    """Return the processor seconds of an epoch on one thread, after some epochs, and the memory."""
    torch.set_num_threads(1)
    data = noisy_patches(growth.case, picture)
    rows = data[order(0, 0, len(data))[: growth.rows]]
    del data
    trainer = new_trainer(growth.case, rows, epochs + TIMED)
    seconds = list(_seconds(trainer.run()))[epochs:]
    return {
        "epoch_s": median(seconds),
        "least_s": min(seconds),
        "most_s": max(seconds),
        "peak_gb": peak_memory() / 1e9,
    }


def _seconds(epochs: Iterator[object]) -> Iterator[float]:
    """Yield the processor time that each epoch took."""
    began = time.process_time()
    for _ in epochs:
        yield time.process_time() - began
        began = time.process_time()


def describe_growth(name: str, growth: Growth, figures: dict[str, float]) -> str:
    """Return the figures in words."""
    widths = "-".join(map(str, growth.case.widths))
    return (
        f"{name:>4}: {growth.rows:,} rows, {widths}, {growth.case.states} states:"
        f" {figures['epoch_s']:.2f} s an epoch ({figures['least_s']:.2f} to"
        f" {figures['most_s']:.2f}), peak memory {figures['peak_gb']:.2f} GB"
    )
