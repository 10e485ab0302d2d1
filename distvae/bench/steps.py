"""Time a training step beside its matrix products, Adam and a step by autograd, in one process.

Times are processor time of the calling thread, so that other processes hardly change them.
"""

import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from distvae.bench.counting import untrained
from distvae.bench.output import Output
from distvae.bench.timing import time_call
from distvae.config import Config, Net
from distvae.config.recipes import load, recipe_names
from distvae.files.refusal import Refusal
from distvae.train.loop import Trainer

ROWS = 4096
WARM_UP = 10
"""Calls that are not timed."""
Shape = tuple[int, int, int]


def bench_steps(recipe: str | None, steps: int, threads: int, output: Output) -> None:
    """Time the steps of a recipe, or of all recipes with a dense encoder."""
    torch.set_num_threads(threads)
    if not output.json:
        columns = "".join(f"{name:>10}" for name in ("step", "autograd", "products", "Adam"))
        print(f"{'recipe':16}{'batch':>6}{columns}{'share':>7}{'ratio':>7}{'rows/s':>10}")
    for name, config in _dense_recipes(recipe).items():
        figures = measure_steps(config, steps)
        record: dict[str, int | float | str] = {"recipe": name, "threads": threads}
        record |= figures
        output.show(record, _format_row(name, figures))
        output.keep(name, figures, {"threads": threads, "steps": steps})


def _dense_recipes(recipe: str | None) -> dict[str, Config]:
    """Return the recipes with an encoder whose steps are matrix products, or the one named."""
    known = {name: load(name) for name in ([recipe] if recipe else recipe_names())}
    encoded = {name: config for name, config in known.items() if config.estep.kind == "amortised"}
    if not encoded:
        raise Refusal(
            f"{recipe}: has no encoder, and its steps wait for a search; 'distvae bench tvae' times"
            " both"
        )
    dense = {}
    for name, config in encoded.items():
        if _is_flat(config.estep) and _is_flat(config.model):
            dense[name] = config
    if not dense:
        raise Refusal(
            f"{recipe}: its steps are convolutions, but are compared with matrix products; net:"
            " flat expected"
        )
    return dense


def _is_flat(part: object) -> bool:
    return isinstance(part, Net) and part.net == "flat"


def _format_row(name: str, figures: dict[str, float]) -> str:
    times = ""
    for part in ("step", "autograd", "products", "adam"):
        times += f"{figures[f'{part}_us']:7.0f} us"
    return (
        f"{name:16}{figures['batch']:6.0f}{times}{figures['share']:7.2f}{figures['ratio']:7.2f}"
        f"{figures['rows_per_second']:10,.0f}"
    )


def measure_steps(config: Config, steps: int) -> dict[str, float]:
    """Return median times of a step, of the same by autograd, of its matrix products and of Adam.

    They take turns, so that all see the same state of the machine. `share` is that of the products
    and of Adam in a step.
    """
    trainer = trainer_on_noise(config)
    plain = trainer_on_noise(config.with_("train", gradients="autograd"))
    batch = config.train.batch
    rows, operands = np.arange(batch), _operands(trainer, batch)
    timed: list[Callable[[], None]] = [
        lambda: trainer.step(rows),
        lambda: plain.step(rows),
        lambda: multiply(operands),
        trainer.adam.step,
    ]
    medians = [statistics.median(times) for times in zip(*_in_turns(timed, steps), strict=True)]
    step, autograd, products, adam = medians
    return {
        "batch": batch,
        "step_us": 1e6 * step,
        "autograd_us": 1e6 * autograd,
        "products_us": 1e6 * products,
        "adam_us": 1e6 * adam,
        "share": (products + adam) / step,
        "ratio": step / products,
        "rows_per_second": batch / step,
    }


def _operands(trainer: Trainer, rows: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return factors and a place for each matrix product of a step."""
    operands = []
    for m, k, n in matrix_products(trainer, rows):
        operands.append((torch.randn(m, k), torch.randn(k, n), torch.empty(m, n)))
    return operands


def multiply(operands: list[tuple[Tensor, Tensor, Tensor]]) -> None:
    """Compute each product of two matrices into the third."""
    for a, b, c in operands:
        torch.mm(a, b, out=c)


def trainer_on_noise(config: Config) -> Trainer:
    """Return the trainer of a configuration, on random data of its shape."""
    x = np.random.default_rng(0).random((ROWS, config.data.dims), dtype=np.float32)
    return untrained(config, x, x[:1])


def matrix_products(trainer: Trainer, rows: int) -> Iterator[Shape]:
    """Yield the matrix products of a step: each linear layer forward, and the gradients of its
    weights and of its input.
    """
    layers: list[nn.Linear] = []
    for part in (trainer.estep, trainer.model):
        layers += [module for module in part.modules() if isinstance(module, nn.Linear)]
    for i, layer in enumerate(layers):
        yield rows, layer.in_features, layer.out_features
        yield layer.out_features, rows, layer.in_features
        if i > 0:  # the data needs no gradient
            yield rows, layer.out_features, layer.in_features


def _in_turns(functions: list[Callable[[], None]], count: int) -> Iterator[list[float]]:
    """Yield the processor time of one call of each function, many times, after a warm-up."""
    for function in functions:
        for _ in range(WARM_UP):
            function()
    for _ in range(count):
        yield [time_call(function, clock=time.thread_time) for function in functions]
