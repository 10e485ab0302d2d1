"""Time an epoch of TVAE against its dense bound, or against tvo, the code by the authors of TVAE.

The dense algorithm decodes every kept and every new state of every row, and takes the gradient
through all kept states. Its bound is the time of this floating-point work at the best float32 rate
of a matrix product, 4096^3, in this process.

`--beside` names a checkout of github.com/tvlearn/tvo (`pip install h5py munch cython setuptools`,
then `python setup.py build_ext -i` in its folder). tvo is imported unchanged, and continues from
the parameters and states of our trainer. The two programs take turns of some thousand rows, in one
process and with the same number of threads. The program that goes first alternates.

One thread is timed by its processor time, which other processes disturb less. Several threads are
timed by wall-clock time.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.output import keep, parser_of, show, spread
from benchmarks.training import Clock, new_trainer, time_call
from distvae.config import Config, from_dict
from distvae.data.dataset import Array
from distvae.data.signals import read_signal, scene
from distvae.data.windows import Grid
from distvae.estep.truncated import Search
from distvae.files.program import commit
from distvae.interface import Batch
from distvae.models.nets import FromBits
from distvae.models.population import MIN_PI, NEAR, unpack
from distvae.models.tvae import TVAE
from distvae.numerics.noise import Noise, order
from distvae.system import peak_memory
from distvae.train.loop import Interrupted, Trainer
from distvae.train.step import add

SIDE = 256
"""Pixels along the side of the drawn scene."""
PRODUCT = 4096
FLOAT32_ERROR = 1e-5
"""Relative error of a product in float32; in bfloat16, which torch may fall back to, it is 2e-3."""
BATCH = 32
TIMED = 3
"""Number of epochs whose blocks are timed."""
TURN = 4096
"""Rows of a turn beside tvo, equal to the largest block that is searched together."""
WARM_UP = 64
"""Rows of an untimed E-step of tvo."""
RATE = 0.003


@dataclass(frozen=True)
class HouseCase:
    """A configuration of the paper for House."""

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
"""The larger case, and a case with the same number of states and a narrow net."""


def noisy_patches(case: HouseCase, picture: Path | None) -> Array:
    """Return all patches of a noisy picture, (N, D), standardised."""
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
    search = {
        "states": case.states,
        "parents": case.parents,
        "children": case.children,
        "generations": case.generations,
        "block": case.block,
    }
    train = {"epochs": epochs, "batch": case.batch, "rate": RATE, "warmup": 0, "device": "cpu"}
    model = {"kind": "tvae", "latent": latent, "hidden": [hidden], "variance": 1.0}
    return from_dict({"model": model, "estep": search, "train": train})


def trained(case: HouseCase, rows: Array, epochs: int, more: int) -> Trainer:
    """Return a trainer after some epochs, configured for `more` further epochs. It validates on few
    rows.
    """
    trainer = new_trainer(tvae_config(case, epochs + more), rows, rows[:BATCH])
    run = trainer.run()
    for _ in range(epochs):
        next(run)
    return trainer


class BlockTimes(NamedTuple):
    """Seconds of a block of rows, and of a matrix product timed beside it."""

    rows: int
    estep: float
    mstep: float
    product: float


def measure_epoch(case: HouseCase, data: Array, parsed: argparse.Namespace) -> dict[str, float]:
    """Train for some epochs, then time the blocks of a few more epochs in turns with matrix
    products.

    Only whole blocks count, because a smaller block shares fewer states. The median block counts.
    """
    whole = parsed.rows // case.block * case.block or parsed.rows
    rows = data[order(0, 0, len(data))[:whole]]
    trainer = trained(case, rows, parsed.epochs, 0)
    memory = peak_memory()  # before the operands of the products add to it
    clock = clock_of(parsed.threads)
    product = fastest_product(clock)
    times = [block for _ in range(TIMED) for block in _time_blocks(trainer, clock, product)]
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
        "distinct": len(kept.flatten(0, 1).unique(dim=0)) / (BATCH * case.states),
        **_count_near(trainer.estep),
        "peak_gb": memory / 1e9,
    }


def clock_of(threads: int) -> Clock:
    """Return the clock for this number of threads."""
    return time.process_time if threads == 1 else time.perf_counter


def _time_blocks(
    trainer: Trainer, clock: Clock, time_product: Callable[[], float]
) -> Iterator[BlockTimes]:
    """Train one epoch, and yield the times of each block."""
    search, model = trainer.estep, trainer.model
    assert isinstance(search, Search)
    assert isinstance(model, TVAE)
    for rows in _split(np.arange(len(trainer.train)), search.block_size):
        noise = Noise(0, trainer.position.epoch, torch.from_numpy(rows))
        batch = Batch(torch.from_numpy(trainer.train[rows]), noise.row)
        estep = time_call(partial(search.search_block, model, batch, noise), clock)
        mstep = sum(time_call(partial(trainer.step, each), clock) for each in _split(rows, BATCH))
        yield BlockTimes(len(rows), estep, mstep, time_product())


def _split(rows: NDArray[np.int64], count: int) -> list[NDArray[np.int64]]:
    return np.split(rows, range(count, len(rows), count))


def _count_near(estep: Search) -> dict[str, float]:
    """Return the mean and the largest number of states within the horizon, over the last block."""
    assert estep.last_block is not None
    part = estep.last_block.states.part
    assert part is not None
    near = (part == NEAR).sum(1).double()
    return {"near": float(near.mean()), "near_most": float(near.max())}


def fastest_product(clock: Clock) -> Callable[[], float]:
    """Return a function that times a matrix product of 4096^3, by the fastest float32-precision
    method of torch.
    """
    shape = (PRODUCT, PRODUCT)
    a, b, c = torch.randn(shape), torch.randn(shape), torch.empty(shape)
    exact = a[:1].double() @ b.double()

    def seconds(precision: str) -> float:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(precision)
        duration = time_call(partial(torch.mm, a, b, out=c), clock)
        torch.set_float32_matmul_precision(before)
        return duration

    def seconds_if_precise(precision: str) -> float:
        fastest = min(seconds(precision) for _ in range(2))
        error = float((c[:1] - exact).norm() / exact.norm())
        return fastest if error < FLOAT32_ERROR else math.inf

    best = min(("highest", "high", "medium"), key=seconds_if_precise)
    return lambda: seconds(best)


def measure_beside(case: HouseCase, data: Array, parsed: argparse.Namespace) -> dict[str, float]:
    """Return the seconds of an epoch of ours and of tvo, and their ratio.

    Each program takes turns of the same number of rows, in its own order of rows. A ratio compares
    two consecutive turns. The bounds are the reported training bounds of both programs, in nats a
    row. They are close if both programs do the same work.
    """
    turn = min(TURN, parsed.rows // BATCH * BATCH)
    rows = data[order(0, 0, len(data))[: parsed.rows // turn * turn]]
    trainer = trained(case, rows, parsed.epochs, parsed.turns + 1)
    blocks = _tvo_blocks(case, trainer, turn)
    clock = clock_of(parsed.threads)
    product = fastest_product(clock)
    seconds: dict[str, list[float]] = {"peer_s": [], "ours_s": []}
    bounds: dict[str, list[float]] = {"peer_bound": [], "ours_bound": []}
    products = []

    def tvo(number: int) -> tuple[int, float]:
        return turn, float(blocks[number % len(blocks)].em_step()["train_F"])

    def ours(_: int) -> tuple[int, float]:
        first, gained = trainer.steps_taken(), -_objective_sum(trainer)
        with suppress(Interrupted):
            for epoch in trainer.run(lambda: trainer.steps_taken() >= first + turn // BATCH):
                gained += epoch.train_objective * len(rows)
        taken = (trainer.steps_taken() - first) * BATCH
        return taken, (gained + _objective_sum(trainer)) / taken

    for number in range(parsed.turns):
        pair = {"peer": tvo, "ours": ours}
        for name in pair if number % 2 == 0 else reversed(pair):
            start = clock()
            taken, bound = pair[name](number)
            seconds[f"{name}_s"].append((clock() - start) * len(data) / taken)
            bounds[f"{name}_bound"].append(bound)
        products.append(product())
    ratios = [peer / own for peer, own in zip(seconds["peer_s"], seconds["ours_s"], strict=True)]
    return {
        "all_rows": len(data),
        **dict(spread({**seconds, "speedup": ratios})),
        "gflops": 2e-9 * PRODUCT**3 / min(products),
        **{name: median(each) for name, each in bounds.items()},
    }


def _objective_sum(trainer: Trainer) -> float:
    """Return the sum of the objective over the rows of the current epoch so far."""
    add(trainer.total, trainer.eager.later_sums())
    return float(trainer.total.get("objective", 0.0))


def _tvo_blocks(case: HouseCase, trainer: Trainer, turn: int) -> list[Any]:
    """Return loops of tvo over the rows of each turn, from the state of a trainer."""
    model, estep, rows = trainer.model, trainer.estep, torch.from_numpy(trainer.train)
    assert isinstance(model, TVAE)
    assert isinstance(estep, Search)
    weights, biases = zip(*_layers_of(model), strict=True)
    theirs = import_module("tvo.models").GaussianTVAE(
        W_init=[weight.detach().clone().contiguous() for weight in weights],
        b_init=[bias.detach().clone() for bias in biases],
        pi_init=model.pi.clamp(MIN_PI, 1 - MIN_PI).detach(),  # as in ours; tvo refuses zero
        sigma2_init=float(model.likelihood.get_buffer("variance")),
        precision=torch.float32,
        min_lr=RATE,
        max_lr=RATE,
    )
    words = estep.store.get(torch.arange(len(rows)))

    def loop(chosen: Tensor) -> Any:
        states = import_module("tvo.variational").EVOVariationalStates(
            N=len(chosen),
            H=case.widths[0],
            S=case.states,
            precision=torch.float32,
            parent_selection="batch_fitparents",
            mutation="randflip",
            n_parents=case.parents,
            n_children=case.children,
            n_generations=case.generations,
        )
        states.K[:] = unpack(words[chosen], case.widths[0])
        loader = import_module("tvo.utils.data").TVODataLoader
        data = loader(rows[chosen], batch_size=BATCH, shuffle=True)
        return import_module("tvo.trainer").Trainer(theirs, data, states)

    loop(torch.arange(WARM_UP)).e_step()
    return [loop(chosen) for chosen in torch.arange(len(rows)).split(turn)]


def _layers_of(model: TVAE) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the weights (in, out) and the biases of the decoder's layers."""
    for layer in model.decoder:
        if isinstance(layer, FromBits):
            yield layer.weight, layer.bias
        elif isinstance(layer, nn.Linear):
            yield layer.weight.T, layer.bias


