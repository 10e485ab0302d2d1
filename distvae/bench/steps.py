"""How long a training step takes beside the matrix products it cannot do without, timed in the same
process.
"""

import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from distvae.bench.row import keep_row
from distvae.config import Config
from distvae.config.recipes import load, recipe_names
from distvae.estep import assemble
from distvae.files.refusal import Refusal
from distvae.interface import prepare
from distvae.numerics.lanes import Lanes
from distvae.train.bits import agree_on_arithmetic
from distvae.train.loop import Trainer

ROWS = 4096
Shape = tuple[int, int, int]


def report(recipe: str | None, steps: int, threads: int, as_json: bool, keep: Path | None) -> None:
    """Print a row for each recipe, and keep it where wanted."""
    torch.set_num_threads(threads)
    if not as_json:
        print(f"{'recipe':16}{'batch':>6}{'step':>10}{'products':>10}{'ratio':>7}{'rows/s':>10}")
    for name, config in _encoded(recipe).items():
        row = measure(config, steps)
        print(
            json.dumps({"recipe": name, "threads": threads} | row) if as_json else _line(name, row)
        )
        if keep:
            keep_row(keep, name, row, {"threads": threads, "steps": steps})


def _encoded(recipe: str | None) -> dict[str, Config]:
    """The recipes with an encoder of matrices, whose steps are all there is; or the one named."""
    known = {name: load(name) for name in ([recipe] if recipe else recipe_names())}
    encoded = {name: config for name, config in known.items() if config.estep.kind == "amortised"}
    if not encoded:
        raise Refusal(
            f"{recipe}: has no encoder, and its steps wait for a search; 'distvae bench tvae' times"
            " both"
        )
    flat = {
        name: config
        for name, config in encoded.items()
        if config.estep.net == config.model.net == "flat"
    }
    if not flat:
        raise Refusal(
            f"{recipe}: its steps are convolutions, and are timed beside matrix products; net: flat"
            " expected"
        )
    return flat


def _line(name: str, row: dict[str, float]) -> str:
    times = f"{row['step_us']:7.0f} us{row['products_us']:7.0f} us{row['ratio']:7.2f}"
    return f"{name:16}{row['batch']:6.0f}{times}{row['rows_per_second']:10,.0f}"


def measure(config: Config, steps: int) -> dict[str, float]:
    """Median times of one step and of its matrix products, taken in turns so that both see the same
    machine.
    """
    trainer = trainer_on_noise(config)
    batch = config.train.batch
    rows = np.arange(batch)
    operands = [
        (torch.randn(m, k), torch.randn(k, n), torch.empty(m, n))
        for m, k, n in products(trainer, batch)
    ]
    timed: list[Callable[[], None]] = [
        lambda: trainer.step(rows),
        lambda: multiply(operands),
    ]
    step, gemm = (statistics.median(times) for times in zip(*_in_turns(timed, steps), strict=True))
    return {
        "batch": batch,
        "step_us": 1e6 * step,
        "products_us": 1e6 * gemm,
        "ratio": step / gemm,
        "rows_per_second": batch / step,
    }


def multiply(operands: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]) -> None:
    """Every product into its place."""
    for a, b, c in operands:
        torch.mm(a, b, out=c)


def trainer_on_noise(config: Config) -> Trainer:
    """The trainer of a configuration, on random data of its shape."""
    x = np.random.default_rng(0).random((ROWS, config.data.dims), dtype=np.float32)
    agree_on_arithmetic(replace(config.train, threads=None)).apply()
    model, estep = assemble(config, config.data.dims)
    prepare(estep, [torch.from_numpy(x)], Lanes(len(x), 1).held(), 0)
    return Trainer(config.train, model, estep, x, x[:1])


def products(trainer: Trainer, rows: int) -> Iterator[Shape]:
    """The matrix products of one step: each linear layer forward, its weights' gradient and its
    input's.
    """
    layers = [
        m
        for part in (trainer.estep, trainer.model)
        for m in part.modules()
        if isinstance(m, nn.Linear)
    ]
    for i, layer in enumerate(layers):
        yield rows, layer.in_features, layer.out_features
        yield layer.out_features, rows, layer.in_features
        if i > 0:  # the data needs no gradient
            yield rows, layer.out_features, layer.in_features


def _in_turns(functions: list[Callable[[], None]], count: int) -> Iterator[list[float]]:
    for function in functions:
        for _ in range(10):
            function()
    for _ in range(count):
        yield [_seconds(function) for function in functions]


def _seconds(function: Callable[[], None]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began
