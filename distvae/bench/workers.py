"""Time two workers beside one, by torchrun and under Ray, for TVAE and for a speech model.

Each way of training is a command with one thread per worker, and all of them resume copies of one
trained run. They take turns of two epochs, of which the second is timed, so that all meet the same
load. Two independent processes, each with an epoch of its own, show what the machine allows at
best. Some ways have twice the batch, so that each worker has as many rows a step as one process has
alone, or four times.
"""

import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from distvae.bench.output import Output
from distvae.bench.paused import PausedTraining, Turn, take_turn
from distvae.bench.timing import spread
from distvae.bench.tvae import SIZES, noisy_patches, tvae_config
from distvae.config import Config, from_dict, to_dict
from distvae.config.recipes import load
from distvae.data import open_dataset
from distvae.data.dataset import Array
from distvae.data.tables.ingest import Division, ingest
from distvae.files.refusal import Refusal
from distvae.numerics.array_types import Doubles
from distvae.numerics.noise import order
from distvae.train.run import read_epochs
from distvae.train.session import fit
from distvae.train.stopping import Interrupted

QUIET = 0.9
"""The share of two processors that two independent processes have on a quiet machine, at least."""
SPEECH = "speech-sdm"
BINS = 513
"""Bins of a spectrum of speech."""
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
    larger: int = 1
    """The batch is so many times as large, and learning rates are scaled by the root of that."""


WAYS = {
    "plain": Way(),
    "apart": Way(copies=2),
    "torchrun": Way(launcher=TORCHRUN),
    "ray1": Way(options=("--workers", "1")),
    "ray2": Way(options=("--workers", "2")),
    "torchrun_double": Way(launcher=TORCHRUN, larger=2),
    "ray2_double": Way(options=("--workers", "2"), larger=2),
    "torchrun_fourfold": Way(launcher=TORCHRUN, larger=4),
    "ray2_fourfold": Way(options=("--workers", "2"), larger=4),
}
TWO_WORKERS = tuple(way for way in WAYS if way.startswith(("torchrun", "ray2")))


class Extent(NamedTuple):
    """Size of the training."""

    rows: int
    epochs: int
    """Epochs of the run that all ways resume."""
    turns: int
    batch: int


class Subject(NamedTuple):
    """Model and data of the training."""

    data: Array
    """Rows to train on."""
    config: Config
    """Its data are replaced by these rows."""


def bench_workers(
    cases: Sequence[str], picture: Path | None, extent: Extent, output: Output
) -> None:
    """Time each way of training, for each size of TVAE and for a speech model."""
    for unknown in {*cases} - {*SIZES, SPEECH}:
        raise Refusal(f"{unknown}: no such case; {', '.join([*SIZES, SPEECH])} expected")
    settings = extent._asdict()
    for name, subject in subjects(picture, extent):
        if cases and name not in cases:
            continue
        with TemporaryDirectory(prefix="distvae-bench-") as folder:
            prepare_run(subject, extent.epochs, Path(folder))
            figures = measure_workers(extent.turns, Path(folder))
        output.show({"case": name, **settings, **figures}, describe_workers(name, figures))
        facts = {"section": "Two workers"}
        output.keep(f"workers-{name}-batch-{extent.batch}", figures, settings, facts)


def subjects(picture: Path | None, extent: Extent) -> Iterator[tuple[str, Subject]]:
    """Yield what is trained, and its name."""
    epochs = extent.epochs + 4 * extent.turns + 4  # more than each way takes
    for name, size in SIZES.items():
        case = replace(size, batch=extent.batch)
        patches = noisy_patches(case, picture)
        chosen = patches[order(0, 0, len(patches))[: extent.rows]]
        yield name, Subject(chosen, tvae_config(case, epochs))
    settings = {"train.epochs": epochs, "train.batch": extent.batch, "train.device": "cpu"}
    yield SPEECH, Subject(_spectra(extent.rows), load(SPEECH, settings))


def _spectra(rows: int) -> Array:
    """Return random power spectra, (rows, BINS)."""
    return np.random.default_rng(0).exponential(size=(rows, BINS)).astype(np.float32)


def describe_workers(name: str, f: dict[str, float]) -> str:
    """Return the figures in words."""
    lines = [f"{name}, seconds of an epoch: median (least to most), and of processors"]
    for way in WAYS:
        wall = f"{f[f'{way}_s']:6.2f} ({f[f'{way}_s_min']:.2f} to {f[f'{way}_s_max']:.2f})"
        processor = f"{f[f'{way}_processor_s']:6.2f}"
        lines.append(f"  {way:15} {wall:24} {processor}; started in {f[f'{way}_start_s']:.0f} s")
    lines.append(f"  two independent processes do {f['apart_gain']:.2f} times what one does")
    for way in TWO_WORKERS:
        gain, share = f[f"{way}_gain"], f[f"{way}_share"]
        lines.append(f"  {way}: {gain:.2f} times, {share:.0%} of that")
    lines.append(f"  ray1: {f['ray1_gain']:.2f} times what one process does")
    lines.append(f"  objectives differ by at most {f['differ']:.1e} of their size")
    if f["processors"] < QUIET:
        lines.append(
            f"  the machine was too busy to tell: two independent processes had"
            f" {f['processors']:.0%} of two processors"
        )
    return "\n".join(lines)


