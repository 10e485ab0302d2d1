"""Time an epoch of two workers, of one process and of two independent processes in turns.

Each way of training is a command that resumes a copy of one run. Between its turns of two epochs,
its processes are stopped. Only the second epoch of a turn is timed, because in the first epoch the
memory of a stopped process returns into the caches of the processor, or from the disk. Processes
are identified by a variable in their environment, because Ray's processes do not descend from the
command.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import psutil

from benchmarks.output import keep, parser_of, show, spread
from benchmarks.tvae import SIZES, noisy_patches, tvae_config
from distvae.config import Config, from_dict, to_dict
from distvae.config.recipes import load
from distvae.data import open_dataset
from distvae.data.dataset import Array
from distvae.data.ingest import Division, ingest
from distvae.numerics.noise import order
from distvae.train.loop import Interrupted
from distvae.train.run_folder import read_epochs
from distvae.train.session import fit

QUIET = 0.9
"""The smallest share of two processors that two independent processes get on a quiet machine."""
SPEECH, SUPPORTS = "speech-sdm", "supports"
BINS = 513
"""Bins of a spectrum of speech."""
SPARSE = {"kind": "ssc", "latent": 1000, "limit": 16, "latents": "signed", "cycles": 0}
"""A model with updates in closed form, once an epoch."""
PATIENCE = 600.0
"""The longest duration of an epoch in seconds."""
POLL_SECONDS = 0.002
MARK = "DISTVAE_BENCH_MARK"
"""The variable that marks the processes of a training."""
PYTHON_MODULE = ("-m", "distvae")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


class Way(NamedTuple):
    """A way to train a run: the words of its command."""

    launcher: tuple[str, ...] = ()
    """Words between Python and the package."""
    options: tuple[str, ...] = ()
    """Options of `distvae train`."""
    copies: int = 1
    """Number of independent processes that run at once, each with its own run."""
    larger: int = 1
    """The factor of the batch. Learning rates are scaled by its root."""


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


class Subject(NamedTuple):
    """The model and data of a training."""

    data: Array
    config: Config
    """The benchmark's rows replace the data of this configuration."""


class Turn(NamedTuple):
    """An epoch: wall-clock seconds, and processor seconds of all its processes."""

    wall: float
    processor: float


class Training:
    """A command that trains into a run folder, stopped between its turns."""

    def __init__(self, run: Path, words: Sequence[str]) -> None:
        self.run, self.mark = run, f"{os.getpid()}-{run.name}"
        self.epochs = len(read_epochs(run))
        began = time.perf_counter()
        environment = os.environ | {"OMP_NUM_THREADS": "1", MARK: self.mark}
        self.command = subprocess.Popen(words, env=environment)
        self.await_epoch()
        self.stop()
        self.seconds_to_start = time.perf_counter() - began
        """Seconds from the command to the end of its first epoch."""

    def processes(self) -> Iterator[psutil.Process]:
        """Yield all its processes."""
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(MARK) == self.mark:
                    yield process

    def processor_seconds(self) -> float:
        """Return the processor time of all its processes."""
        total = 0.0
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def resume(self) -> None:
        """Continue its processes."""
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.resume()

    def stop(self) -> None:
        """Stop its processes. Waiting Ray processes would use a seventh of a processor."""
        for process in list(self.processes()):
            with suppress(psutil.NoSuchProcess):
                process.suspend()

    def end(self) -> None:
        """End all its processes."""
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.command.wait()

    def has_new_epoch(self) -> bool:
        """Return whether an epoch has ended since the last call."""
        if self.command.poll() is not None:
            sys.exit(f"{self.run.name} has ended with {self.command.returncode}")
        found = len(read_epochs(self.run))
        is_new, self.epochs = found > self.epochs, found
        return is_new

    def await_epoch(self) -> None:
        """Wait for the end of an epoch."""
        deadline = time.monotonic() + PATIENCE
        while not self.has_new_epoch():
            if time.monotonic() > deadline:
                sys.exit(f"{self.run.name} had no epoch in {PATIENCE:.0f} s")
            time.sleep(POLL_SECONDS)


