"""Time the same trials in processes that are reused, each as a run of Ray Train, and in stacks.

Each way is a command. Its time is all of it, from the start of Python to the last file; the time of
a trial is that in its results. The seconds that processors were busy meanwhile are those of the
sweep if nothing else runs.
"""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median
from tempfile import TemporaryDirectory
from typing import NamedTuple

import yaml

from distvae.bench.output import Output
from distvae.config.recipes import read_tree
from distvae.data import open_dataset
from distvae.files.plain import Tree
from distvae.files.refusal import Refusal
from distvae.files.untrusted import read_json
from distvae.system.processors import busy_seconds
from distvae.tune.space_files import load_space, space_path

WAYS: dict[str, list[str]] = {
    "reused": [],
    "nested": ["--workers", "1"],
    "stacked": ["--stack", "auto"],
}
"""The options of each way."""


class SweepSize(NamedTuple):
    """The size of the sweep that is timed."""

    trials: int
    epochs: int
    concurrent: int


class TimedSweep(NamedTuple):
    """A sweep that has finished."""

    seconds: float
    """Duration from start to end."""
    busy: float
    """Seconds that the processors were busy meanwhile, with whatever it was."""
    trials: dict[int, Tree]
    """Results by the number of the trial."""


def bench_sweep(space: str, size: tuple[int, int | None, int], turns: int, output: Output) -> None:
    """Time a sweep of a space in each way, with trials, epochs and processes of such a number."""
    trials, epochs, concurrent = size
    size = SweepSize(trials, epochs or load_space(space).base.train.epochs, concurrent)
    with TemporaryDirectory(prefix="distvae-bench-") as folder:
        figures = measure_sweep(space, size, turns, Path(folder))
    settings = size._asdict()
    output.show({"space": space, **settings, **figures}, _describe_sweeps(space, size, figures))
    output.keep(f"sweep-{space}-{size.epochs}", figures, settings)


def _describe_sweeps(space: str, size: SweepSize, f: dict[str, float]) -> str:
    lines = [f"{space}: {size.trials} trials of {size.epochs} epochs, {size.concurrent} at once"]
    for way in WAYS:
        lines.append(
            f"  {way}: {f[f'{way}_trial_s']:.1f} s per trial, {f[f'{way}_per_hour']:.0f} trials per"
            f" hour, {f[f'{way}_s']:.0f} s in all, {f[f'{way}_busy_s']:.0f} s of all processors"
        )
    lines.append(f"  reused processes: {f['times']:.2f} times as many trials per hour as nested")
    lines.append(f"  stacks: {f['stacked_nested']:.2f} times as many")
    return "\n".join(lines)


def measure_sweep(space: str, size: SweepSize, turns: int, folder: Path) -> dict[str, float]:
    """Run all ways in turns on the same settings, and return the medians of their times."""
    file = folder / f"{Path(space).stem}.yaml"
    file.write_text(yaml.safe_dump(dict(read_tree(space_path(space))) | {"search": "random"}))
    # Prepare the data now: otherwise only the first way would wait for it.
    open_dataset(load_space(str(file)).base.data, quiet=True)
    words = ["--trials", str(size.trials), "--concurrent", str(size.concurrent)]
    words.append(f"train.epochs={size.epochs}")
    sweeps: dict[str, list[TimedSweep]] = {way: [] for way in WAYS}
    for turn in range(turns):
        for way, options in WAYS.items():
            out = folder / f"{way}-{turn}"
            sweeps[way].append(run_sweep_command(file, out, [*words, *options]))
    _refuse_other_trials([sweep for timed in sweeps.values() for sweep in timed])
    figures: dict[str, float] = {}
    for way, timed in sweeps.items():
        figures |= _summarise(way, size.trials, timed)
    nested = figures["nested_per_hour"]
    times = figures["reused_per_hour"] / nested
    return figures | {"times": times, "stacked_nested": figures["stacked_per_hour"] / nested}


def _summarise(way: str, trials: int, timed: Sequence[TimedSweep]) -> dict[str, float]:
    """Return the figures of a way."""
    seconds = median(sweep.seconds for sweep in timed)
    of_trials = [trial["seconds"] for sweep in timed for trial in sweep.trials.values()]
    return {
        f"{way}_s": seconds,
        f"{way}_busy_s": median(sweep.busy for sweep in timed),
        f"{way}_trial_s": fmean(of_trials),
        f"{way}_per_hour": 3600 * trials / seconds,
    }


def _refuse_other_trials(sweeps: Sequence[TimedSweep]) -> None:
    """Refuse to compare sweeps that have tried different settings."""
    tried = []
    for sweep in sweeps:
        tried.append({number: trial["values"] for number, trial in sweep.trials.items()})
    for other in tried[1:]:
        if other != tried[0]:
            raise Refusal(f"bench sweep: different trials were run: {tried[0]} and {other}")


def run_sweep_command(file: Path, out: Path, words: list[str]) -> TimedSweep:
    """Run a sweep by the command line, and return how long it took and its results."""
    start = [sys.executable, "-m", "distvae", "tune", str(file)]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "MLFLOW_TRACKING_URI": f"sqlite:///{out}.db",
    }
    began, busy = time.perf_counter(), busy_seconds()
    subprocess.run([*start, "--out", str(out), "--quiet", *words], env=environment, check=True)
    seconds, busy = time.perf_counter() - began, busy_seconds() - busy
    trials = read_json(out / "results.json")["trials"]
    return TimedSweep(seconds, busy, {trial["number"]: trial for trial in trials})