def describe_epoch(name: str, f: Mapping[str, float]) -> str:
    """Return the measurements of an epoch as text."""
    return (
        f"{name}: {f['epoch_s']:.1f} s for an epoch of {f['all_rows']:.0f} rows: E-step"
        f" {f['estep_s']:.1f} s, M-step {f['mstep_s']:.1f} s\n"
        f"  {f['ratio']:.2f} times its dense bound, {f['dense_s']:.1f} s at {f['gflops']:.0f}"
        f" GFLOP/s\n  {100 * f['distinct']:.0f} % of a batch's states distinct; {f['near']:.1f} of"
        f" a row within the horizon, at most {f['near_most']:.0f}; peak memory"
        f" {f['peak_gb']:.2f} GB"
    )


def describe_beside(name: str, f: Mapping[str, float]) -> str:
    """Return the measurements of both programs as text."""

    def told(figure: str) -> str:
        return f"{f[figure]:.1f} ({f[f'{figure}_min']:.1f} to {f[f'{figure}_max']:.1f})"

    return (
        f"{name}: seconds of an epoch of {f['all_rows']:.0f} rows: tvo {told('peer_s')}, ours"
        f" {told('ours_s')}\n  {told('speedup')} times as fast; {f['gflops']:.0f} GFLOP/s; bounds"
        f" {f['peer_bound']:.2f} and {f['ours_bound']:.2f}"
    )