def take_turn(trainings: Sequence[Training]) -> Turn:
    """Run trainings side by side until the second epoch of each has ended.

    Return the harmonic mean of their seconds, and the processor time of all trainings.
    """
    marks: list[list[Turn]] = [[] for _ in trainings]
    for training in trainings:
        training.resume()
    deadline = time.monotonic() + PATIENCE
    while any(len(each) < 2 for each in marks):
        for training, each in zip(trainings, marks, strict=True):
            if len(each) < 2 and training.has_new_epoch():
                each.append(Turn(time.perf_counter(), training.processor_seconds()))
        if time.monotonic() > deadline:
            sys.exit(f"no two epochs in {PATIENCE:.0f} s")
        time.sleep(POLL_SECONDS)
    for training in trainings:
        training.stop()
    turns = [Turn(b.wall - a.wall, b.processor - a.processor) for a, b in marks]
    wall = len(turns) / sum(1 / turn.wall for turn in turns)
    return Turn(wall, sum(turn.processor for turn in turns))


def subjects(picture: Path | None, rows: int, batch: int) -> Iterator[tuple[str, Subject]]:
    """Yield the names and subjects of the trainings."""
    epochs = 10_000  # more epochs than any way of training needs
    for name, size in SIZES.items():
        case = replace(size, batch=batch)
        patches = noisy_patches(case, picture)
        chosen = patches[order(0, 0, len(patches))[:rows]]
        yield name, Subject(chosen, tvae_config(case, epochs))
    settings = {"train.epochs": epochs, "train.batch": batch, "train.device": "cpu"}
    spectra = np.random.default_rng(0).exponential(size=(rows, BINS)).astype(np.float32)
    yield SPEECH, Subject(spectra, load(SPEECH, settings))
    windows = noisy_patches(replace(SIZES["big"], batch=batch), picture)
    train = {"epochs": epochs, "batch": batch, "device": "cpu"}
    tree = {"model": SPARSE, "estep": {"kind": "selection"}, "train": train}
    chosen = windows[order(0, 0, len(windows))[:rows]]
    yield SUPPORTS, Subject(chosen, from_dict(tree))


def prepare_runs(subject: Subject, epochs: int, folder: Path) -> None:
    """Write rows into a folder, and a run for each batch size, trained for some epochs."""
    np.save(folder / "rows.npy", subject.data)
    ingest([folder / "rows.npy"], folder / "rows", Division(val=0.0, test=0.0), quiet=True)
    tree = to_dict(subject.config) | {"data": {"kind": "rows", "path": str(folder / "rows")}}
    config = from_dict(tree)
    for larger in sorted({way.larger for way in WAYS.values()}):
        run, batch = folder / f"run-{larger}", config.train.batch
        scaled = {"batch": larger * batch, "base_batch": batch, "scale_rate": "root"}
        own = config.with_("train", **scaled) if larger > 1 else config
        with suppress(Interrupted):
            dataset = open_dataset(own.data, quiet=True)
            stop = lambda run=run: len(read_epochs(run)) >= epochs  # noqa: E731
            for _ in fit(own, dataset, run, recipe="bench", stop=stop):
                pass


def measure_workers(turns: int, folder: Path) -> dict[str, float]:
    """Return measurements of each way over several turns, and ratios within turns."""
    with ExitStack() as stack:
        groups = {name: list(_start(name, folder, stack)) for name in WAYS}
        results: dict[str, list[Turn]] = {name: [] for name in WAYS}
        for _ in range(turns):
            for name, group in groups.items():
                results[name].append(take_turn(group))
        exact = [group[0].run for name, group in groups.items() if WAYS[name].larger == 1]
        objectives = [[epoch["train_objective"] for epoch in read_epochs(run)] for run in exact]
    figures: dict[str, float] = {}
    for name, taken in results.items():
        figures |= spread({f"{name}_s": [turn.wall for turn in taken]})
        figures[f"{name}_processor_s"] = median(turn.processor for turn in taken)
        figures[f"{name}_start_s"] = groups[name][0].seconds_to_start
    common = min(map(len, objectives))
    apart = np.ptp([each[:common] for each in objectives], axis=0) / np.abs(objectives[0][:common])
    return figures | compare(results) | {"differ": float(apart.max())}