def measure_workers(turns: int, folder: Path) -> dict[str, float]:
    """Return figures of each way over several turns, and ratios within turns."""
    with ExitStack() as stack:
        groups = {way: list(_start(way, folder, stack)) for way in WAYS}
        starts = {way: group[0].seconds_to_start for way, group in groups.items()}
        results: dict[str, list[Turn]] = {way: [] for way in WAYS}
        for _ in range(turns):
            for way, group in groups.items():
                results[way].append(take_turn(group))
        exact = [group[0].run for way, group in groups.items() if WAYS[way].larger == 1]
        objectives = objectives_of(exact)
    figures: dict[str, float] = {}
    for way, taken in results.items():
        walls = [turn.wall for turn in taken]
        figures |= spread({f"{way}_s": walls})
        figures[f"{way}_processor_s"] = median(turn.processor for turn in taken)
        figures[f"{way}_start_s"] = starts[way]
    figures |= compare(results)
    differences = np.ptp(objectives, axis=0) / np.abs(objectives[0])
    return figures | {"differ": float(differences.max())}


def _start(name: str, folder: Path, stack: ExitStack) -> Iterator[PausedTraining]:
    """Start a way of training on copies of the run, and stop it after its first epoch."""
    way = WAYS[name]
    for k in range(way.copies):
        run = folder / f"{name}-{k}"
        shutil.copytree(folder / run_name(way.larger), run)
        train = ["train", str(run / "config.yaml"), "--resume", "--out", str(run), *way.options]
        quiet = ["--quiet", "--no-track", "--no-evaluate"]
        words = [sys.executable, *way.launcher, *PYTHON_MODULE, *train, *quiet]
        training = PausedTraining(run, words)
        stack.callback(training.end)
        training.start()
        yield training


def compare(results: dict[str, list[Turn]]) -> dict[str, float]:
    """Return medians of ratios of epochs of the same turn."""
    found: dict[str, float] = {}
    plain, apart = results["plain"], results["apart"]
    for way in ("ray1", *TWO_WORKERS):
        pairs = list(zip(plain, apart, results[way], strict=True))
        found[f"{way}_gain"] = median(one.wall / turn.wall for one, _, turn in pairs)
        found[f"{way}_share"] = median(both.wall / 2 / turn.wall for _, both, turn in pairs)
    found["apart_gain"] = median(
        2 * one.wall / both.wall for one, both in zip(plain, apart, strict=True)
    )
    found["processors"] = median(turn.processor / 2 / turn.wall for turn in apart)
    return found


def objectives_of(runs: list[Path]) -> Doubles:
    """Return the training objectives (runs, epochs) of the epochs that all runs have."""
    found = [[epoch["train_objective"] for epoch in read_epochs(run)] for run in runs]
    common = min(map(len, found))
    return np.array([objectives[:common] for objectives in found])


def prepare_run(subject: Subject, epochs: int, folder: Path) -> None:
    """Write rows into a folder, and a run for each size of batch, trained for some epochs."""
    config = write_rows(subject, folder)
    for larger in sorted({way.larger for way in WAYS.values()}):
        train_run(with_batch(config, larger), epochs, folder / run_name(larger))


def run_name(larger: int) -> str:
    """Return the name of the trained run that ways with such a batch continue copies of."""
    return f"run-{larger}"


def write_rows(subject: Subject, folder: Path) -> Config:
    """Write rows into a folder; return the configuration that trains on them."""
    np.save(folder / "rows.npy", subject.data)
    ingest([folder / "rows.npy"], folder / "rows", Division(val=0.0, test=0.0), quiet=True)
    tree = to_dict(subject.config) | {"data": {"kind": "rows", "path": str(folder / "rows")}}
    return from_dict(tree)


def with_batch(config: Config, factor: int) -> Config:
    """Return the configuration with a larger batch, and learning rates scaled by the root."""
    if factor == 1:
        return config
    batch = config.train.batch
    return config.with_("train", batch=factor * batch, base_batch=batch, scale_rate="root")


def train_run(config: Config, epochs: int, run: Path) -> None:
    """Train a run for some epochs of those that it is configured for."""

    def has_trained() -> bool:
        return len(read_epochs(run)) >= epochs

    dataset = open_dataset(config.data, quiet=True)
    with suppress(Interrupted):
        for _ in fit(config, dataset, run, recipe="bench", stop=has_trained):
            pass