def main() -> None:
    """Run as a program."""
    parser = parser_of("tvae", __doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}")
    parser.add_argument("--picture", type=Path, help="a grey picture; a drawn one without")
    parser.add_argument("--rows", type=int, default=8192, help="rows to train on (8192)")
    parser.add_argument("--epochs", type=int, default=20, help="epochs before the timed ones (20)")
    parser.add_argument("--threads", type=int, default=1, help="threads of the process (1)")
    parser.add_argument("--beside", type=Path, metavar="TVO", help="a checkout of tvo")
    parser.add_argument("--turns", type=int, default=5, help="turns of both (5)")
    parsed = parser.parse_args()
    for unknown in {*parsed.cases} - {*CASES}:
        parser.error(f"{unknown}: {', '.join(CASES)} expected")
    facts: dict[str, str] = {}
    measure, describe, row = measure_epoch, describe_epoch, "tvae-{}"
    if parsed.beside:
        if not (parsed.beside / "tvo" / "models" / "tvae.py").is_file():
            parser.error(f"--beside {parsed.beside}: a checkout of tvo expected")
        sys.path.insert(0, str(parsed.beside))
        facts = {"peer": f"tvo {commit(parsed.beside / 'README.md') or ''}".strip()}
        measure, describe, row = measure_beside, describe_beside, "tvae-{}-beside-tvo"
    torch.set_num_threads(parsed.threads)
    settings = {name: getattr(parsed, name) for name in ("rows", "epochs", "threads", "turns")}
    for name in parsed.cases or CASES:
        case = CASES[name]
        figures = measure(case, noisy_patches(case, parsed.picture), parsed)
        show(parsed, {"case": name, **facts, **settings, **figures}, describe(name, figures))
        keep(parsed, row.format(name), figures, {**settings, **facts})


if __name__ == "__main__":
    main()