def _start(name: str, folder: Path, stack: ExitStack) -> Iterator[Training]:
    """Start a way of training on copies of the run, and stop it after its first epoch."""
    way = WAYS[name]
    for k in range(way.copies):
        run = folder / f"{name}-{k}"
        shutil.copytree(folder / f"run-{way.larger}", run)
        train = ["train", str(run / "config.yaml"), "--resume", "--out", str(run), *way.options]
        quiet = ["--quiet", "--no-track", "--no-evaluate"]
        training = Training(run, [sys.executable, *way.launcher, *PYTHON_MODULE, *train, *quiet])
        stack.callback(training.end)
        yield training


def compare(results: Mapping[str, list[Turn]]) -> dict[str, float]:
    """Return medians of the ratios between epochs of the same turn."""
    found: dict[str, float] = {}
    plain, apart = results["plain"], results["apart"]
    for way in ("ray1", *TWO_WORKERS):
        pairs = list(zip(plain, apart, results[way], strict=True))
        found[f"{way}_gain"] = median(one.wall / turn.wall for one, _, turn in pairs)
        found[f"{way}_share"] = median(both.wall / 2 / turn.wall for _, both, turn in pairs)
    pairs_apart = zip(plain, apart, strict=True)
    found["apart_gain"] = median(2 * one.wall / both.wall for one, both in pairs_apart)
    found["processors"] = median(turn.processor / 2 / turn.wall for turn in apart)
    return found


def describe(name: str, f: Mapping[str, float]) -> str:
    """Return the measurements as text."""
    lines = [f"{name}, seconds of an epoch: median (least to most), and of processors"]
    for way in WAYS:
        wall = f"{f[f'{way}_s']:6.2f} ({f[f'{way}_s_min']:.2f} to {f[f'{way}_s_max']:.2f})"
        processor = f"{f[f'{way}_processor_s']:6.2f}"
        lines.append(f"  {way:17} {wall:24} {processor}; started in {f[f'{way}_start_s']:.0f} s")
    lines.append(f"  two independent processes do {f['apart_gain']:.2f} times the work of one")
    for way in TWO_WORKERS:
        lines.append(f"  {way}: {f[f'{way}_gain']:.2f} times, {f[f'{way}_share']:.0%} of that")
    lines.append(f"  objectives differ by at most {f['differ']:.1e} of their size")
    if f["processors"] < QUIET:
        lines.append(f"  too busy a machine to tell: {f['processors']:.0%} of two processors")
    return "\n".join(lines)


def main() -> None:
    """Run as a program."""
    parser, names = parser_of("workers", __doc__), [*SIZES, SPEECH, SUPPORTS]
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(names)}")
    parser.add_argument("--picture", type=Path, help="a grey picture; a drawn one without")
    parser.add_argument("--rows", type=int, default=8192, help="rows to train on")
    parser.add_argument("--batch", type=int, default=32, help="rows of a step of one process")
    parser.add_argument("--epochs", type=int, default=3, help="epochs of the run that is copied")
    parser.add_argument("--turns", type=int, default=5, help="turns of each way")
    parsed = parser.parse_args()
    for unknown in {*parsed.cases} - {*names}:
        parser.error(f"{unknown}: {', '.join(names)} expected")
    settings = {name: getattr(parsed, name) for name in ("rows", "epochs", "turns", "batch")}
    for name, subject in subjects(parsed.picture, parsed.rows, parsed.batch):
        if parsed.cases and name not in parsed.cases:
            continue
        with TemporaryDirectory(prefix="distvae-bench-") as folder:
            prepare_runs(subject, parsed.epochs, Path(folder))
            figures = measure_workers(parsed.turns, Path(folder))
        show(parsed, {"case": name, **settings, **figures}, describe(name, figures))
        keep(parsed, f"workers-{name}-batch-{parsed.batch}", figures, settings)


if __name__ == "__main__":
    main()
