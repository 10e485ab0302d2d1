"""Epochs on a device beside the time of their matrix products there, with what keeps a GPU waiting.

A machine lent for its GPU has torch and NumPy and little else, so this runs with these two alone:
`python -m distvae.bench.gpu`. All data are made here, in the right shapes.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from distvae.bench.counting import recorded, replayed, seconds_of, waits
from distvae.bench.row import keep_row
from distvae.bench.tvae import SIZES, Case, patches, settings
from distvae.config import Config, from_dict
from distvae.data.dataset import Array
from distvae.estep import assemble
from distvae.files.refusal import Refusal
from distvae.interface import prepare
from distvae.numerics.lanes import Lanes
from distvae.numerics.noise import order
from distvae.train.devices import select_device
from distvae.train.loop import BLOCK, Trainer
from distvae.train.team import ALONE

STEPS = 64  # of an epoch, in which products, launches and synchronisations are counted
EPOCHS = 1_000_000  # of a configuration: more than are ever trained here


@dataclass(frozen=True)
class How:
    """How the cases are timed."""

    device: str = "auto"
    rows: int = 60_000
    """To train on, at most."""
    epochs: int = 3
    """To time, after one that is not; the fastest counts."""
    threads: int = 1
    """Of the process."""

    def __post_init__(self) -> None:
        """Refuse to time nothing."""
        for name, value, least in (
            ("rows", self.rows, BLOCK),
            ("epochs", self.epochs, 1),
            ("threads", self.threads, 1),
        ):
            if value < least:
                raise Refusal(f"--{name}: {value}; {least} or more expected")


class Work(NamedTuple):
    """What one case trains, and on what."""

    config: Config
    rows: Array


def _encoded(model: Mapping[str, Any], estep: Mapping[str, Any], batch: int) -> Config:
    """Return the configuration of a model with an encoder."""
    train = {"epochs": EPOCHS, "batch": batch, "schedule": "constant", "warmup": 0}
    return from_dict(
        {"model": dict(model), "estep": {"kind": "amortised"} | dict(estep), "train": train}
    )


def _tvae(case: Case, rows: int) -> Work:
    """Return a case of TVAE on patches of a drawn scene."""
    data = patches(case, None)
    return Work(settings(case, EPOCHS), data[order(0, 0, len(data))[:rows]])


def _vsc(batch: int, rows: int) -> Work:
    """Return VSC of 784-400-200, as on MNIST."""
    net = {"hidden": [400], "activation": "relu"}
    model = {"kind": "vsc", "latent": 200, "likelihood": "bernoulli", "sharpness": 50} | net
    data = np.random.default_rng(0).random((rows, 784), dtype=np.float32)
    return Work(_encoded(model, {"input": "raw"} | net, batch), data)


def _sdm(batch: int, rows: int) -> Work:
    """Return SDM-VAE of the published sizes, as on power spectra of speech."""
    data = np.random.default_rng(0).standard_exponential((rows, 513), dtype=np.float32)
    return Work(_encoded({"kind": "sdm"}, {}, batch), data)


CASES: dict[str, Callable[[int], Work]] = {
    "big": lambda rows: _tvae(SIZES["big"], rows),
    "s64": lambda rows: _tvae(SIZES["s64"], rows),
    "vsc-32": lambda rows: _vsc(32, rows),
    "vsc-512": lambda rows: _vsc(512, rows),
    "sdm-128": lambda rows: _sdm(128, rows),
    "sdm-1024": lambda rows: _sdm(1024, rows),
}
"""By name, with the batch where there are several."""


def report(cases: Sequence[str], how: How, as_json: bool, keep: Path | None) -> None:
    """Print what each case takes, and keep it where wanted."""
    for name in cases:
        if name not in CASES:
            raise Refusal(f"bench gpu: '{name}'; {', '.join(CASES)} expected")
    torch.set_num_threads(how.threads)
    device = select_device(how.device)
    told: dict[str, int | str] = asdict(how) | {
        "device": _title(device),
        "torch": torch.__version__,
    }
    if not as_json:
        print(_title(device), _HEADER, sep="\n", flush=True)
    for name in cases or CASES:
        figures = measure(name, device, how)
        print(
            json.dumps({"case": name} | told | figures) if as_json else _line(name, figures),
            flush=True,
        )
        if keep:
            keep_row(
                keep,
                f"gpu-{name}" if device.type == "cuda" else f"gpu-{name}-on-cpu",
                figures,
                told,
            )


def _title(device: torch.device) -> str:
    """Return what a person calls the device."""
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


def _line(name: str, figures: Mapping[str, float]) -> str:
    """Return a row of the table; what only a GPU has is left out on other devices."""
    cells = (
        form.format(figures[key]) if key in figures else "-" for key, (_, form) in _COLUMNS.items()
    )
    return f"{name:10}" + "".join(f"{cell:>11}" for cell in cells)


def measure(name: str, device: torch.device, how: How) -> dict[str, float]:
    """Return the figures of a case: seconds are of an epoch; operations, launches, copies,
    synchronisations of a step.

    An epoch ends with the validation of one block of rows.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    trainer = trainer_of(CASES[name](how.rows), device)
    epoch = min(_epochs(trainer, how.epochs))
    held = (
        {"peak_gb": torch.cuda.max_memory_allocated(device) / 1e9} if device.type == "cuda" else {}
    )
    steps, shapes, operations = recorded(trainer, STEPS)
    products = replayed(shapes, device) * trainer.batches / steps
    figures = {
        "rows": float(len(trainer.train)),
        "batch": float(trainer.config.batch),
        "epoch_s": epoch,
        "products_s": products,
        "ratio": epoch / products,
        "gflop": 2e-9 * sum(b * m * k * n for b, m, k, n in shapes) * trainer.batches / steps,
        "rows_per_second": len(trainer.train) / epoch,
        "step_us": 1e6 * epoch / trainer.batches,
        "operations": operations / steps,
    }
    return figures | held | (waits(trainer, STEPS) if device.type == "cuda" else {})


def trainer_of(work: Work, device: torch.device) -> Trainer:
    """Return an untrained trainer on a device, which validates on the first block of its rows."""
    config, rows = work
    model, estep = assemble(config, rows.shape[1])
    blocks = [torch.from_numpy(rows)]
    held = Lanes.of(len(rows), config.train.batch).held()
    for part in (model, estep):
        prepare(part, blocks, held, config.train.seed)
    return Trainer(config.train, model, estep, rows, rows[:BLOCK], ALONE, device)


def _epochs(trainer: Trainer, count: int) -> list[float]:
    """Return the seconds of so many epochs, after one in which memory is found and kernels are
    chosen.
    """
    run = trainer.run()
    next(run)
    return [seconds_of(trainer.device, lambda: next(run)) for _ in range(count)]


def main(words: Sequence[str] | None = None) -> None:
    """Run as a program, where the command `distvae` lacks what it needs."""
    parser = argparse.ArgumentParser(prog="python -m distvae.bench.gpu", description=__doc__)
    parser.add_argument(
        "cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; all of them without one"
    )
    parser.add_argument("--device", default=How.device, choices=["auto", "cpu", "cuda"])
    for name in ("rows", "epochs", "threads"):
        parser.add_argument(f"--{name}", type=int, default=getattr(How, name))
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument(
        "--keep", type=Path, help="folder of rows for 'distvae results' to keep the figures in"
    )
    given = parser.parse_args(words)
    try:
        how = How(given.device, given.rows, given.epochs, given.threads)
        report(given.cases, how, given.json, given.keep)
    except Refusal as error:
        print(f"distvae: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
