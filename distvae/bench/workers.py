"""Two workers beside one, by torchrun and under Ray: all go on from one trained state, in turns.

Each way is a command, one thread a worker. Times are of epochs alone: what it takes to start is
told apart. What the machine allows is seen from two processes at once that know nothing of each
other, each with an epoch of its own.
"""

import json
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

from distvae.bench.row import keep_row
from distvae.bench.tvae import SIZES, Case, patches, settings
from distvae.config import from_dict, to_dict
from distvae.data import open_dataset
from distvae.data.tables.ingest import ingest
from distvae.numerics.noise import order
from distvae.train.loop import Interrupted
from distvae.train.run import read_epochs
from distvae.train.session import fit

TIMED = 5  # epochs, after one that is not
DISTVAE = ["-m", "distvae"]
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


class Way(NamedTuple):
    """How a run is trained on."""

    start: tuple[str, ...] = ()
    """Of Python's words, what comes before the package."""
    options: tuple[str, ...] = ()
    """Of the command."""
    copies: int = 1
    """So many at once, each of a run of its own."""


WAYS = {
    "plain": Way(),
    "apart": Way(copies=2),
    "torchrun": Way(start=TORCHRUN),
    "ray1": Way(options=("--workers", "1")),
    "ray2": Way(options=("--workers", "2")),
}


class Turn(NamedTuple):
    """What one way took, once."""

    epoch: float
    """Seconds of an epoch."""
    start: float
    """Seconds of all but the epochs."""
    waits: float
    """The share of a step spent waiting for the store."""
    objective: float
    """At the end."""


def report(
    picture: Path | None, rows: int, epochs: int, turns: int, as_json: bool, keep: Path | None
) -> None:
    """Print what each way takes, and keep it where wanted."""
    how = {"rows": rows, "epochs": epochs, "turns": turns}
    for name, case in SIZES.items():
        with TemporaryDirectory(prefix="distvae-bench-") as folder:
            figures = measure(case, picture, rows, epochs, turns, Path(folder))
        print(
            json.dumps({"case": name} | how | figures) if as_json else _told(name, figures),
            flush=True,
        )
        if keep:
            keep_row(keep, f"workers-{name}", figures, how)


def _told(name: str, f: dict[str, float]) -> str:
    return (
        f"{name}: {f['plain_s']:.2f} s for an epoch of {f['rows']:.0f} rows by one process; two at"
        f" once that know nothing of each other do {2 * f['plain_s'] / f['apart_s']:.2f} times as"
        f" much\n  two workers are {f['plain_s'] / f['torchrun_s']:.2f} times as fast by torchrun,"
        f" {f['plain_s'] / f['ray2_s']:.2f} times under Ray; one under Ray"
        f" {f['plain_s'] / f['ray1_s']:.2f} times\n  of two under Ray {100 * f['ray2_waits']:.1f} %"
        f" of a step is waiting for the store\n  starting takes {f['plain_start_s']:.1f} s, by"
        f" torchrun {f['torchrun_start_s']:.1f}, under Ray {f['ray2_start_s']:.1f}\n  objectives"
        f" differ by {f['differ']:.1e} of their size at most"
    )


def measure(
    case: Case, picture: Path | None, rows: int, epochs: int, turns: int, folder: Path
) -> dict[str, float]:
    """Medians over the turns."""
    begin(case, picture, rows, epochs, folder)
    taken: dict[str, list[Turn]] = {way: [] for way in WAYS}
    for _ in range(turns):
        for way, told in taken.items():
            told.append(take(way, folder, rows))
    figures: dict[str, float] = {"rows": rows}
    for way, told in taken.items():
        figures[f"{way}_s"] = median(turn.epoch for turn in told)
        figures[f"{way}_start_s"] = median(turn.start for turn in told)
    figures["ray2_waits"] = median(turn.waits for turn in taken["ray2"])
    ends = [turn.objective for told in taken.values() for turn in told]
    return figures | {"differ": (max(ends) - min(ends)) / abs(ends[0])}


def begin(case: Case, picture: Path | None, rows: int, epochs: int, folder: Path) -> None:
    """Rows and a run in a folder, trained so far."""
    data = patches(case, picture)
    np.save(folder / "rows.npy", data[order(0, 0, len(data))[:rows]])
    ingest([folder / "rows.npy"], folder / "rows", val=0.0, test=0.0, quiet=True)
    tree = to_dict(settings(case, epochs + 1 + TIMED)) | {
        "data": {"kind": "rows", "path": str(folder / "rows")}
    }
    (folder / "bench.yaml").write_text(yaml.safe_dump(tree))
    config, run = from_dict(tree), folder / "run"
    dataset = open_dataset(config.data, quiet=True)
    with suppress(Interrupted):
        for _ in fit(
            config, dataset, run, recipe="bench", stop=lambda: len(read_epochs(run)) >= epochs
        ):
            pass


def take(way: str, folder: Path, rows: int) -> Turn:
    """Let copies of the run be trained to their ends; what one of them took."""
    runs = [folder / f"{way}-{k}" for k in range(WAYS[way].copies)]
    for run in runs:
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(folder / "run", run)
    began = time.perf_counter()
    training = [_begun(WAYS[way], folder, run) for run in runs]
    try:
        codes = [process.wait() for process in training]
    finally:
        for process in training:
            process.kill()
    if any(codes):
        raise subprocess.SubprocessError(f"{way}: training has failed")
    passed = time.perf_counter() - began
    records: list[dict[str, Any]] = read_epochs(runs[0])[-TIMED - 1 :]
    spent = [rows / record["rows_per_second"] for record in records]
    waits = sum(
        record.get(f"store_{what}_seconds", 0.0) for record in records for what in ("get", "put")
    )
    return Turn(
        median(spent[1:]), passed - sum(spent), waits / sum(spent), records[-1]["train_objective"]
    )


def _begun(way: Way, folder: Path, run: Path) -> subprocess.Popen[bytes]:
    """The command that trains a run to its end, which has begun."""
    quietly = ["--quiet", "--no-track", "--no-evaluate"]
    train = [
        "train",
        str(folder / "bench.yaml"),
        "--resume",
        "--out",
        str(run),
        *quietly,
        *way.options,
    ]
    return subprocess.Popen(
        [sys.executable, *way.start, *DISTVAE, *train], env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
