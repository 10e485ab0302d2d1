"""The same trials twice: by processes that are kept from one trial to the next, and each as a run
of Ray Train.

Each way is a command. Its time is all of it, from the start of Python to the last file; a trial's
is that of its row.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import yaml

from distvae.bench.row import keep_row
from distvae.config.recipes import read_tree
from distvae.data import open_dataset
from distvae.files.refusal import Refusal
from distvae.files.untrusted import read_json
from distvae.tune.space_files import load_space, space_path

WAYS: dict[str, list[str]] = {"reused": [], "nested": ["--workers", "1"]}


class Taken(NamedTuple):
    """What one way took."""

    seconds: float
    """From beginning to end."""
    trials: dict[int, dict[str, Any]]
    """The results by number."""


def report(
    space: str, trials: int, epochs: int | None, concurrent: int, as_json: bool, keep: Path | None
) -> None:
    """Print what each way takes, and keep it where wanted."""
    count = epochs or load_space(space).base.train.epochs
    how = {"trials": trials, "epochs": count, "concurrent": concurrent}
    with TemporaryDirectory(prefix="distvae-bench-") as folder:
        figures = measure(space, trials, count, concurrent, Path(folder))
    print(
        json.dumps({"space": space} | how | figures) if as_json else _told(space, how, figures),
        flush=True,
    )
    if keep:
        keep_row(keep, f"sweep-{space}-{count}", figures, how)


def _told(space: str, how: dict[str, int], f: dict[str, float]) -> str:
    lines = [
        f"{space}: {how['trials']} trials of {how['epochs']} epochs, {how['concurrent']} side by"
        " side"
    ]
    lines += [
        f"  {way}: {f[f'{way}_trial_s']:.1f} s a trial, {f[f'{way}_per_hour']:.0f} trials an hour, "
        f"{f[f'{way}_s']:.0f} s in all"
        for way in WAYS
    ]
    return "\n".join(
        [*lines, f"  processes that are kept: {f['times']:.2f} times as many trials an hour"]
    )


def measure(
    space: str, trials: int, epochs: int, concurrent: int, folder: Path
) -> dict[str, float]:
    """Both ways, one after the other, on the same settings."""
    file = folder / f"{Path(space).stem}.yaml"
    file.write_text(yaml.safe_dump(dict(read_tree(space_path(space))) | {"search": "random"}))
    open_dataset(
        load_space(str(file)).base.data, quiet=True
    )  # which the first way alone would wait for
    words = ["--trials", str(trials), "--concurrent", str(concurrent), f"train.epochs={epochs}"]
    taken = {way: take(file, folder / way, [*words, *options]) for way, options in WAYS.items()}
    tried = [
        {number: trial["values"] for number, trial in one.trials.items()} for one in taken.values()
    ]
    if tried[0] != tried[1]:
        raise Refusal(f"bench sweep: other trials were tried: {tried[0]} and {tried[1]}")
    figures: dict[str, float] = {}
    for way, one in taken.items():
        figures[f"{way}_s"] = one.seconds
        figures[f"{way}_trial_s"] = fmean(trial["seconds"] for trial in one.trials.values())
        figures[f"{way}_per_hour"] = 3600 * len(one.trials) / one.seconds
    return figures | {"times": figures["reused_per_hour"] / figures["nested_per_hour"]}


def take(file: Path, out: Path, words: list[str]) -> Taken:
    """A sweep by the command line."""
    command = [
        sys.executable,
        "-m",
        "distvae",
        "tune",
        str(file),
        "--out",
        str(out),
        "--quiet",
        *words,
    ]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "MLFLOW_TRACKING_URI": f"sqlite:///{out}.db",
    }
    began = time.perf_counter()
    subprocess.run(command, env=environment, check=True)
    seconds = time.perf_counter() - began
    listed = read_json(out / "results.json")["trials"]
    return Taken(seconds, {trial["number"]: trial for trial in listed})
