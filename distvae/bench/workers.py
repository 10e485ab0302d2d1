"""Time two workers beside one, by torchrun and under Ray.

Each way of training is a command with one thread per worker, and all of them resume copies of one
trained run. Epochs are timed apart from starting the processes. Two independent processes, each
with an epoch of its own, show what the machine allows at best.
"""

import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import yaml

from distvae.bench.output import Output
from distvae.bench.tvae import SIZES, Case, noisy_patches, tvae_config
from distvae.config import from_dict, to_dict
from distvae.data import open_dataset
from distvae.data.tables.ingest import Division, ingest
from distvae.numerics.noise import order
from distvae.train.loop import Interrupted
from distvae.train.run import read_epochs
from distvae.train.session import fit

TIMED = 5
"""Epochs to time, after one that is not."""
PYTHON_MODULE = ("-m", "distvae")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


class Way(NamedTuple):
    """A way of training a run: the words of its command."""

    launcher: tuple[str, ...] = ()
    """Words between Python and the package."""
    options: tuple[str, ...] = ()
    """Options of `distvae train`."""
    copies: int = 1
    """Number of independent processes at once, each with a run of its own."""


WAYS = {
    "plain": Way(),
    "apart": Way(copies=2),
    "torchrun": Way(launcher=TORCHRUN),
    "ray1": Way(options=("--workers", "1")),
    "ray2": Way(options=("--workers", "2")),
}


class Turn(NamedTuple):
    """The times of one way of training, once."""

    epoch: float
    """Median seconds of an epoch."""
    start: float
    """Seconds of everything but the epochs."""
    waits: float
    """Share of a step spent waiting for the store."""
    objective: float
    """Training objective at the end."""


def bench_workers(picture: Path | None, rows: int, epochs: int, turns: int, output: Output) -> None:
    """Time each way of training, for each size of TVAE."""
    settings = {"rows": rows, "epochs": epochs, "turns": turns}
    for name, case in SIZES.items():
        with TemporaryDirectory(prefix="distvae-bench-") as folder:
            prepare_run(case, picture, rows, epochs, Path(folder))
            figures = measure_workers(rows, turns, Path(folder))
        output.show({"case": name, **settings, **figures}, _describe_speedups(name, figures))
        output.keep(f"workers-{name}", figures, settings)


def _describe_speedups(name: str, f: dict[str, float]) -> str:
    def speedup(way: str) -> str:
        return f"{f['plain_s'] / f[f'{way}_s']:.2f}"

    lines = [
        f"{name}: {f['plain_s']:.2f} s for an epoch of {f['rows']:.0f} rows by one process; two"
        f" independent processes do {2 * f['plain_s'] / f['apart_s']:.2f} times as much",
        f"  two workers are {speedup('torchrun')} times as fast by torchrun,"
        f" {speedup('ray2')} times under Ray; one under Ray {speedup('ray1')} times",
        f"  two workers under Ray wait for the store {100 * f['ray2_waits']:.1f} % of a step",
        f"  starting takes {f['plain_start_s']:.1f} s, by torchrun {f['torchrun_start_s']:.1f},"
        f" under Ray {f['ray2_start_s']:.1f}",
        f"  objectives differ by at most {f['differ']:.1e} of their size",
    ]
    return "\n".join(lines)


def measure_workers(rows: int, turns: int, folder: Path) -> dict[str, float]:
    """Return median times of each way, over several turns."""
    results: dict[str, list[Turn]] = {way: [] for way in WAYS}
    for _ in range(turns):
        for way, result in results.items():
            result.append(take_turn(way, folder, rows))
    figures: dict[str, float] = {"rows": rows}
    for way, result in results.items():
        figures[f"{way}_s"] = median(turn.epoch for turn in result)
        figures[f"{way}_start_s"] = median(turn.start for turn in result)
    figures["ray2_waits"] = median(turn.waits for turn in results["ray2"])
    objectives = [turn.objective for result in results.values() for turn in result]
    difference = max(objectives) - min(objectives)
    return figures | {"differ": difference / abs(objectives[0])}


def prepare_run(case: Case, picture: Path | None, rows: int, epochs: int, folder: Path) -> None:
    """Write rows and a run into a folder, and train the run for some epochs."""
    data = noisy_patches(case, picture)
    np.save(folder / "rows.npy", data[order(0, 0, len(data))[:rows]])
    ingest([folder / "rows.npy"], folder / "rows", Division(val=0.0, test=0.0), quiet=True)
    tree = to_dict(tvae_config(case, epochs + 1 + TIMED))
    tree["data"] = {"kind": "rows", "path": str(folder / "rows")}
    (folder / "bench.yaml").write_text(yaml.safe_dump(tree))
    config, run = from_dict(tree), folder / "run"
    dataset = open_dataset(config.data, quiet=True)

    def has_trained() -> bool:
        return len(read_epochs(run)) >= epochs

    with suppress(Interrupted):
        for _ in fit(config, dataset, run, recipe="bench", stop=has_trained):
            pass


def take_turn(name: str, folder: Path, rows: int) -> Turn:
    """Train copies of the run to their ends, and return the times of the first copy."""
    way = WAYS[name]
    runs = [folder / f"{name}-{k}" for k in range(way.copies)]
    for run in runs:
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(folder / "run", run)
    start = time.perf_counter()
    processes = [_start_training(way, folder, run) for run in runs]
    try:
        codes = [process.wait() for process in processes]
    finally:
        for process in processes:
            process.kill()
    if any(codes):
        raise subprocess.SubprocessError(f"{name}: training has failed")
    duration = time.perf_counter() - start
    epochs: list[dict[str, Any]] = read_epochs(runs[0])[-TIMED - 1 :]
    seconds = [rows / epoch["rows_per_second"] for epoch in epochs]
    waits = 0.0
    for epoch in epochs:
        waits += epoch.get("store_get_seconds", 0.0) + epoch.get("store_put_seconds", 0.0)
    return Turn(
        epoch=median(seconds[1:]),
        start=duration - sum(seconds),
        waits=waits / sum(seconds),
        objective=epochs[-1]["train_objective"],
    )


def _start_training(way: Way, folder: Path, run: Path) -> subprocess.Popen[bytes]:
    """Start the command that trains a run to its end."""
    train = ["train", str(folder / "bench.yaml"), "--resume", "--out", str(run)]
    quiet = ["--quiet", "--no-track", "--no-evaluate"]
    command = [sys.executable, *way.launcher, *PYTHON_MODULE, *train, *quiet, *way.options]
    return subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})
