"""Time a training step, its matrix products, Adam, and a step by autograd, in one process.

Times are processor time of the calling thread, so that other processes hardly change them.
"""

import time
from collections.abc import Callable, Iterator
from statistics import median

import numpy as np
import torch
from torch import nn

from benchmarks.output import keep, parser_of, show
from benchmarks.training import new_trainer, time_call
from distvae.config import Config, Net
from distvae.config.recipes import load, recipe_names
from distvae.train.loop import Trainer

ROWS = 4096
WARM_UP = 10
"""Calls that are not timed."""


def dense_recipes() -> dict[str, Config]:
    """Return the recipes with a dense encoder and decoder, whose steps are matrix products."""
    recipes = {name: load(name) for name in recipe_names()}
    return {name: each for name, each in recipes.items() if _is_dense(each)}


def _is_dense(config: Config) -> bool:
    return all(
        isinstance(part, Net) and part.net == "flat" for part in (config.estep, config.model)
    )


def measure_steps(config: Config, steps: int) -> dict[str, float]:
    """Return median times of a step, of a step by autograd, of its matrix products and of Adam.

    The measurements alternate, so that the state of the machine affects all of them. `share` is the
    share of the products and of Adam in the time of a step.
    """
    trainer = trainer_on_noise(config)
    plain = trainer_on_noise(config.with_("train", gradients="autograd"))
    batch = config.train.batch
    rows, products = np.arange(batch), list(matrix_products(trainer, batch))
    factors = [(torch.randn(m, k), torch.randn(k, n)) for m, k, n in products]
    places = [torch.empty(m, n) for m, _, n in products]

    def multiply() -> None:
        for (a, b), place in zip(factors, places, strict=True):
            torch.mm(a, b, out=place)

    timed: dict[str, Callable[[], object]] = {
        "step": lambda: trainer.step(rows),
        "autograd": lambda: plain.step(rows),
        "products": multiply,
        "adam": trainer.adam.step,
    }
    times: dict[str, list[float]] = {name: [] for name in timed}
    for turn in range(WARM_UP + steps):
        for name, function in timed.items():
            seconds = time_call(function, time.thread_time)
            if turn >= WARM_UP:
                times[name].append(seconds)
    medians = {name: median(each) for name, each in times.items()}
    return {
        "batch": batch,
        **{f"{name}_us": 1e6 * seconds for name, seconds in medians.items()},
        "share": (medians["products"] + medians["adam"]) / medians["step"],
        "ratio": medians["step"] / medians["products"],
        "rows_per_second": batch / medians["step"],
    }


def trainer_on_noise(config: Config) -> Trainer:
    """Return the trainer of a configuration, on random data of its shape."""
    x = np.random.default_rng(0).random((ROWS, config.data.dims), dtype=np.float32)
    return new_trainer(config.with_("train", device="cpu"), x, x[:1])


def matrix_products(trainer: Trainer, rows: int) -> Iterator[tuple[int, int, int]]:
    """Yield m, k, n of the matrix products of a step: each linear layer forward, and the gradients
    of its weights and of its input.
    """
    modules = [*trainer.estep.modules(), *trainer.model.modules()]
    layers = [module for module in modules if isinstance(module, nn.Linear)]
    for i, layer in enumerate(layers):
        yield rows, layer.in_features, layer.out_features
        yield layer.out_features, rows, layer.in_features
        if i > 0:  # the data needs no gradient
            yield rows, layer.out_features, layer.in_features


def main() -> None:
    """Run as a program."""
    parser, recipes = parser_of("steps", __doc__), dense_recipes()
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help=f"of {', '.join(recipes)}")
    parser.add_argument("--steps", type=int, default=200, help="steps to time")
    parser.add_argument("--threads", type=int, default=1, help="threads of the process")
    parsed = parser.parse_args()
    for unknown in {*parsed.recipes} - {*recipes}:
        parser.error(f"{unknown}: {', '.join(recipes)} expected")
    torch.set_num_threads(parsed.threads)
    for name in parsed.recipes or recipes:
        figures = measure_steps(recipes[name], parsed.steps)
        parts = ", ".join(
            f"{part} {figures[f'{part}_us']:.0f} us"
            for part in ("step", "autograd", "products", "adam")
        )
        ratio = f"{figures['ratio']:.2f} times its products"
        text = f"{name}, {figures['batch']:.0f} rows: {parts}; a step is {ratio}"
        settings = {"threads": parsed.threads, "steps": parsed.steps}
        show(parsed, {"recipe": name, **settings, **figures}, text)
        keep(parsed, name, figures, settings)


if __name__ == "__main__":
    main()
