"""Time the same trials twice: in processes that are reused, and each as a run of Ray Train.

Each way is a command. Its time is all of it, from the start of Python to the last file; the time of
a trial is that in its results.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import yaml

from distvae.bench.output import Output
from distvae.config.recipes import read_tree
from distvae.data import open_dataset
from distvae.files.refusal import Refusal
from distvae.files.untrusted import read_json
from distvae.tune.space_files import load_space, space_path

WAYS: dict[str, list[str]] = {"reused": [], "nested": ["--workers", "1"]}
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
    trials: dict[int, dict[str, Any]]
    """Results by the number of the trial."""


def bench_sweep(
    space: str, trials: int, epochs: int | None, concurrent: int, output: Output
) -> None:
    """Time a sweep of a space in each way."""
    size = SweepSize(trials, epochs or load_space(space).base.train.epochs, concurrent)
    with TemporaryDirectory(prefix="distvae-bench-") as folder:
        figures = measure_sweep(space, size, Path(folder))
    settings = size._asdict()
    output.show({"space": space, **settings, **figures}, _describe_sweeps(space, size, figures))
    output.keep(f"sweep-{space}-{size.epochs}", figures, settings)


def _describe_sweeps(space: str, size: SweepSize, f: dict[str, float]) -> str:
    lines = [f"{space}: {size.trials} trials of {size.epochs} epochs, {size.concurrent} at once"]
    for way in WAYS:
        lines.append(
            f"  {way}: {f[f'{way}_trial_s']:.1f} s per trial, {f[f'{way}_per_hour']:.0f} trials per"
            f" hour, {f[f'{way}_s']:.0f} s in all"
        )
    lines.append(f"  reused processes: {f['times']:.2f} times as many trials per hour")
    return "\n".join(lines)


def measure_sweep(space: str, size: SweepSize, folder: Path) -> dict[str, float]:
    """Run both ways, one after the other, on the same settings."""
    file = folder / f"{Path(space).stem}.yaml"
    file.write_text(yaml.safe_dump(dict(read_tree(space_path(space))) | {"search": "random"}))
    # Prepare the data now: otherwise only the first way would wait for it.
    open_dataset(load_space(str(file)).base.data, quiet=True)
    words = ["--trials", str(size.trials), "--concurrent", str(size.concurrent)]
    words.append(f"train.epochs={size.epochs}")
    sweeps = {}
    for way, options in WAYS.items():
        sweeps[way] = run_sweep_command(file, folder / way, [*words, *options])
    _refuse_other_trials(*sweeps.values())
    figures: dict[str, float] = {}
    for way, sweep in sweeps.items():
        figures[f"{way}_s"] = sweep.seconds
        figures[f"{way}_trial_s"] = fmean(trial["seconds"] for trial in sweep.trials.values())
        figures[f"{way}_per_hour"] = 3600 * len(sweep.trials) / sweep.seconds
    return figures | {"times": figures["reused_per_hour"] / figures["nested_per_hour"]}


def _refuse_other_trials(first: TimedSweep, second: TimedSweep) -> None:
    """Refuse to compare sweeps that have tried different settings."""
    tried = []
    for sweep in (first, second):
        tried.append({number: trial["values"] for number, trial in sweep.trials.items()})
    if tried[0] != tried[1]:
        raise Refusal(f"bench sweep: different trials were run: {tried[0]} and {tried[1]}")


def run_sweep_command(file: Path, out: Path, words: list[str]) -> TimedSweep:
    """Run a sweep by the command line, and return how long it took and its results."""
    start = [sys.executable, "-m", "distvae", "tune", str(file)]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "MLFLOW_TRACKING_URI": f"sqlite:///{out}.db",
    }
    began = time.perf_counter()
    subprocess.run([*start, "--out", str(out), "--quiet", *words], env=environment, check=True)
    seconds = time.perf_counter() - began
    trials = read_json(out / "results.json")["trials"]
    return TimedSweep(seconds, {trial["number"]: trial for trial in trials})
