"""Time epochs on a device beside their matrix products, and count what a GPU waits for.

A borrowed GPU machine may have torch and NumPy and little else, so this needs only these two:
`python -m distvae.bench.gpu`. All data is generated, in the right shapes.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from distvae.bench.counting import (
    device_seconds,
    gpu_events_per_step,
    record_steps,
    replay_products,
)
from distvae.bench.output import Output
from distvae.bench.tvae import BATCH, SIZES, HouseCase, noisy_patches, tvae_config
from distvae.config import Config, Train, from_dict
from distvae.data.dataset import Array
from distvae.estep import assemble
from distvae.files.plain import Plain
from distvae.files.refusal import Refusal
from distvae.interface import prepare
from distvae.numerics.bands import divide
from distvae.numerics.noise import order
from distvae.train.batches import BLOCK
from distvae.train.bits import agree_on_arithmetic
from distvae.train.devices import select_device
from distvae.train.loop import Trainer
from distvae.train.team import ALONE

STEPS = 64
"""Steps in which products, launches and synchronisations are counted."""
EPOCHS = 1_000_000
"""Epochs in each configuration: more than are ever trained here."""


@dataclass(frozen=True)
class GpuSettings:
    """The device, and how long to train on it."""

    device: str = "auto"
    rows: int = 60_000
    """Maximum number of rows."""
    epochs: int = 3
    """Epochs to time after a warm-up epoch; the fastest counts."""
    threads: int = 1
    """Threads of the process."""
    graphs: bool = True
    """Record steps and replay them (`train.graphs`)."""
    tf32: bool = False
    """Multiply in TF32 (`train.tf32`)."""

    def __post_init__(self) -> None:
        """Refuse to time nothing."""
        minima = {"rows": BLOCK, "epochs": 1, "threads": 1}
        for name, minimum in minima.items():
            value = getattr(self, name)
            if value < minimum:
                raise Refusal(f"--{name}: {value}; {minimum} or more expected")


class GpuWork(NamedTuple):
    """The configuration and the rows that a case trains."""

    config: Config
    rows: Array


def _config(model: Mapping[str, Plain], estep: Mapping[str, Plain], batch: int) -> Config:
    """Return the configuration of a model and its E-step."""
    train = {"epochs": EPOCHS, "batch": batch, "schedule": "constant", "warmup": 0}
    return from_dict({"model": dict(model), "estep": dict(estep), "train": train})


def _tvae(case: HouseCase, rows: int) -> GpuWork:
    """Return a case of TVAE on patches of a drawn scene."""
    data = noisy_patches(case, None)
    return GpuWork(tvae_config(case, EPOCHS), data[order(0, 0, len(data))[:rows]])


def _bsc(rows: int) -> GpuWork:
    """Return binary sparse coding with 300 fields, as of natural patches, by least squares."""
    model: dict[str, Plain] = {
        "kind": "tvae",
        "latent": 300,
        "hidden": [],
        "linear_fit": "closed_form",
    }
    search: dict[str, Plain] = {"kind": "evolution", "states": 100}
    search |= {"parents": 8, "children": 7, "generations": 2}
    data = np.random.default_rng(0).standard_normal((rows, 50), dtype=np.float32)
    return GpuWork(_config(model, search, BATCH), data)


def _vsc(batch: int, rows: int) -> GpuWork:
    """Return VSC of 784-400-200, as on MNIST."""
    net: dict[str, Plain] = {"hidden": [400], "activation": "relu"}
    likelihood: dict[str, Plain] = {"likelihood": "bernoulli", "sharpness": 50}
    model = {"kind": "vsc", "latent": 200, **likelihood, **net}
    data = np.random.default_rng(0).random((rows, 784), dtype=np.float32)
    return GpuWork(_config(model, {"kind": "amortised", "input": "raw", **net}, batch), data)


def _sdm(batch: int, rows: int) -> GpuWork:
    """Return SDM-VAE of the published sizes, as on power spectra of speech."""
    data = np.random.default_rng(0).standard_exponential((rows, 513), dtype=np.float32)
    return GpuWork(_config({"kind": "sdm"}, {"kind": "amortised"}, batch), data)


CASES: dict[str, Callable[[int], GpuWork]] = {
    "big": lambda rows: _tvae(SIZES["big"], rows),
    "s64": lambda rows: _tvae(SIZES["s64"], rows),
    "bsc": _bsc,
    "vsc-32": lambda rows: _vsc(32, rows),
    "vsc-512": lambda rows: _vsc(512, rows),
    "sdm-128": lambda rows: _sdm(128, rows),
    "sdm-1024": lambda rows: _sdm(1024, rows),
}
"""The cases by name, which ends in the batch size where there are several."""


def bench_gpu(cases: Sequence[str], settings: GpuSettings, output: Output) -> None:
    """Time some cases, or all of them."""
    for name in cases:
        if name not in CASES:
            raise Refusal(f"bench gpu: '{name}'; {', '.join(CASES)} expected")
    device = select_device(settings.device)
    arithmetic = Train(threads=settings.threads, tf32=settings.tf32)
    agree_on_arithmetic(arithmetic, device).apply()
    described: dict[str, int | str] = asdict(settings)
    described |= {"device": _device_name(device), "torch": torch.__version__}
    if not output.json:
        print(_device_name(device), _HEADER, sep="\n", flush=True)
    for name in cases or CASES:
        figures = measure_case(name, device, settings)
        output.show({"case": name, **described, **figures}, _format_row(name, figures))
        row = f"gpu-{name}" if device.type == "cuda" else f"gpu-{name}-on-cpu"
        row += "" if settings.graphs else "-without-graphs"
        row += "-tf32" if settings.tf32 else ""
        output.keep(row, figures, described)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


_COLUMNS = {
    "batch": ("batch", "{:.0f}"),
    "epoch_s": ("epoch s", "{:.2f}"),
    "products_s": ("products s", "{:.3f}"),
    "ratio": ("ratio", "{:.1f}"),
    "rows_per_second": ("rows/s", "{:,.0f}"),
    "step_us": ("step us", "{:.0f}"),
    "operations": ("ops/step", "{:.0f}"),
    "launches": ("launches", "{:.0f}"),
    "copies": ("copies", "{:.1f}"),
    "synchronisations": ("syncs", "{:.1f}"),
    "peak_gb": ("peak GB", "{:.2f}"),
}
_HEADER = f"{'case':10}" + "".join(f"{title:>11}" for title, _ in _COLUMNS.values())


def _format_row(name: str, figures: Mapping[str, float]) -> str:
    """Return a row of the table, with '-' for figures that only a GPU has."""
    cells = []
    for key, (_, form) in _COLUMNS.items():
        cells.append(form.format(figures[key]) if key in figures else "-")
    return f"{name:10}" + "".join(f"{cell:>11}" for cell in cells)


def measure_case(name: str, device: torch.device, settings: GpuSettings) -> dict[str, float]:
    """Return the figures of a case.

    Seconds are of an epoch, which ends with the validation of one block of rows; operations,
    launches, copies and synchronisations are of a step. Operations are those of a step that is not
    replayed.
    """
    is_cuda = device.type == "cuda"
    if is_cuda:
        torch.cuda.reset_peak_memory_stats(device)
    work = CASES[name](settings.rows)
    trainer = new_trainer(work, device, settings.graphs)
    epoch = min(_epoch_seconds(trainer, settings.epochs))
    memory = {"peak_gb": torch.cuda.max_memory_allocated(device) / 1e9} if is_cuda else {}
    # What is replayed cannot be looked into.
    plain = new_trainer(work, device) if settings.graphs else trainer
    steps, shapes, operations = record_steps(plain, STEPS)
    products = replay_products(shapes, device) * trainer.batches / steps
    flops = 2 * sum(b * m * k * n for b, m, k, n in shapes)
    figures = {
        "rows": float(len(trainer.train)),
        "batch": float(trainer.config.batch),
        "epoch_s": epoch,
        "products_s": products,
        "ratio": epoch / products,
        "gflop": 1e-9 * flops * trainer.batches / steps,
        "rows_per_second": len(trainer.train) / epoch,
        "step_us": 1e6 * epoch / trainer.batches,
        "operations": operations / steps,
    }
    events = gpu_events_per_step(trainer, STEPS) if is_cuda else {}
    return figures | memory | events


def new_trainer(work: GpuWork, device: torch.device, graphs: bool = False) -> Trainer:
    """Return an untrained trainer on a device, which validates on the first block of its rows."""
    config, rows = work
    config = config.with_("train", graphs=graphs)
    model, estep = assemble(config, rows.shape[1])
    blocks = [torch.from_numpy(rows)]
    held = divide(len(rows), config.train.batch).held()
    for part in (model, estep):
        prepare(part, blocks, held, config.train.seed)
    return Trainer(config.train, model, estep, rows, rows[:BLOCK], ALONE, device)


def _epoch_seconds(trainer: Trainer, count: int) -> list[float]:
    """Return the seconds of each epoch, after one in which memory is found and kernels chosen."""
    run = trainer.run()
    next(run)
    return [device_seconds(trainer.device, lambda: next(run)) for _ in range(count)]


def main(words: Sequence[str] | None = None) -> None:
    """Run as a program, on machines that lack what the command `distvae` needs."""
    parser = argparse.ArgumentParser(prog="python -m distvae.bench.gpu", description=__doc__)
    parser.add_argument(
        "cases", nargs="*", metavar="CASE", help=f"one of {', '.join(CASES)}; default: all of them"
    )
    parser.add_argument("--device", default=GpuSettings.device, choices=["auto", "cpu", "cuda"])
    for name in ("rows", "epochs", "threads"):
        parser.add_argument(f"--{name}", type=int, default=getattr(GpuSettings, name))
    parser.add_argument(
        "--graphs",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="record steps and replay them",
    )
    parser.add_argument("--tf32", action="store_true", help="multiply in TF32")
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    parser.add_argument(
        "--keep", type=Path, help="keep the figures as rows of results in this folder"
    )
    parsed = parser.parse_args(words)
    try:
        settings = GpuSettings(
            parsed.device,
            parsed.rows,
            parsed.epochs,
            parsed.threads,
            parsed.graphs,
            parsed.tf32,
        )
        bench_gpu(parsed.cases, settings, Output(parsed.json, parsed.keep))
    except Refusal as error:
        print(f"distvae: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
